import httpx
import pytest
from tests.server.serving import serving

from aios.sdk.files import Files
from aios.server.links import disposition

pytestmark = pytest.mark.anyio


async def test_a_link_is_answered_without_a_token_to_be_saved_and_not_shown() -> None:
    async with serving() as served:
        files = Files(served.kernel.init_gate())
        await files.write("/shared/pagé.html", "<script>alert(1)</script>")
        link = await files.link("/shared/pagé.html")
        async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
            reply = await client.get(f"/aios/files/{link.token}")
            assert (reply.status_code, reply.text) == (200, "<script>alert(1)</script>")
            assert reply.headers["content-type"] == "application/octet-stream"
            assert reply.headers["content-length"] == str(len(reply.content))
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["cache-control"] == "private, no-store"
            assert reply.headers["content-security-policy"].startswith("sandbox")
            assert reply.headers["content-disposition"] == (
                "attachment; filename=\"pag_.html\"; filename*=UTF-8''pag%C3%A9.html"
            )
            head = await client.head(f"/aios/files/{link.token}")
            assert (head.status_code, head.content) == (200, b"")
            await files.unlink(link.id)
            for path in (
                f"/aios/files/{link.token}",
                "/aios/files/",
                "/aios/files",
                f"/aios/files/{link.token}/x",
                "/aios/files/../aios/ps",
            ):
                assert (await client.get(path)).status_code in {401, 404}, path
            for path in ("/aios/files/%2e%2e/aios/ps", "/aios/files/..%2faios%2fps"):
                assert (await client.get(path)).status_code == 404
            assert (await client.post(f"/aios/files/{link.token}")).status_code == 405


async def test_a_web_page_under_a_foreign_name_gets_nothing() -> None:
    async with serving() as served:
        files = Files(served.kernel.init_gate())
        await files.write("/shared/a", "a")
        link = await files.link("/shared/a")
        async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
            reply = await client.get(f"/aios/files/{link.token}", headers={"host": "evil.example"})
            assert reply.status_code == 403


def test_no_name_breaks_out_of_its_header() -> None:
    for name in ('a"b', "a\r\nx-evil: 1", "a;b", "a\\b"):
        header = disposition(f"/shared/{name}")
        assert header.count('"') == 2
        assert not {"\r", "\n", "\\"} & set(header)
