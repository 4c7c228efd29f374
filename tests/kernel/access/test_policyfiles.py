import os
from pathlib import Path

import pytest

from aios.errors import ConfigError
from aios.kernel.access.policy import Policies
from aios.kernel.access.policyfiles import MAX_FILE_BYTES, PROFILES, load_sources, profile_source


def test_the_profile_comes_first_and_then_the_files_by_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.cedar").write_text("permit(principal, action, resource);")
    (tmp_path / "notes.txt").write_text("no policy")
    assert [each.name for each in load_sources("workspace", tmp_path)] == ["workspace", "a", "b"]
    assert [each.name for each in load_sources("full", tmp_path / "none")] == ["full"]


@pytest.mark.parametrize("profile", PROFILES)
def test_each_shipped_profile_can_be_read(profile: str) -> None:
    assert Policies([profile_source(profile)]).names


def test_a_profile_that_is_not_there_is_an_error_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="no profile") as caught:
        profile_source("../workspace")
    assert "read-only" in (caught.value.hint or "")


def test_what_is_no_policy_file_stops_the_start_and_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.cedar"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"x\.cedar is not UTF-8"):
        load_sources("full", tmp_path)
    file.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match=r"x\.cedar is over"):
        load_sources("full", tmp_path)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ConfigError, match=r"x\.cedar is no file"):
        load_sources("full", tmp_path)
    file.unlink()
    (tmp_path / "full.cedar").write_text("")
    with pytest.raises(ConfigError, match="name of a shipped profile"):
        load_sources("workspace", tmp_path)


def test_a_folder_of_policies_that_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "policies"
    assert len(load_sources("workspace", folder)) == 1
    folder.write_text("no folder")
    with pytest.raises(ConfigError, match="policies cannot be read: Not a directory"):
        load_sources("workspace", folder)
    folder.unlink()
    folder.symlink_to(tmp_path / "unmounted")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_sources("workspace", folder)
    folder.unlink()
    folder.symlink_to(folder)
    with pytest.raises(ConfigError, match="cannot be read: Too many levels of symbolic links"):
        load_sources("workspace", folder)
