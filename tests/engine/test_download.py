"""Downloads from a real server that breaks off, changes its mind and lies."""

from hashlib import sha256
from pathlib import Path

import anyio
import pytest
from tests.engine.file_server import FileServer, Reply, serving

from aios.engine import download
from aios.engine.download import (
    Downloader,
    Limits,
    Remote,
    check_url,
    discard,
    open_client,
    redacted,
)
from aios.engine.models import Progress, record_path
from aios.engine.pull import find_source
from aios.errors import ConfigError, InvalidCall, ModelMissing, ResourceExhausted, TooLarge

pytestmark = pytest.mark.anyio

DATA = bytes(i * 7 % 251 for i in range(100_000))
FAST = Limits(backoff_s=0.001, reserve_bytes=0, connect_timeout_s=2, read_timeout_s=2)


async def fetch(
    server: FileServer,
    part: Path,
    *,
    limits: Limits = FAST,
    seen: list[Progress] | None = None,
    remote: Remote | None = None,
) -> str | None:
    with anyio.fail_after(30):
        async with open_client(limits, allow_http=False) as client:
            downloader = Downloader(client, limits, ([] if seen is None else seen).append)
            return await downloader.fetch(remote or Remote(server.url + "/m.gguf"), part)


async def test_a_file_comes_whole_and_progress_ends_at_its_length(tmp_path: Path) -> None:
    seen: list[Progress] = []
    part = tmp_path / "m.part"
    async with serving(FileServer({"/m.gguf": DATA})) as server:
        await fetch(server, part, seen=seen)
    assert part.read_bytes() == DATA
    assert seen[-1] == Progress("download", len(DATA), len(DATA))


async def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    part = tmp_path / "m.part"
    async with serving(FileServer({"/m.gguf": DATA}, script=[30_000, 20_000])) as server:
        await fetch(server, part)
    assert part.read_bytes() == DATA
    ranges = [request.headers.get("range") for request in server.requests]
    assert ranges == [None, "bytes=30000-", "bytes=50000-"]


async def test_another_run_goes_on_with_what_the_first_left(tmp_path: Path) -> None:
    part = tmp_path / "m.part"
    once = Limits(n_retries=0, backoff_s=0, reserve_bytes=0)
    async with serving(FileServer({"/m.gguf": DATA}, script=[40_000])) as server:
        with pytest.raises(ModelMissing, match="40000 bytes are kept") as raised:
            await fetch(server, part, limits=once)
        assert "goes on where it was" in raised.value.hint
        await fetch(server, part, limits=once)
    assert part.read_bytes() == DATA
    assert server.requests[-1].headers["range"] == "bytes=40000-"


async def test_a_file_that_changed_meanwhile_begins_anew_and_is_never_mixed(tmp_path: Path) -> None:
    part = tmp_path / "m.part"
    other = DATA[::-1]
    server = FileServer({"/m.gguf": DATA}, script=[60_000])
    async with serving(server):
        with pytest.raises(ModelMissing):
            await fetch(server, part, limits=Limits(n_retries=0, reserve_bytes=0))
        server.files["/m.gguf"] = other
        await fetch(server, part)
    assert part.read_bytes() == other


@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
async def test_a_part_of_another_version_is_never_gone_on_with_though_the_server_does(
    tmp_path: Path, name: str
) -> None:
    """Some servers and proxies take the range and leave the condition out of account."""
    part = tmp_path / "m.part"
    other = DATA[::-1]
    mine, theirs = ('"1"', '"2"') if name == "ETag" else ("Mon, 01 Jan 2024", "Tue, 02 Jan 2024")
    extent = {"Content-Range": f"bytes 60000-{len(DATA) - 1}/{len(DATA)}"}
    begun = Reply(200, {name: mine}, DATA, cut_after=60_000)
    mixed = Reply(206, {name: theirs, **extent}, other[60_000:])
    server = FileServer({"/m.gguf": other}, script=[begun, mixed])
    async with serving(server):
        await fetch(server, part)
    assert part.read_bytes() == other
    assert ["range" in request.headers for request in server.requests] == [False, True, False]


async def test_a_part_is_gone_on_with_where_the_server_does_not_say_its_version_again(
    tmp_path: Path,
) -> None:
    part = tmp_path / "m.part"
    extent = {"Content-Range": f"bytes 60000-{len(DATA) - 1}/{len(DATA)}"}
    begun = Reply(200, {"Last-Modified": "Mon, 01 Jan 2024"}, DATA, cut_after=60_000)
    server = FileServer(script=[begun, Reply(206, extent, DATA[60_000:])])
    async with serving(server):
        await fetch(server, part)
    assert part.read_bytes() == DATA


async def test_a_part_of_another_address_is_not_gone_on_with(tmp_path: Path) -> None:
    part = tmp_path / "m.part"
    server = FileServer({"/m.gguf": DATA, "/n.gguf": DATA[::-1]}, script=[60_000])
    async with serving(server):
        with pytest.raises(ModelMissing):
            await fetch(server, part, limits=Limits(n_retries=0, reserve_bytes=0))
        await fetch(server, part, remote=Remote(server.url + "/n.gguf"))
    assert part.read_bytes() == DATA[::-1]
    assert "range" not in server.requests[-1].headers


@pytest.mark.parametrize(("known", "n_resumed"), [(None, 0), (sha256(DATA).hexdigest(), 1)])
async def test_without_a_validator_only_what_will_be_verified_is_gone_on_with(
    tmp_path: Path, known: str | None, n_resumed: int
) -> None:
    part = tmp_path / "m.part"
    server = FileServer({"/m.gguf": DATA}, script=[60_000], sends_etag=False)
    async with serving(server):
        await fetch(server, part, remote=Remote(server.url + "/m.gguf", sha256=known))
    assert part.read_bytes() == DATA
    assert sum("range" in request.headers for request in server.requests) == n_resumed


async def test_a_server_without_ranges_is_read_from_the_start_again(tmp_path: Path) -> None:
    part = tmp_path / "m.part"
    server = FileServer({"/m.gguf": DATA}, script=[60_000], knows_ranges=False)
    async with serving(server):
        await fetch(server, part)
    assert part.read_bytes() == DATA


async def test_a_part_that_is_whole_already_needs_nothing_more(tmp_path: Path) -> None:
    part = tmp_path / "m.part"
    async with serving(FileServer({"/m.gguf": DATA})) as server:
        await fetch(server, part)
        await fetch(server, part)
    assert part.read_bytes() == DATA
    assert server.requests[-1].headers["range"] == f"bytes={len(DATA)}-"


async def test_a_part_that_is_longer_than_the_file_is_thrown_away(tmp_path: Path) -> None:
    part = tmp_path / "m.part"
    server = FileServer({"/m.gguf": DATA})
    async with serving(server):
        await fetch(server, part)
        part.write_bytes(DATA + b"more")
        await fetch(server, part)
    assert part.read_bytes() == DATA


async def test_an_answer_with_the_wrong_range_is_not_appended(tmp_path: Path) -> None:
    part = tmp_path / "m.part"
    wrong = Reply(206, {"Content-Range": "bytes 0-99999/100000", "ETag": '"x"'}, DATA)
    async with serving(FileServer({"/m.gguf": DATA}, script=[50_000, wrong])) as server:
        await fetch(server, part)
    assert part.read_bytes() == DATA


@pytest.mark.parametrize(("status", "extent"), [(206, "bytes 50000-99999/"), (416, "bytes */")])
async def test_a_length_of_thousands_of_digits_is_not_believed(
    tmp_path: Path, status: int, extent: str
) -> None:
    part = tmp_path / "m.part"
    wrong = Reply(status, {"Content-Range": extent + "9" * 5000})
    async with serving(FileServer({"/m.gguf": DATA}, script=[50_000, wrong])) as server:
        await fetch(server, part)
    assert part.read_bytes() == DATA


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_server_is_asked_again(tmp_path: Path, status: int) -> None:
    part = tmp_path / "m.part"
    seen: list[Progress] = []
    script: list[Reply | int] = [Reply(status, {"Retry-After": "0"}), Reply(status)]
    async with serving(FileServer({"/m.gguf": DATA}, script=script)) as server:
        await fetch(server, part, seen=seen)
    assert part.read_bytes() == DATA
    assert any(f"the server answers {status}" in progress.note for progress in seen)


async def test_a_server_that_never_recovers_is_given_up_after_the_retries(tmp_path: Path) -> None:
    script: list[Reply | int] = [Reply(503)] * 10
    async with serving(FileServer({}, script=script)) as server:
        with pytest.raises(ModelMissing, match="the server answers 503"):
            await fetch(server, tmp_path / "m.part")
    assert len(server.requests) == FAST.n_retries + 1


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "authenticate"),
        (403, "may not have it"),
        (404, "not there"),
        (410, "gone"),
        (418, "418"),
    ],
)
async def test_a_refusal_is_told_at_once_with_the_hint(
    tmp_path: Path, status: int, words: str
) -> None:
    async with serving(FileServer({}, script=[Reply(status)])) as server:
        remote = Remote(server.url + "/m.gguf?token=geheim", hint="set HF_TOKEN")
        with pytest.raises(ModelMissing, match=words) as raised:
            await fetch(server, tmp_path / "m.part", remote=remote)
    assert raised.value.hint == "set HF_TOKEN"
    assert "geheim" not in raised.value.message
    assert len(server.requests) == 1


async def test_nobody_there_is_a_clear_error(tmp_path: Path) -> None:
    async with serving(FileServer()) as server:
        gone = FileServer(url=server.url)
    with pytest.raises(ModelMissing, match=r"/m\.gguf cannot be downloaded") as raised:
        await fetch(gone, tmp_path / "m.part", limits=Limits(n_retries=1, backoff_s=0.001))
    assert "network" in raised.value.hint


async def test_a_redirect_is_followed_and_its_checksum_believed(tmp_path: Path) -> None:
    part = tmp_path / "m.part"
    digest = sha256(DATA).hexdigest()
    hop = Reply(302, {"Location": "/real.gguf", "X-Linked-Etag": f'"{digest}"'})
    async with serving(FileServer({"/real.gguf": DATA}, script=[hop])) as server:
        assert await fetch(server, part) == digest
    assert part.read_bytes() == DATA


async def test_a_redirect_to_plain_http_elsewhere_is_not_followed(tmp_path: Path) -> None:
    hop = Reply(302, {"Location": "http://models.example/m.gguf"})
    async with serving(FileServer({}, script=[hop])) as server:
        with pytest.raises(InvalidCall, match="over https only"):
            await fetch(server, tmp_path / "m.part")


async def test_redirects_without_end_are_given_up(tmp_path: Path) -> None:
    script: list[Reply | int] = [Reply(302, {"Location": "/m.gguf"})] * 20
    async with serving(FileServer({}, script=script)) as server:
        with pytest.raises(ModelMissing, match="redirects"):
            await fetch(server, tmp_path / "m.part")


async def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    part = tmp_path / "m.part"
    async with serving(FileServer({"/m.gguf": DATA})) as server:
        with pytest.raises(TooLarge, match="100000 bytes"):
            await fetch(server, part, limits=Limits(max_bytes=99_999, reserve_bytes=0))
    assert not part.exists()


async def test_a_file_of_unknown_length_is_cut_off_at_the_limit(tmp_path: Path) -> None:
    reply = Reply(headers={"Content-Length": ""}, body=DATA)
    async with serving(FileServer({}, script=[reply])) as server:
        with pytest.raises(TooLarge):
            await fetch(
                server, tmp_path / "m.part", limits=Limits(max_bytes=50_000, reserve_bytes=0)
            )


async def test_a_file_of_another_length_than_promised_is_refused(tmp_path: Path) -> None:
    async with serving(FileServer({"/m.gguf": DATA})) as server:
        remote = Remote(server.url + "/m.gguf", size_bytes=5)
        with pytest.raises(ModelMissing, match="should have 5"):
            await fetch(server, tmp_path / "m.part", remote=remote)


async def test_a_disk_without_room_is_noticed_before_the_download(tmp_path: Path) -> None:
    async with serving(FileServer({"/m.gguf": DATA})) as server:
        with pytest.raises(ResourceExhausted, match="free"):
            await fetch(server, tmp_path / "m.part", limits=Limits(reserve_bytes=1 << 60))


async def test_a_compressed_answer_is_refused_for_it_could_not_be_resumed(tmp_path: Path) -> None:
    reply = Reply(headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b")
    async with serving(FileServer({}, script=[reply])) as server:
        with pytest.raises(ModelMissing, match="compressed"):
            await fetch(server, tmp_path / "m.part")


async def test_a_cancelled_download_leaves_its_part_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "CHUNK_BYTES", 1000)  # progress is told more often
    part = tmp_path / "m.part"
    half = anyio.Event()

    def watch(progress: Progress) -> None:
        if progress.done_bytes == 50_000:
            half.set()

    server = FileServer({"/m.gguf": DATA}, script=[50_000], stalls=True)
    async with serving(server), open_client(FAST, allow_http=False) as client:
        remote = Remote(server.url + "/m.gguf")
        async with anyio.create_task_group() as group:
            group.start_soon(Downloader(client, FAST, watch).fetch, remote, part)
            with anyio.fail_after(30):
                await half.wait()
            group.cancel_scope.cancel()
        await fetch(server, part)
    assert part.read_bytes() == DATA
    assert server.requests[-1].headers["range"] == "bytes=50000-"


def test_discarding_a_part_takes_its_record_along(tmp_path: Path) -> None:
    part = tmp_path / "m.part"
    part.write_bytes(b"x")
    record_path(part).write_bytes(b"{}")
    discard(part)
    discard(part)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["https://x.example/m", "http://127.0.0.1:1/m", "http://localhost/m", "http://[::1]:8/m"]
)
def test_https_and_this_machine_may_be_asked(url: str) -> None:
    check_url(url, allow_http=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://x.example/m",
        "ftp://x.example/m",
        "file:///etc/passwd",
        "https:///m",
        "http://10.0.0.1/m",
    ],
)
def test_all_else_may_not(url: str) -> None:
    with pytest.raises(InvalidCall):
        check_url(url, allow_http=False)


def test_plain_http_may_be_allowed_but_nothing_stranger() -> None:
    check_url("http://x.example/m", allow_http=True)
    with pytest.raises(InvalidCall):
        check_url("file:///etc/passwd", allow_http=True)


@pytest.mark.parametrize(
    "url", ["https://[::1/x.gguf", "https://a.example:99999/x.gguf", "http://127.0.0.1:99999/x"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidCall, match="no request can be sent"):
        check_url(url, allow_http=True)
    with pytest.raises(InvalidCall, match="no request can be sent"):
        find_source(url, {}, allow_http=True)


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:1", "socks5://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_no_bug(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigError, match="environment") as found:
        open_client(Limits(), allow_http=True)
    assert "ALL_PROXY" in found.value.hint


def test_what_may_be_secret_in_a_url_is_not_shown() -> None:
    assert redacted("https://me:pw@x.example:1/a/b?sig=abc#f") == "https://x.example:1/a/b"


def test_certificates_named_in_the_environment_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in download.CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    n_before = download._trust().cert_store_stats()["x509"]
    file = tmp_path / "company.pem"
    monkeypatch.setenv("PIP_CERT", str(file))
    assert download._trust().cert_store_stats()["x509"] == n_before
    file.write_text(CERTIFICATE)
    assert download._trust().cert_store_stats()["x509"] == n_before + 1


CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBmTCCAT+gAwIBAgIUSyNPeYHrokKJQ5uwREKyMWE2F7YwCgYIKoZIzj0EAwIw
ITEfMB0GA1UEAwwWYSB0ZXN0IG9mIGNlcnRpZmljYXRlczAgFw0yNjExMjIyMjM0
NTZaGA8yMTI2MTAyOTIyMzQ1NlowITEfMB0GA1UEAwwWYSB0ZXN0IG9mIGNlcnRp
ZmljYXRlczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABHYBp9bqMkq8Wf/28/20
RDWN6rglzmC5yGzw1YVI0iAp8ol0NhRpGZtZnadycOYP7BM8oy2KQ1YQUOPicFsq
9DyjUzBRMB0GA1UdDgQWBBTeow6uO6ZrJ1vJqfQfkMa6oKKWFTAfBgNVHSMEGDAW
gBTeow6uO6ZrJ1vJqfQfkMa6oKKWFTAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49
BAMCA0gAMEUCIQCcCg6uhURSW2k6gK4p8ZW+P8haA49FhCcQDsyq+hXTRQIgOT3v
BIs8gaB2Y0mDOojjj/d3gYsj2D7Jhm3JJPtNyv8=
-----END CERTIFICATE-----
"""
