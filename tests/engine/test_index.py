"""Finding a wheel in indexes of both forms, as pip's and uv's settings name them."""

import json
from pathlib import Path

import anyio
import pytest
from tests.engine.file_server import FileServer, Reply, serving

from aios.engine.download import Limits, open_client
from aios.engine.index import DEFAULT_INDEX, Wheel, find_wheel, index_urls

FILE = "Tiny_Model-1.0-py3-none-any.whl"


def json_page(*files: dict[str, object]) -> Reply:
    body = json.dumps({"meta": {"api-version": "1.0"}, "files": files}).encode()
    return Reply(headers={"Content-Type": "application/vnd.pypi.simple.v1+json"}, body=body)


def html_page(body: str) -> Reply:
    return Reply(headers={"Content-Type": "text/html"}, body=body.encode())


async def find(server: FileServer, *urls: str) -> Wheel | None:
    with anyio.fail_after(30):
        async with open_client(Limits(), allow_http=False) as client:
            where = list(urls) or [server.url + "/simple"]
            return await find_wheel(client, where, distribution="tiny.model", version="1.0")


@pytest.mark.anyio
async def test_a_json_index_tells_address_checksum_and_size() -> None:
    page = json_page(
        {"filename": "tiny_model-0.9-py3-none-any.whl", "url": "old"},
        {"filename": "tiny_model-1.0.tar.gz", "url": "source"},
        {"filename": "odd", "url": "odd"},
        {"filename": FILE, "url": "../../files/" + FILE, "hashes": {"sha256": "ab"}, "size": 7},
    )
    async with serving(FileServer(script=[page])) as server:
        wheel = await find(server)
        assert wheel == Wheel(f"{server.url}/files/{FILE}", "ab", 7)
    assert server.requests[0].path == "/simple/tiny-model/"
    assert "application/vnd.pypi.simple.v1+json" in server.requests[0].headers["accept"]


@pytest.mark.anyio
async def test_an_html_index_does_as_well() -> None:
    page = html_page(
        f'<!DOCTYPE html><a>none</a><a href="/f/other.whl">x</a><a href="/f/{FILE}#sha256=cd">{FILE}</a>'
    )
    async with serving(FileServer(script=[page])) as server:
        assert await find(server) == Wheel(f"{server.url}/f/{FILE}", "cd", None)


@pytest.mark.anyio
async def test_the_second_index_is_asked_when_the_first_fails_or_lacks_it() -> None:
    good = json_page({"filename": FILE, "url": "/w", "hashes": {}})
    bad = Reply(headers={"Content-Type": "application/json"}, body=b"{")
    script: list[Reply | int] = [Reply(404), bad, json_page(), good]
    async with serving(FileServer(script=script)) as server:
        urls = [f"{server.url}/{name}" for name in "abcd"]
        assert await find(server, "http://index.example/simple", *urls) == Wheel(
            server.url + "/w", "", None
        )


@pytest.mark.anyio
async def test_no_index_that_has_it_is_none() -> None:
    async with serving(FileServer()) as server:
        assert await find(server) is None


@pytest.mark.anyio
async def test_a_page_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aios.engine.index.MAX_PAGE_BYTES", 10)
    page = json_page({"filename": FILE, "url": "/w"})
    async with serving(FileServer(script=[page])) as server:
        assert await find(server) is None


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """An environment in which no settings of this machine's user are found; pip's own file is a given one."""
    (tmp_path / "pip.conf").write_text("[global]\nindex-url =\nextra-index-url =\n")
    return {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}


def test_the_public_index_is_the_default(nowhere: dict[str, str]) -> None:
    assert index_urls(nowhere) == [DEFAULT_INDEX]


def test_the_environment_names_the_index_and_more_of_them(nowhere: dict[str, str]) -> None:
    env = nowhere | {
        "PIP_INDEX_URL": "https://a.example/simple/",
        "PIP_EXTRA_INDEX_URL": "https://b.example/simple file:///opt/c https://a.example/simple",
    }
    assert index_urls(env) == ["https://a.example/simple", "https://b.example/simple"]
    assert index_urls(env | {"UV_INDEX_URL": "https://u.example/"})[0] == "https://u.example"
    assert (
        index_urls(env | {"UV_DEFAULT_INDEX": "corp=https://d.example"})[0] == "https://d.example"
    )


def test_the_file_of_pip_names_the_index(nowhere: dict[str, str]) -> None:
    Path(nowhere["PIP_CONFIG_FILE"]).write_text(
        "[global]\nindex-url = https://f.example/%(x)s\nextra-index-url =\n  https://g.example\n  https://h.example\n"
    )
    assert index_urls(nowhere) == [
        "https://f.example/%(x)s",
        "https://g.example",
        "https://h.example",
    ]


def test_a_damaged_file_of_pip_is_skipped(nowhere: dict[str, str]) -> None:
    without = index_urls({"HOME": nowhere["HOME"]})
    Path(nowhere["PIP_CONFIG_FILE"]).write_text("index-url without a section")
    assert index_urls(nowhere) == without


def test_who_wants_no_index_gets_none(nowhere: dict[str, str]) -> None:
    assert index_urls(nowhere | {"PIP_NO_INDEX": "1"}) == []
