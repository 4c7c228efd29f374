"""On trees made of plain files, and on the machine's own where it lets us."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from aios.kernel.sandbox.cgroup import ControlGroups, find_groups, hasten
from aios.kernel.sandbox.profile import Bounds

BOUNDS = Bounds(memory_bytes=64 << 20, n_processes=7)


def test_version_2_makes_a_group_beside_our_own(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/user.slice/app/ours\n")
    (tmp_path / "user.slice/app/ours").mkdir(parents=True)
    (tmp_path / "user.slice/app/cgroup.subtree_control").write_text("cpu memory pids\n")
    groups = find_groups(root=tmp_path, own=own)
    assert groups is not None
    made = groups.make(BOUNDS)
    assert made is not None
    assert [folder.parent for folder in made.folders] == [tmp_path / "user.slice/app"]
    made.remove()


def test_version_2_without_the_controllers_is_none(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/app/ours\n")
    (tmp_path / "app").mkdir()
    (tmp_path / "app/cgroup.subtree_control").write_text("cpu\n")
    assert find_groups(root=tmp_path, own=own) is None


def test_version_1_makes_a_group_in_each_tree_that_there_is(tmp_path: Path) -> None:
    own = tmp_path / "none"
    for n, name in enumerate(("cpu", "pids", "memory")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tasks").touch()
        groups = find_groups(root=tmp_path, own=own)
        if n == 0:  # it bounds nothing alone
            assert groups is None
            continue
        assert groups is not None
        made = groups.make(BOUNDS)
        assert made is not None
        trees = [folder.parent.name for folder in made.folders]
        assert trees == [["pids", "cpu"], ["memory", "pids", "cpu"]][n - 1]
        made.remove()


def test_where_nothing_can_be_made_there_are_no_groups(tmp_path: Path) -> None:
    assert find_groups(root=tmp_path, own=tmp_path / "none") is None
    groups = ControlGroups((tmp_path / "absent",), is_v2=True)
    assert groups.make(BOUNDS) is None


def test_no_group_gets_the_name_of_one_that_is_there(tmp_path: Path) -> None:
    one, other = (ControlGroups((tmp_path,), is_v2=True) for _ in range(2))
    first = one.make(BOUNDS)
    assert first is not None
    pid, number = os.getpid(), int(first.folders[0].name.rpartition("-")[2])
    (tmp_path / f"aios-{pid}-{number + 2}").mkdir()  # of a kernel before, whose pid was ours
    made = [first, other.make(BOUNDS), one.make(BOUNDS), other.make(BOUNDS)]
    assert len({group.folders for group in made if group is not None}) == 4


def test_a_start_sweeps_the_empty_groups_of_kernels_that_were_killed(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/true"]) as ended:
        pass
    own = tmp_path / "own"
    own.write_text("0::/app/ours\n")
    (tmp_path / "app").mkdir()
    (tmp_path / "app/cgroup.subtree_control").write_text("memory pids\n")
    kept = [f"aios-{os.getpid()}-7", "aios-1-1", "aios-x-1", f"aios-{ended.pid}-2", "other-9-9"]
    for name in (*kept, f"aios-{ended.pid}-1"):
        (tmp_path / "app" / name).mkdir()
    (tmp_path / "app" / f"aios-{ended.pid}-2" / "cgroup.procs").touch()  # it is not empty
    assert find_groups(root=tmp_path, own=own) is not None
    left = {path.name for path in (tmp_path / "app").iterdir() if path.is_dir()}
    assert left == set(kept)


@pytest.mark.parametrize("line", ["0::/app/ours", "4:memory:/ours", "3:cpu,cpuacct:/ours"])
def test_to_hasten_moves_us_to_where_we_are(tmp_path: Path, line: str) -> None:
    own, ours = (
        tmp_path / "own",
        tmp_path / line.replace(",cpuacct", "").split(":", 1)[1].replace(":", "/").lstrip("/"),
    )
    assert not hasten(root=tmp_path, own=own)
    own.write_text(f"9:name=systemd:/\n{line}\n")
    assert not hasten(root=tmp_path, own=own)
    ours.mkdir(parents=True)
    assert not hasten(root=tmp_path, own=own)
    assert not any(ours.iterdir())
    (ours / "cgroup.procs").touch()
    assert hasten(root=tmp_path, own=own)
    assert (ours / "cgroup.procs").read_text() == str(os.getpid())


def test_a_real_group_holds_a_process_and_bounds_what_it_starts() -> None:
    groups = find_groups()
    if groups is None:
        pytest.skip("this machine lets us make no control group")
    group = groups.make(BOUNDS)
    assert group is not None
    script = "read x; for i in $(seq 20); do sleep 9 & done; wait"
    with subprocess.Popen(  # noqa: S603 - our own script
        ["/bin/sh", "-c", script], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        group.add(process.pid)
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
        process.wait(10)  # the shell ends when it cannot fork
        left = group.pids()
        assert len(left) <= BOUNDS.n_processes
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    while group.pids():
        pass
    group.remove()
    assert not any(folder.exists() for folder in group.folders)
