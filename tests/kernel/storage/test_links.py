import base64
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.conftest import OpenKernel

from aios.abi.links import LinkInfo
from aios.config import Config, Home, StorageConfig
from aios.errors import AccessDenied, NotFound, ResourceExhausted
from aios.kernel.clock import SystemClock
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.storage.links import Linked, _decode
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


class Calendar(SystemClock):
    """The clock of the system, with days that a test adds."""

    later_s = 0.0

    def unix_s(self) -> float:
        return super().unix_s() + self.later_s


async def content(kernel: Kernel, token: str) -> bytes:
    linked = await kernel.links.open(token)
    return b"".join([piece async for piece in kernel.links.read(linked)])


async def is_dead(kernel: Kernel, token: str) -> bool:
    try:
        await kernel.links.open(token)
    except NotFound as error:
        return error.message == "this link leads to nothing"  # no case is told from another
    return False


async def test_a_link_leads_to_its_version_until_it_expires(tmp_path: Path) -> None:
    clock = Calendar()
    async with open_kernel(Config(), Home(tmp_path), engines={}, clock=clock) as kernel:
        files = Files(kernel.init_gate())
        await files.write("/shared/a", b"x" * 2_500_000)
        link = await files.link("/shared/a", lifetime_s=60)
        await files.write("/shared/a", "new")
        await files.delete("/shared/a")
        assert await kernel.links.open(link.token) == Linked("/shared/a", 1, 2_500_000)
        assert await content(kernel, link.token) == b"x" * 2_500_000
        assert (tmp_path / "link.key").stat().st_mode & 0o777 == 0o600
        assert [each.token for each in await files.links()] == [""], "the secret is told once"
        clock.later_s = 61
        assert await is_dead(kernel, link.token)
        assert await files.links() == ()


async def test_links_outlive_the_kernel_and_not_their_key_or_version(tmp_path: Path) -> None:
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        files = Files(kernel.init_gate())
        await files.write("/shared/a", "1")
        first = await files.link("/shared/a")
        await files.write("/shared/a", "2")
        second = await files.link("/shared/a")
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        assert await content(kernel, first.token) == b"1"
        await Files(kernel.init_gate()).purge("/shared/a", keep=1)
        assert await is_dead(kernel, first.token)
        assert await content(kernel, second.token) == b"2"
    (tmp_path / "link.key").write_bytes(b"0" * 32)
    async with open_kernel(Config(), Home(tmp_path), engines={}) as kernel:
        assert await is_dead(kernel, second.token)


async def test_a_link_to_what_was_purged_does_not_lead_to_a_new_file_of_that_name(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        files = Files(kernel.init_gate())
        for path in ("/shared/a/b", "/shared/a2"):
            await files.write(path, "public")
            link = await files.link(path)
            await files.delete(path)
            await files.purge("/shared/a" if path == "/shared/a/b" else path, keep=0)
            assert await files.links() == ()
            await files.write(path, "secret")
            assert (await files.stat(path)).version == 1
            assert await is_dead(kernel, link.token)


async def test_a_purge_leaves_links_to_versions_that_it_keeps(booted: OpenKernel) -> None:
    async with booted() as kernel:
        files = Files(kernel.init_gate())
        await files.write("/shared/a", "1")
        await files.write("/shared/b", "1")
        links = [await files.link("/shared/a"), await files.link("/shared/b")]
        await files.purge("/shared/a", keep=0)
        for link in links:
            assert await content(kernel, link.token) == b"1"


async def test_nothing_but_the_very_token_opens_a_link(booted: OpenKernel) -> None:
    async with booted() as kernel:
        files = Files(kernel.init_gate())
        await files.write("/shared/a", "a")
        await files.write("/shared/b", "b")
        link, other = await files.link("/shared/a"), await files.link("/shared/b")
        data = base64.urlsafe_b64decode(link.token + "==")
        forged = [bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]]) for at in range(len(data))]
        forged += [
            data[:8],
            data + b"\0",
            b"",
            base64.urlsafe_b64decode(other.token + "==")[:8] + data[8:],
        ]
        tokens = [base64.urlsafe_b64encode(each).decode().rstrip("=") for each in forged]
        for token in [
            *tokens,
            "",
            "é",
            link.id,
            "../" + link.token,
            link.token + "/x",
            link.token * 9,
        ]:
            assert await is_dead(kernel, token), token
        await kernel.db.write(
            lambda c: c.execute("UPDATE links SET path = '/shared/b' WHERE id = ?", (link.id,)).get
        )
        assert await is_dead(kernel, link.token), "a row that was changed"
        assert await content(kernel, other.token) == b"b"


async def test_only_whose_file_it_is_makes_lists_and_ends_a_link(tmp_path: Path) -> None:
    async def idle(_: LocalGate) -> None:
        await anyio.sleep_forever()

    config = Config(storage=StorageConfig(max_links=2))
    async with open_kernel(config, Home(tmp_path), engines={}) as kernel:
        ann, bob = (Files(kernel.gate(kernel.spawn_task(name, idle))) for name in ("ann", "bob"))
        owner = Files(kernel.init_gate())
        await ann.write("a", "a")
        await ann.share("a", "/agents/bob", "write")
        for path in ("/agents/ann/a", "/shared/a"):
            with pytest.raises(AccessDenied):
                await bob.link(path)
        link = await ann.link("a")
        with pytest.raises(NotFound):
            await bob.unlink(link.id)
        assert await bob.links() == ()
        for missing in ("none", "b/c"):
            with pytest.raises(NotFound):
                await ann.link(missing)
        await ann.link("a")
        with pytest.raises(ResourceExhausted):
            await ann.link("a")
        assert len(await owner.links()) == 2
        await owner.unlink(link.id)
        assert await is_dead(kernel, link.token)
        assert len(await ann.links()) == 1


@given(st.text(max_size=80))
def test_any_text_is_a_token_that_fits_nothing_or_forty_bytes(text: str) -> None:
    assert len(_decode(text)) == 40


def test_the_secret_is_not_part_of_a_link_by_default() -> None:
    assert LinkInfo("0" * 16, "/shared/a", 1, 0.0).token == ""
