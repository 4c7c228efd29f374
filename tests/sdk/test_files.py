import anyio
import pytest
from tests.server.serving import serving

from aios.abi.gate import Advance
from aios.abi.storage import FileCheck
from aios.errors import InvalidCall
from aios.sdk.files import Files
from aios.sdk.http import HttpGate
from aios.sdk.socket import UnixGate

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("over", ["socket", "http"])
async def test_changes_are_followed_over_the_line_until_the_block_is_left(over: str) -> None:
    async with serving(http=over == "http") as served:
        opened = (
            HttpGate(served.url, served.token)
            if over == "http"
            else UnixGate.connect(served.path, served.token)
        )
        async with opened as gate:
            files = Files(gate)
            await files.write("/shared/a", "1")
            since = (await files.watch("/shared", since=0)).next
            seen: list[tuple[str, int]] = []
            with anyio.fail_after(30):
                async with files.follow("/shared", since=since) as changes:
                    for number in range(3):
                        await files.write("/shared/b", str(number))
                        await files.write("/groups/owner/unseen", str(number))
                        version = await anext(changes)
                        seen.append((version.path, version.version))
                    assert changes.n_missed == 0
                async with files.follow("/shared", since=since) as changes:
                    again = [(await anext(changes)).version for _ in range(3)]
            assert seen == [("/shared/b", 1), ("/shared/b", 2), ("/shared/b", 3)]
            assert again == [1, 2, 3]


async def test_a_long_check_says_how_far_it_is() -> None:
    async with serving(http=False) as served, UnixGate.connect(served.path, served.token) as gate:
        files = Files(gate)
        for number in range(5):
            await files.write(f"/shared/{number}", str(number))
        async with gate.open_call(FileCheck()) as frames:
            read = [frame async for frame in frames]
            assert (await frames.result()).value.faults == ()
        advances = [frame for frame in read if isinstance(frame, Advance)]
        assert advances[-1] == Advance("contents", 5, 5)


async def test_text_that_utf_8_cannot_hold_is_refused_before_anything_is_sent() -> None:
    async with serving() as served, UnixGate.connect(served.path, served.token) as gate:
        files = Files(gate)
        for write in (files.write, files.append):
            with pytest.raises(InvalidCall, match=r"half of a character .\\ud800. at place 1"):
                await write("/shared/a", "x\ud800")
        assert await files.list("/shared") == []


async def test_what_is_no_text_is_told_with_how_to_read_it() -> None:
    async with serving() as served, UnixGate.connect(served.path, served.token) as gate:
        files = Files(gate)
        await files.write("/shared/picture", b"ab\xff")
        with pytest.raises(InvalidCall, match="/shared/picture is no text in UTF-8, from byte 2"):
            await files.read_text("/shared/picture")
        assert await files.read("/shared/picture") == b"ab\xff"
