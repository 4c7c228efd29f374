"""Deleting folders of any size."""

import pytest
from tests.cli.conftest import Aios, Served

from aios.cli import fs_delete
from aios.kernel.storage import manager
from aios.sdk.files import Files


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "MAX_CALL_CHANGES", 5)
    monkeypatch.setattr(fs_delete, "PART_FILES", 3)


def test_a_folder_of_more_files_than_one_call_deletes_goes_in_parts(
    served: Served, aios: Aios
) -> None:
    files = Files(served.kernel.init_gate())
    for number in range(8):
        served.portal.call(files.write, f"/shared/a/{number}", "x")
    deleted = aios("fs", "rm", "-r", "/shared/a")
    assert (deleted.code, deleted.out.count("deleted")) == (0, 8)
    assert aios("fs", "ls", "/shared", "--json").rows() == []
