from functools import partial

import pytest
from tests.kernel.conftest import OpenKernel

from aios.errors import NotFound, Unsupported
from aios.kernel.storage import reading
from aios.kernel.storage.comparing import Side
from aios.kernel.storage.reading import find_small_piece, get_sides, read_piece
from aios.sdk.files import Files

pytestmark = pytest.mark.anyio


async def test_a_piece_that_costs_more_than_the_limit_is_left_to_a_thread(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        await Files(kernel.init_gate()).write("/shared/a", b"0123456789" * 1_000)
        look = partial(find_small_piece, blobs=kernel.blobs, path="/shared/a", version=None)
        small = await kernel.db.read(partial(look, span=range(5, 15), limit_bytes=20_000))
        assert small is not None
        assert (small.data, small.size_bytes) == (b"5678901234", 10_000)
        assert await kernel.db.read(partial(look, span=range(9_999), limit_bytes=100)) is None
        whole = partial(read_piece, blobs=kernel.blobs, path="/shared/a", version=1)
        assert len((await kernel.db.read(partial(whole, span=range(1 << 20)))).data) == 10_000
        none = partial(whole, version=2, span=range(1))
        with pytest.raises(NotFound):
            await kernel.db.read(none)


async def test_two_versions_to_compare_are_found_and_a_deleted_one_is_empty(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        files, path = Files(kernel.init_gate()), "/shared/a"
        await files.write(path, "one\n")
        await files.write(path, b"\xff")
        await files.delete(path)
        look = partial(get_sides, blobs=kernel.blobs, path=path)
        one, two, none = Side(path, 1, b"one\n"), Side(path, 2, b"\xff"), Side(path, 3, b"")
        assert await kernel.db.read(partial(look, versions=(1, 2))) == (one, two)
        assert await kernel.db.read(partial(look, versions=(None, None))) == (two, none)
        before = Side(path, 0, b"")
        assert await kernel.db.read(partial(look, versions=(None, 1))) == (before, one)
        unknown = partial(look, versions=(1, 9))
        with pytest.raises(NotFound):
            await kernel.db.read(unknown)


async def test_what_is_too_long_is_not_compared(
    booted: OpenKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_DIFF_BYTES", 3)
    async with booted() as kernel:
        await Files(kernel.init_gate()).write("/shared/a", "long")
        look = partial(get_sides, blobs=kernel.blobs, path="/shared/a", versions=(None, None))
        with pytest.raises(Unsupported, match="over 3 bytes"):
            await kernel.db.read(look)
