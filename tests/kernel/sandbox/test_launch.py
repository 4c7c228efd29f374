import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from aios.config import SandboxConfig
from aios.errors import ProgramFailed
from aios.kernel.sandbox import probe as probing
from aios.kernel.sandbox import processes
from aios.kernel.sandbox.cgroup import ControlGroup
from aios.kernel.sandbox.launch import BEHIND, Confined, Launcher, _bound, bounds_of
from aios.kernel.sandbox.places import Places
from aios.kernel.sandbox.probe import probe
from aios.kernel.sandbox.processes import descendants, send
from aios.kernel.sandbox.profile import Profile
from aios.kernel.sandbox.scratch import hidden_base, scratch_folder

pytestmark = pytest.mark.anyio
MODES = [mode for mode in ("bubblewrap", "landlock", "none") if probe(mode).wall.value == mode]
ENV = {"PATH": "/usr/bin:/bin"}


@pytest.fixture(params=MODES)
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> Launcher:
    (tmp_path / "home").mkdir()
    return Launcher(SandboxConfig(mode=request.param), tmp_path / "home")


async def started(launcher: Launcher, folder: Path, *command: str) -> Confined:
    work = folder / "work"
    work.mkdir(exist_ok=True)
    return await launcher.open(list(command), Profile(writable=(work,), env=ENV), cwd=work)


async def text_of(confined: Confined) -> str:
    assert confined.process.stdout is not None
    said = b"".join([piece async for piece in confined.process.stdout])
    await confined.wait_gone()
    await confined.process.aclose()
    return said.decode()


async def test_output_status_and_files_come_through(launcher: Launcher, tmp_path: Path) -> None:
    with anyio.fail_after(30):
        confined = await started(launcher, tmp_path, "sh", "-c", "pwd; echo x > made; exit 7")
        assert (await text_of(confined)).strip() == str(tmp_path / "work")
    assert confined.process.returncode == 7
    assert (tmp_path / "work" / "made").read_text() == "x\n"


async def test_no_word_is_an_option_of_the_wall(launcher: Launcher, tmp_path: Path) -> None:
    profile = Profile(writable=(tmp_path,), env={**ENV, "X": "a\0--bind\0/\0/tmp/h"})
    with pytest.raises(ProgramFailed, match="no NUL"):
        await launcher.open(["sh"], profile, cwd=tmp_path)
    with pytest.raises(ProgramFailed, match="no NUL"):
        await started(launcher, tmp_path, "sh", "-c", "echo a\0b")


@pytest.mark.skipif(MODES[0] != "bubblewrap", reason="Landlock mounts nothing")
async def test_nothing_that_a_program_is_given_runs_before_its_mounts_are_looked_at(
    tmp_path: Path,
) -> None:
    """A library of its own, in the process that is held, could read what a symlink leads to that is put there meanwhile."""
    launcher = Launcher(SandboxConfig(), tmp_path / "home")
    profile = Profile(writable=(tmp_path,), env={**ENV, "LD_PRELOAD": "/not/there.so"})
    with anyio.fail_after(30):
        confined = await launcher.open(["/bin/true"], profile, cwd=tmp_path)
        assert confined.process.stderr is not None
        said = b"".join([piece async for piece in confined.process.stderr])
        await text_of(confined)
    assert said.count(b"/not/there.so") == 1, "of the program's own loader, and no other"


async def test_no_program_is_started_by_another_python(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "work" / ".venv"
    monkeypatch.setattr("aios.kernel.sandbox.apart.python_links", lambda: {gone: tmp_path})
    with pytest.raises(ProgramFailed, match="led to the Python"):
        await started(launcher, tmp_path, "true")


async def test_kill_ends_all_and_leaves_nothing(launcher: Launcher, tmp_path: Path) -> None:
    with anyio.fail_after(30):
        confined = await started(launcher, tmp_path, "sh", "-c", "setsid sleep 60 & sleep 60")
        while not any(command_line(pid).startswith("sleep") for pid in descendants(confined.root)):
            await anyio.sleep(0.01)
        confined.kill()
        await text_of(confined)
        assert not confined.inside()
        with suppress(FileNotFoundError):  # or init has yet to reap it
            assert state_of(confined.root) == "Z"
        confined.kill()  # again, and nobody is hurt


@pytest.mark.no_cover
async def test_many_that_start_at_once_leave_the_files_of_others_alone(
    launcher: Launcher, tmp_path: Path
) -> None:
    """A number that is closed twice is another's file by then."""
    before = open_files()
    statuses: list[int | None] = []

    async def start(number: int) -> None:
        confined = await started(launcher, tmp_path, "sh", "-c", f"exit {number}")
        await text_of(confined)
        statuses.append(confined.process.returncode)

    with anyio.fail_after(60):
        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                for number in range(24):
                    tasks.start_soon(start, number)
    assert sorted(statuses, key=str) == sorted([*range(24)] * 3, key=str)
    assert open_files() == before


async def test_freezing_holds_all_that_it_started(launcher: Launcher, tmp_path: Path) -> None:
    with anyio.fail_after(30):
        confined = await started(launcher, tmp_path, "sh", "-c", "setsid sleep 60 & sleep 60")
        while len(descendants(confined.root)) < 2:
            await anyio.sleep(0.01)
        confined.freeze(True)
        for pid in descendants(confined.root):
            while not is_still(pid):
                await anyio.sleep(0.01)
        confined.freeze(False)
        confined.kill()
        await text_of(confined)


RUNNER = """
import os, time
if os.fork() == 0:
    os.setsid()
    while True:
        os.write(os.open("out", os.O_WRONLY | os.O_CREAT | os.O_APPEND), b"x")
        if os.fork():
            os._exit(0)
        os.closerange(0, 256)
time.sleep(60)
"""


async def test_what_goes_on_in_child_after_child_is_held(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.sandbox.launch.is_still", look_late)
    if (await launcher.find_walls()).groups is None:
        pytest.skip("this machine lets us make no control group")
    out = tmp_path / "work" / "out"
    with anyio.fail_after(60):
        confined = await started(launcher, tmp_path, "python3", "-c", RUNNER)
        while not out.exists():
            await anyio.sleep(0.01)
        for _ in range(5):
            confined.freeze(False)
            await anyio.sleep(0.1)
            send(confined.root, signal.SIGSTOP)  # who is over before we look stays to be seen
            while not confined.is_still():
                pass
            n_bytes = out.stat().st_size
            await anyio.sleep(0.1)
            assert out.stat().st_size == n_bytes
        confined.kill()
        await text_of(confined)
        n_bytes = out.stat().st_size
        await anyio.sleep(0.1)
        assert out.stat().st_size == n_bytes


@pytest.mark.parametrize("launcher", [m for m in MODES if m != "bubblewrap"], indirect=True)
async def test_what_is_started_at_once_and_left_alone_is_found(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a kernel that put the program into its group would come too late."""
    if (await launcher.find_walls()).groups is None:
        pytest.skip("this machine lets us make no control group")
    add = ControlGroup.add

    def add_late(group: ControlGroup, pid: int) -> None:
        time.sleep(1)  # noqa: TID251 - a processor that has other things to do
        add(group, pid)

    monkeypatch.setattr(ControlGroup, "add", add_late)
    leaves = "setsid env -i sh -c 'echo $$ > new; mv new pid; exec sleep 60' & while ! [ -e pid ]; do :; done"
    with anyio.fail_after(30):
        confined = await started(launcher, tmp_path, "sh", "-c", leaves)
        await confined.process.wait()
        left = int((tmp_path / "work" / "pid").read_text())
        assert left in confined.inside()
        await confined.wait_gone()
        await confined.process.aclose()
    with suppress(FileNotFoundError):
        assert state_of(left) == "Z"


async def test_what_it_may_take_is_bounded_behind_every_wall_and_behind_none(
    launcher: Launcher, tmp_path: Path
) -> None:
    with anyio.fail_after(30):
        confined = await started(launcher, tmp_path, "sh", "-c", "ulimit -v; ulimit -n; ulimit -c")
        said = await text_of(confined)
    bounds = bounds_of(launcher.config)
    assert said.split() == [str(bounds.memory_bytes >> 10), str(bounds.n_files), "0"]


async def test_it_stands_behind_the_kernel_where_processors_are_scarce(
    launcher: Launcher, tmp_path: Path
) -> None:
    with anyio.fail_after(30):
        said = await text_of(await started(launcher, tmp_path, "sh", "-c", "nice"))
    assert int(said) == min(os.getpriority(os.PRIO_PROCESS, 0) + BEHIND, 19)


async def test_a_command_that_is_not_there_is_said(launcher: Launcher, tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match="is not there"):
        await started(launcher, tmp_path, "no-such-program")


async def test_no_token_shows_in_the_command_line_of_the_host(
    launcher: Launcher, tmp_path: Path
) -> None:
    with anyio.fail_after(30):
        work = tmp_path / "work"
        work.mkdir()
        profile = Profile(writable=(work,), env={**ENV, "AIOS_TOKEN": "canary-token"})
        confined = await launcher.open(["sleep", "60"], profile, cwd=work)
        lines = [command_line(pid) for pid in (confined.process.pid, *confined.inside())]
        confined.kill()
        await text_of(confined)
    assert "canary-token" not in " ".join(lines)


async def test_strict_refuses_walls_that_are_not_whole(tmp_path: Path) -> None:
    launcher = Launcher(SandboxConfig(mode="none", strict=True), tmp_path)
    with pytest.raises(ProgramFailed, match="not whole"):
        await launcher.open(["true"], Profile(env=ENV), cwd=tmp_path)


@pytest.mark.parametrize("mode", ["bubblewrap", "landlock"])
async def test_a_wall_that_is_asked_for_by_its_name_is_not_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(probing, "version", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    launcher = Launcher(SandboxConfig(mode=mode), tmp_path / "home")
    with pytest.raises(ProgramFailed, match=f"asks for {mode}, and there is none"):
        await launcher.open(["true"], Profile(env=ENV), cwd=tmp_path)


@pytest.mark.skipif("landlock" not in MODES, reason="no Landlock here")
async def test_landlock_refuses_a_workspace_around_what_it_would_have_to_hide(
    tmp_path: Path,
) -> None:
    (tmp_path / "home").mkdir()
    launcher = Launcher(SandboxConfig(mode="landlock"), tmp_path / "home")
    with pytest.raises(ProgramFailed, match="cannot hide"):
        await launcher.open(["true"], Profile(writable=(tmp_path,), env=ENV), cwd=tmp_path)


@pytest.mark.skipif("bubblewrap" not in MODES, reason="no bubblewrap here")
@pytest.mark.parametrize("right", ["readable", "writable"])
async def test_no_program_is_given_the_folder_of_the_kernel_itself(
    tmp_path: Path, right: str
) -> None:
    launcher = Launcher(SandboxConfig(mode="bubblewrap"), tmp_path)
    seen = Profile(readable=(tmp_path,), env=ENV)
    profile = seen if right == "readable" else Profile(writable=(tmp_path,), env=ENV)
    with anyio.fail_after(30), pytest.raises(ProgramFailed, match="keeps its state"):
        await launcher.open(["true"], profile, cwd=tmp_path)


@pytest.mark.parametrize("launcher", [m for m in MODES if m != "none"], indirect=True)
@pytest.mark.parametrize("name", ["policies", "tools", "tools/mine", "logs", "contexts"])
async def test_no_program_may_change_the_state_of_the_kernel(
    launcher: Launcher, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "home" / name
    folder.mkdir(parents=True)
    with anyio.fail_after(30), pytest.raises(ProgramFailed, match="keeps its state"):
        await launcher.open(["true"], Profile(writable=(folder,), env=ENV), cwd=folder)


@pytest.mark.parametrize("launcher", [m for m in MODES if m != "none"], indirect=True)
async def test_no_program_is_given_a_file_of_the_state_to_read(
    launcher: Launcher, tmp_path: Path
) -> None:
    (tmp_path / "home" / "token").write_text("a token")
    work = tmp_path / "work"
    work.mkdir()
    profile = Profile((tmp_path / "home" / "token",), (work,), env=ENV)
    with anyio.fail_after(30), pytest.raises(ProgramFailed, match="home/token, where the kernel"):
        await launcher.open(["true"], profile, cwd=work)


@pytest.mark.skipif("bubblewrap" not in MODES, reason="no bubblewrap here")
async def test_who_works_in_the_temporary_folder_sees_nothing_that_others_use_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    monkeypatch.setattr("aios.kernel.sandbox.scratch.default_base", lambda: tmp)
    launcher = Launcher(SandboxConfig(mode="bubblewrap"), tmp_path / "home")
    profile = Profile(writable=(tmp,), env=ENV)
    with anyio.fail_after(30), scratch_folder("egress", hidden_base()) as folder:
        (folder / "proxy").touch()
        confined = await launcher.open(["find", ".", "-name", "proxy"], profile, cwd=tmp)
        assert await text_of(confined) == ""
        own = Profile(readable=(folder / "proxy",), writable=(tmp,), env=ENV)
        confined = await launcher.open(["find", ".", "-name", "proxy"], own, cwd=tmp)
        assert await text_of(confined) == f"./{(folder / 'proxy').relative_to(tmp)}\n"


TAKE = """
for place in venv/lib venv venv/bin/python config.toml; do mv $place moved || rm -r $place; echo evil >> $place; done 2>/dev/null
echo mine > mine; cat venv/lib mine
"""


@pytest.mark.skipif(MODES[0] != "bubblewrap", reason="Landlock mounts nothing")
@pytest.mark.parametrize("given", [("/",), ("/proc",), ("/", "/proc/self/task")])
async def test_the_processes_and_devices_of_the_host_are_nobodys(
    tmp_path: Path, given: tuple[str, ...]
) -> None:
    """Who is given the whole machine to read could enter it by the root of another process, and write."""
    for folder in (home := tmp_path / "home", work := tmp_path / "work"):
        folder.mkdir()
    launcher = Launcher(SandboxConfig(), home)
    profile = Profile(readable=tuple(map(Path, given)), writable=(work,), env=ENV)
    looks = "ls -d /proc/[0-9]* | wc -l; echo x > /dev/null && echo y > /dev/shm/y && echo ok"
    with anyio.fail_after(30):
        confined = await launcher.open(["sh", "-c", looks], profile, cwd=work)
        n_seen, *rest = (await text_of(confined)).split()
    assert int(n_seen) < 8
    assert rest == ["ok"]


@pytest.mark.skipif("bubblewrap" not in MODES, reason="no bubblewrap here")
async def test_no_program_may_change_what_the_kernel_itself_runs_and_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    (work / "venv" / "bin").mkdir(parents=True)
    (work / "venv" / "lib").write_text("good ")
    (work / "venv" / "bin" / "python").touch()
    (work / "config.toml").touch()
    monkeypatch.setenv("AIOS_CONFIG", str(work / "config.toml"))
    places = Places((work / "venv", work / "venv" / "bin"), {})
    monkeypatch.setattr("aios.kernel.sandbox.apart.python_places", lambda: places)
    launcher = Launcher(SandboxConfig(mode="bubblewrap"), tmp_path / "home")
    with anyio.fail_after(30):
        profile = Profile(writable=(work,), env=ENV)
        assert await text_of(await launcher.open(["sh", "-c", TAKE], profile, cwd=work)) == (
            "good mine\n"
        )
    assert (work / "venv" / "bin" / "python").read_bytes() == b""
    assert (work / "config.toml").read_bytes() == b""
    with anyio.fail_after(30):  # whoever names it is taken at their word
        profile = Profile(writable=(work, work / "venv"), env=ENV)
        confined = await launcher.open(["touch", "venv/new"], profile, cwd=work)
        assert await text_of(confined) == ""
    assert (work / "venv" / "new").exists()


@pytest.mark.skipif("bubblewrap" not in MODES, reason="no bubblewrap here")
async def test_state_and_keys_behind_symlinks_are_hidden_in_what_lies_around_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, home = tmp_path / "disk", tmp_path / "home"
    for folder in (disk / "blobs", disk / "me" / ".ssh", home):
        folder.mkdir(parents=True)
    (disk / "blobs" / "b").write_text("of others")
    (disk / "me" / ".ssh" / "id").write_text("a key")
    (home / "blobs").symlink_to(disk / "blobs")
    (tmp_path / "me").symlink_to(disk / "me")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    launcher = Launcher(SandboxConfig(mode="bubblewrap"), home)
    with anyio.fail_after(30):
        profile = Profile(writable=(disk,), env=ENV)
        confined = await launcher.open(["cat", "blobs/b", "me/.ssh/id"], profile, cwd=disk)
        assert await text_of(confined) == ""


@pytest.mark.skipif("bubblewrap" not in MODES, reason="no bubblewrap here")
async def test_keys_stay_hidden_when_a_program_removes_the_symlink_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = tmp_path / "me"
    (me / "dotfiles" / "ssh").mkdir(parents=True)
    (me / "dotfiles" / "ssh" / "id").write_text("a key")
    (me / ".ssh").symlink_to("dotfiles/ssh")
    monkeypatch.setenv("HOME", str(me))
    launcher = Launcher(SandboxConfig(mode="bubblewrap"), tmp_path / "home")
    profile = Profile(writable=(me,), env=ENV)
    with anyio.fail_after(30):
        assert await text_of(await launcher.open(["rm", ".ssh"], profile, cwd=me)) == ""
        assert not (me / ".ssh").is_symlink()
        reading = await launcher.open(["cat", "dotfiles/ssh/id"], profile, cwd=me)
        assert await text_of(reading) == ""


@pytest.mark.parametrize("launcher", [m for m in MODES if m != "none"], indirect=True)
@pytest.mark.parametrize("right", ["readable", "writable"])
async def test_a_symlink_that_was_put_into_a_path_since_it_was_checked_leads_nowhere(
    launcher: Launcher, tmp_path: Path, right: str
) -> None:
    work = tmp_path / "work"
    for folder in (work, tmp_path / "other" / "sub"):
        folder.mkdir(parents=True)
    (tmp_path / "other" / "sub" / "secret").write_text("of others")
    (work / "x").symlink_to("../other")
    read, write = ((work / "x" / "sub",), ()) if right == "readable" else ((), (work / "x",))
    profile = Profile(read, (work, *write), env=ENV)
    with anyio.fail_after(30):
        try:
            confined = await launcher.open(["cat", "x/sub/secret"], profile, cwd=work)
        except ProgramFailed as error:
            assert "was changed while" in error.message  # noqa: PT017 - Landlock tells later
        else:
            assert await text_of(confined) == ""
            assert confined.process.returncode


@pytest.mark.parametrize("launcher", [m for m in MODES if m != "none"], indirect=True)
async def test_no_program_works_among_keys_unless_they_are_named(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    keys, work = tmp_path / "me" / ".ssh" / "old", tmp_path / "me" / "work"
    keys.mkdir(parents=True)
    work.mkdir()
    (keys / "id").write_text("a key")
    with anyio.fail_after(30):
        with pytest.raises(ProgramFailed, match="where you keep keys"):
            await launcher.open(["true"], Profile(writable=(keys,), env=ENV), cwd=keys)
        named = Profile(readable=(keys,), writable=(work,), env=ENV)
        confined = await launcher.open(["cat", str(keys / "id")], named, cwd=work)
        assert await text_of(confined) == "a key"


@pytest.mark.skipif("bubblewrap" not in MODES, reason="no bubblewrap here")
async def test_a_workspace_that_vanishes_is_a_clear_error(tmp_path: Path) -> None:
    launcher = Launcher(SandboxConfig(mode="bubblewrap"), tmp_path)
    gone = tmp_path / "gone"
    with anyio.fail_after(30):
        try:
            confined = await launcher.open(["true"], Profile(writable=(gone,), env=ENV), cwd=gone)
        except ProgramFailed as error:
            assert "gone" in error.message  # noqa: PT017 - either is well: the wall falls early or late
        else:
            await text_of(confined)
            assert confined.process.returncode


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.exists()}


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def is_still(pid: int) -> bool:
    """Whether it is stopped, has ended, or waits in `vfork` (state D) for a child that is stopped before its `exec`."""
    state = state_of(pid)
    return state in "TZ" or (state == "D" and "T" in map(state_of, descendants(pid)))


def look_late(pid: int) -> bool:
    if not processes.is_still(pid):
        time.sleep(0.005)  # noqa: TID251 - a processor that has other things to do
    return processes.is_still(pid)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


async def test_where_the_machine_allows_less_a_program_gets_that() -> None:
    bounds = bounds_of(SandboxConfig())
    with anyio.fail_after(30):
        async with await anyio.open_process(
            ["sh", "-c", "ulimit -f 100; exec sleep 60"]
        ) as process:
            while not command_line(process.pid).startswith("sleep"):
                await anyio.sleep(0.01)
            allowed = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            assert allowed[1] < bounds.file_bytes
            await _bound(process.pid, bounds, None)
            assert resource.prlimit(process.pid, resource.RLIMIT_FSIZE) == allowed
            assert resource.prlimit(process.pid, resource.RLIMIT_CPU)[0] == bounds.cpu_s
            process.kill()
