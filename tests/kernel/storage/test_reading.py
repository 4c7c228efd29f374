from functools import partial

import pytest
from tests.kernel.conftest import OpenKernel

from aios.errors import NotFound, Unsupported
from aios.kernel.storage.reading import compare, find_small_piece, read_piece
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


async def test_versions_are_compared_line_by_line_and_a_deleted_one_is_empty(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        files = Files(kernel.init_gate())
        await files.write("/shared/a", "one\n")
        await files.write("/shared/a", "two\n")
        await files.delete("/shared/a")
        await files.write("/shared/b", b"\xff")
        look = partial(compare, blobs=kernel.blobs, path="/shared/a")
        assert "-one\n+two\n" in await kernel.db.read(partial(look, versions=(1, 2)))
        assert await kernel.db.read(partial(look, versions=(None, None))) == (
            "--- /shared/a (version 2)\n+++ /shared/a (version 3)\n@@ -1 +0,0 @@\n-two\n"
        )
        binary = partial(look, path="/shared/b", versions=(0, 1))
        with pytest.raises(Unsupported):
            await kernel.db.read(binary)
