"""The model store on real files in a temporary home."""

from hashlib import sha256
from pathlib import Path

import anyio
import pytest
from tests.engine.gguf_files import gguf

from aios.config import DEFAULT_MODEL, Home
from aios.engine import models
from aios.engine.models import (
    CATALOGUE,
    CatalogueEntry,
    Progress,
    check_model,
    find_model,
    list_models,
    part_path,
    pull,
    record_path,
    remove_model,
    write_record,
)
from aios.errors import InvalidCall, ModelMissing, NotFound

GOOD = gguf()
TINY = CatalogueEntry(
    name="tiny",
    file="Tiny.Q4_0.gguf",
    size_bytes=len(GOOD),
    sha256=sha256(GOOD).hexdigest(),
    licence="MIT",
    distribution="tiny-model",
    version="1.0",
    member="tiny/Tiny.Q4_0.gguf",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setitem(CATALOGUE, "tiny", TINY)
    (tmp_path / "home" / "models").mkdir(parents=True)
    return Home(tmp_path / "home")


def put(home: Home, file: str, data: bytes = GOOD) -> Path:
    path = home.models / file
    path.write_bytes(data)
    return path


def test_the_default_model_that_is_not_there_is_pulled_by_the_command_in_the_hint(
    home: Home,
) -> None:
    with pytest.raises(ModelMissing) as raised:
        find_model("", home)
    assert raised.value.hint == f"aios pull {DEFAULT_MODEL}"


def test_the_home_of_the_configuration_is_used_when_none_is_given(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOS_HOME", str(home.root))
    path = put(home, TINY.file)
    assert find_model("tiny") == path


@pytest.mark.parametrize("name", ["tiny", TINY.file, TINY.file.removesuffix(".gguf")])
def test_a_catalogue_name_and_the_name_of_its_file_find_the_same_file(
    home: Home, name: str
) -> None:
    path = put(home, TINY.file)
    assert find_model(name, home) == path


def test_a_file_anywhere_is_found_by_its_path(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "elsewhere.gguf"
    path.write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)
    assert find_model(str(path), home) == path
    assert find_model("elsewhere.gguf", home) == path
    assert find_model("./elsewhere.gguf", home) == path


@pytest.mark.parametrize("name", ["nothing", "no/such.gguf", "bad\0name", "x" * 300])
def test_a_name_that_nothing_has_is_missing_with_a_hint(home: Home, name: str) -> None:
    with pytest.raises(ModelMissing) as raised:
        find_model(name, home)
    assert "aios pull" in raised.value.hint


def test_a_truncated_model_of_the_catalogue_is_missing_and_the_hint_pulls_it_again(
    home: Home,
) -> None:
    put(home, TINY.file, GOOD[:-1])
    with pytest.raises(ModelMissing, match="truncated") as raised:
        find_model("tiny", home)
    assert raised.value.hint == "aios pull tiny"


def test_another_file_that_is_truncated_is_noticed_from_its_own_head(home: Home) -> None:
    put(home, "other.gguf", GOOD[:-1])
    with pytest.raises(ModelMissing, match="truncated: it has"):
        find_model("other", home)


def test_the_hint_for_a_damaged_file_is_never_a_pull_that_cannot_work(home: Home) -> None:
    path = put(home, "other.gguf", GOOD[:-1])
    for look in (lambda: find_model("other", home), lambda: check_model(path)):
        with pytest.raises(ModelMissing) as raised:
            look()
        assert "aios pull" not in raised.value.hint  # nobody knows from where
    write_record(path, "0" * 64, source="hf:o/r/other.gguf")
    with pytest.raises(ModelMissing) as raised:
        check_model(path)
    assert raised.value.hint == "aios models rm other && aios pull hf:o/r/other.gguf"


def test_a_file_that_is_no_gguf_is_missing_and_says_why(home: Home) -> None:
    put(home, "other.gguf", b"<html>not found</html>")
    with pytest.raises(ModelMissing, match="letters GGUF"):
        find_model("other", home)


def test_a_check_reads_the_whole_file_only_when_asked(home: Home) -> None:
    flipped = bytearray(GOOD)
    flipped[-1] ^= 1
    path = put(home, TINY.file, bytes(flipped))
    assert check_model(path).ok
    with pytest.raises(ModelMissing, match="should be " + TINY.sha256):
        check_model(path, checksum=True)


def test_a_check_tells_what_the_model_is(home: Home) -> None:
    model = check_model(put(home, TINY.file), checksum=True)
    assert (model.name, model.sha256, model.ok) == ("tiny", TINY.sha256, True)
    assert (model.architecture, model.n_params, model.context_tokens) == ("llama", 128, 2048)


def test_a_checksum_is_remembered_until_the_file_changes(home: Home) -> None:
    path = put(home, "other.gguf")
    assert list_models(home)[0].sha256 is None
    write_record(path, sha256(GOOD).hexdigest(), source="here")
    assert list_models(home)[0].sha256 == sha256(GOOD).hexdigest()
    path.write_bytes(gguf(padding=1))
    assert list_models(home)[0].sha256 is None
    with pytest.raises(ModelMissing, match="the file is damaged or another"):
        check_model(path, checksum=True)


def test_a_record_that_is_damaged_is_as_good_as_none(home: Home) -> None:
    path = put(home, "other.gguf")
    record_path(path).write_text('{"sha256": 7')
    assert list_models(home)[0].sha256 is None
    assert check_model(path, checksum=True).ok


def test_the_list_has_what_is_whole_damaged_and_half_there_by_name(home: Home) -> None:
    assert list_models(Home(home.root / "none")) == []
    put(home, "z.gguf", b"junk")
    put(home, TINY.file)
    put(home, "a.gguf.part", b"GG")
    put(home, "notes.txt")
    rows = [(row.name, row.ok) for row in list_models(home)]
    assert rows == [("a (partial)", False), ("tiny", True), ("z", False)]


def test_removing_deletes_the_model_and_all_that_belongs_to_it_and_nothing_else(home: Home) -> None:
    path = put(home, TINY.file)
    write_record(path, TINY.sha256, source="tiny")
    put(home, part_path(path).name)
    other = put(home, "other.gguf")
    assert remove_model("tiny", home) == path
    assert list(home.models.iterdir()) == [other]


@pytest.mark.parametrize("name", ["nothing", "../outside", "/etc/passwd", "", "x" * 300])
def test_removing_what_the_store_does_not_have_touches_nothing(home: Home, name: str) -> None:
    outside = home.root / "outside.gguf"
    outside.write_bytes(GOOD)
    with pytest.raises(NotFound):
        remove_model(name, home)
    assert outside.exists()


def test_importing_the_store_loads_no_http_client() -> None:
    source = Path(models.__file__).read_text()
    head = source[: source.index("class ")]
    assert "httpx" not in head


@pytest.mark.anyio
async def test_pull_is_reached_through_the_store(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(GOOD)
    seen: list[Progress] = []
    with anyio.fail_after(30):
        assert await pull(str(path), home, progress=seen.append) == home.models / "mine.gguf"
        assert await pull(str(path), home) == home.models / "mine.gguf"
        with pytest.raises(InvalidCall, match="no model that can be pulled by name"):
            await pull("unheard-of", home)
    assert seen[-1].stage == "done"
    assert find_model("mine", home).read_bytes() == GOOD
