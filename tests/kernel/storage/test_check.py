"""What `aios fsck` says of files; what crashes leave is in tests/bench/test_file_crashes.py."""

from functools import partial

import apsw
import pytest
from tests.kernel.conftest import OpenKernel

from aios.sdk.files import Files


def execute(connection: apsw.Connection, statement: str) -> None:
    connection.execute(statement)


@pytest.mark.anyio
async def test_contradictions_between_tables_are_found(booted: OpenKernel) -> None:
    async with booted() as kernel:
        files = Files(kernel.init_gate())
        await files.write("/shared/a", "a")
        await files.write("/shared/b", "b")
        for statement, words in (
            ("DELETE FROM files WHERE path = '/shared/a'", "it is not listed"),
            ("UPDATE contents SET n_refs = n_refs + 1", "counted wrongly"),
            ("UPDATE blobs SET n_refs = 7", "references"),
        ):
            await kernel.db.write(partial(execute, statement=statement))
            faults = (await files.check()).faults
            assert any(words in fault for fault in faults), words
