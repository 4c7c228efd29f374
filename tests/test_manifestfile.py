"""A manifest is of somebody whom nobody vouches for: none takes the kernel's time or memory."""

import os
import tomllib
from pathlib import Path
from time import process_time

import pytest

from aios.errors import InvalidCall
from aios.manifestfile import MAX_LINE_POINTS, MAX_POINTS, read_manifest


def test_a_manifest_is_read(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('name = "x"\n[budget]\ntokens = 7\n')
    assert read_manifest(file, 100) == {"name": "x", "budget": {"tokens": 7}}


@pytest.mark.parametrize("content", [b"#" * 101, b"#" * 10_000])
def test_one_that_is_too_long_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "agent.toml"
    file.write_bytes(content)
    with pytest.raises(InvalidCall, match="is over 100 bytes"):
        read_manifest(file, 100)


def test_a_file_whose_size_is_not_said_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.symlink_to(
        "/proc/self/environ"
    )  # stands for `pagemap`, which is as long as all of the memory's addresses
    assert file.stat().st_size == 0
    with pytest.raises(InvalidCall, match="is over 8 bytes"):
        read_manifest(file, 8)


def test_a_pipe_that_takes_its_place_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, is_regular = tmp_path / "agent.toml", []
    file.write_text("")

    def exchange(name: Path, flags: int) -> int:
        is_regular.append(file.is_file())
        file.unlink()
        os.mkfifo(file)
        return open_file(name, flags)

    open_file = os.open
    monkeypatch.setattr(os, "open", exchange)
    with pytest.raises(InvalidCall, match="no regular file"):
        read_manifest(file, 100)
    assert is_regular == [True]


def test_a_key_of_very_many_parts_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("a." * MAX_LINE_POINTS + "a = 1\n")
    assert read_manifest(file, 10_000)
    file.write_text("a.a." + "a." * (MAX_LINE_POINTS - 1) + "a = 1\n")
    monkeypatch.setattr(tomllib, "loads", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(ValueError, match="over 256 points"):
        read_manifest(file, 10_000)


def test_keys_behind_a_long_name_of_their_table_are_bounded_too(tmp_path: Path) -> None:
    """Each part of each key is looked up behind the table's: by the length of the one times the number of the others."""
    file = tmp_path / "agent.toml"
    head, n_keys = f"[{'a.' * MAX_LINE_POINTS}a]\n", MAX_POINTS // MAX_LINE_POINTS - 1

    def keys(n: int) -> str:
        return "".join(f"k{i}{'.a' * MAX_LINE_POINTS}=1\n" for i in range(n))

    begun_s = process_time()
    file.write_text(f"{head}{keys(n_keys)}[b]\n")
    assert read_manifest(file, 1 << 16)
    assert process_time() - begun_s < 5, "a tenth of that; without a bound it takes a hundred times"
    file.write_text(f"{head}{keys(n_keys + 1)}[b]\n")
    with pytest.raises(ValueError, match="over 4096 points"):
        read_manifest(file, 1 << 16)
