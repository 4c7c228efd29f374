import os
import shutil
import signal
import threading
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from tests.kernel.conftest import MakeProgram, OpenKernel
from tests.kernel.tools.offering import idle

from aios.abi.calls import ExitSelf, Kill, Logs, Spawn, Stop, Wait
from aios.abi.gate import Line
from aios.abi.recovery import Restart
from aios.abi.timers import TimerAdd
from aios.abi.types import Exit, Kind, Pid, State
from aios.errors import InvalidCall, KernelBug, NotFound, ProgramFailed
from aios.kernel import programs
from aios.kernel.kernel import Kernel
from aios.kernel.leftovers import code_hash
from aios.kernel.loader import (
    KEPT,
    LINES_AT_ONCE,
    Child,
    Launch,
    Program,
    by_folder,
    exit_of,
    keep_lines,
    load_program,
    view_for,
)
from aios.kernel.logs import LogBuffer
from aios.kernel.sandbox.places import python_places
from aios.kernel.sandbox.processes import descendants

URL = "unix:///nowhere"


async def spawned(kernel: Kernel, call: Spawn) -> Pid:
    kernel.urls = [URL]
    return (await kernel.init_gate().call(call)).value.pid


async def log_of(kernel: Kernel, pid: Pid) -> list[tuple[str, str]]:
    async with kernel.init_gate().open_call(Logs(pid=pid, follow=True)) as frames:
        return [
            (frame.line.stream, frame.line.text)
            async for frame in frames
            if isinstance(frame, Line)
        ]


def os_process_is_gone(os_pid: int) -> bool:
    try:
        os.kill(os_pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_manifest_that_could_be_read_for_ever_is_not_read(tmp_path: Path, kind: str) -> None:
    manifest = tmp_path / "agent.toml"
    if kind == "pipe":
        os.mkfifo(manifest)
    else:
        manifest.symlink_to("/dev/zero")
    with pytest.raises(InvalidCall, match="no regular file"):
        load_program(str(tmp_path))


@pytest.mark.anyio
async def test_a_program_runs_with_its_arguments_and_its_output_is_its_log(
    booted: OpenKernel, program: MakeProgram
) -> None:
    path = program("import sys\nprint('args', sys.argv[1:])\nprint('oh', file=sys.stderr)\n")
    with anyio.fail_after(30):
        async with booted() as kernel:
            pid = await spawned(kernel, Spawn(program=path, args=("a", "b c")))
            assert (await kernel.init_gate().call(Wait(pid=pid))).value.exit.status == 0
            assert sorted(await log_of(kernel, pid)) == [
                ("err", "oh"),
                ("out", "args ['a', 'b c']"),
            ]


@pytest.mark.anyio
async def test_no_manifest_is_read_in_the_loop(
    booted: OpenKernel, program: MakeProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: str, copy: Path | None = None) -> Program:
        threads.append(threading.get_ident())
        return load_program(path, copy)

    threads = list[int]()
    monkeypatch.setattr(programs, "load_program", read)
    with anyio.fail_after(30):
        async with booted() as kernel:
            pid = await spawned(kernel, Spawn(program=program("pass")))
            await kernel.init_gate().call(Wait(pid=pid))
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.anyio
async def test_a_crash_leaves_its_traceback_in_the_log_and_its_status_in_the_table(
    booted: OpenKernel, program: MakeProgram
) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel:
            pid = await spawned(kernel, Spawn(program=program("raise SystemError('boom')")))
            assert (await kernel.init_gate().call(Wait(pid=pid))).value.exit.status == 1
            lines = await log_of(kernel, pid)
            assert ("err", "SystemError: boom") in lines
            assert ("kernel", "exited with status 1") in lines


@pytest.mark.anyio
async def test_the_child_gets_a_scrubbed_environment(
    booted: OpenKernel, program: MakeProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    monkeypatch.setenv("AIOS_HOME", "/canary")
    path = program("import os\nfor k in sorted(os.environ): print(k, os.environ[k])")
    with anyio.fail_after(30):
        async with booted() as kernel:
            pid = await spawned(kernel, Spawn(program=path, env={"MINE": "1"}))
            await kernel.init_gate().call(Wait(pid=pid))
            text = "\n".join(line for _, line in await log_of(kernel, pid))
    assert "canary" not in text
    assert "MINE 1" in text
    assert f"AIOS_URL {URL}" in text
    assert "AIOS_TOKEN aios_" in text
    assert "PYTHONDONTWRITEBYTECODE 1" in text, "compiled Python ends what is granted to a folder"


@pytest.mark.anyio
async def test_a_program_imports_nothing_from_its_workspace_by_a_careless_path(
    booted: OpenKernel, program: MakeProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = os.environ.get("PYTHONPATH", "")
    path = program("import colorsys\nprint(colorsys.__file__)")
    work = Path(path) / "work"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", entries, "lib", f"{work}/later"]))
    python_places()  # when it begins, `later` is not there
    (work / "lib").mkdir(parents=True)
    (work / "later").mkdir()
    for place in (work, work / "lib", work / "later"):
        (place / "colorsys.py").touch()
    with anyio.fail_after(30):
        async with booted() as kernel:
            pid = await spawned(kernel, Spawn(program=path, cwd=str(work)))
            assert (await kernel.init_gate().call(Wait(pid=pid))).value.exit.status == 0
            ((_, found),) = await log_of(kernel, pid)
    assert not found.startswith(str(work))


@pytest.mark.anyio
async def test_kill_ends_all_that_a_program_started_at_once(
    booted: OpenKernel, program: MakeProgram
) -> None:
    source = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    with anyio.fail_after(30):
        async with booted() as kernel:
            pid = await spawned(kernel, Spawn(program=program(source)))
            process = kernel.table.get(pid)
            while not process.log.lines:
                await process.log.wait_changed()
            os_pid = process.os_pid
            assert os_pid is not None
            below = descendants(os_pid)
            assert len(below) >= 1
            await kernel.init_gate().call(Kill(pid=pid))
            assert process.exit is not None
            assert process.exit.status == 137
            assert all(os_process_is_gone(each) for each in (os_pid, *below))


@pytest.mark.anyio
async def test_stop_freezes_the_operating_system_process(
    booted: OpenKernel, program: MakeProgram
) -> None:
    with anyio.fail_after(30):
        async with booted() as kernel:
            pid = await spawned(kernel, Spawn(program=program("import time; time.sleep(60)")))
            await kernel.init_gate().call(Stop(pid=pid))
            stat = Path(f"/proc/{kernel.table.get(pid).os_pid}/stat")
            while stat.read_text().rsplit(")", 1)[1].split()[0] != "T":
                await anyio.sleep(0.01)
            assert kernel.table.get(pid).state is State.STOPPED
            await kernel.init_gate().call(Kill(pid=pid))


@pytest.mark.anyio
async def test_what_a_process_was_about_to_start_as_it_was_stopped_is_stopped_with_it(
    booted: OpenKernel, program: MakeProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_hashed = threading.Event()

    def hash_slowly(folder: str) -> bytes:
        assert is_hashed.wait(30)
        return code_hash(folder)

    monkeypatch.setattr(programs, "code_hash", hash_slowly)
    with anyio.fail_after(60):
        async with booted() as kernel, anyio.create_task_group() as tasks:
            kernel.urls = [URL]
            boss = kernel.table.get(kernel.spawn_task("boss", idle))
            call = Spawn(program("import time; time.sleep(60)"), restart=Restart("on-failure"))
            tasks.start_soon(kernel.gate(boss.pid).call, call)
            await anyio.wait_all_tasks_blocked()
            assert not boss.children
            async with anyio.create_task_group() as stopping:
                stopping.start_soon(kernel.init_gate().call, Stop(pid=boss.pid))
                await anyio.wait_all_tasks_blocked()
                assert boss.is_stopped
                is_hashed.set()
            (child,) = boss.children
            assert kernel.table.get(child).is_stopped
            await kernel.init_gate().call(Kill(pid=boss.pid))


@pytest.mark.anyio
async def test_a_program_that_exits_by_call_and_lingers_is_killed(
    booted: OpenKernel, program: MakeProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aios.kernel.loader.EXIT_GRACE_S", 0.1)
    with anyio.fail_after(30):
        async with booted() as kernel:
            pid = await spawned(kernel, Spawn(program=program("import time; time.sleep(60)")))
            await kernel.gate(pid).call(ExitSelf(status=4, result="mine"))
            end = (await kernel.init_gate().call(Wait(pid=pid))).value.exit
            assert (end.status, end.result) == (4, "mine")


@pytest.mark.anyio
async def test_a_flood_without_line_ends_stays_within_the_log(
    booted: OpenKernel, program: MakeProgram
) -> None:
    path = program("import sys\nfor _ in range(300): sys.stdout.write('x' * 65536)")
    with anyio.fail_after(30):
        async with booted() as kernel:
            pid = await spawned(kernel, Spawn(program=path))
            await kernel.init_gate().call(Wait(pid=pid))
            log = kernel.table.get(pid).log
            assert log.size_bytes <= log.max_bytes
            assert log.n_dropped > 0


@pytest.mark.anyio
async def test_others_have_their_turn_while_many_lines_are_put_into_a_log() -> None:
    log, n_turns = LogBuffer(Pid(2), 1 << 24), 0

    async def count() -> None:
        nonlocal n_turns
        while True:
            await anyio.lowlevel.checkpoint()
            n_turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await keep_lines(log, b"\n" * 65_535, stream="out", unix_s=0.0)
        tasks.cancel_scope.cancel()
    assert len(log.lines) == 65_536
    assert n_turns >= 65_536 // LINES_AT_ONCE - 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("data", "lines"),
    [(b"", [""]), (b"a\n", ["a", ""]), (b"\n\na", ["", "", "a"]), (b"a\r\nb\r", ["a", "b"])],
)
async def test_empty_lines_are_lines(data: bytes, lines: list[str]) -> None:
    log = LogBuffer(Pid(2), 1 << 20)
    await keep_lines(log, data, stream="out", unix_s=0.0)
    assert [line.text for line in log.lines] == lines


@pytest.mark.anyio
async def test_programs_need_an_address_to_call(booted: OpenKernel, program: MakeProgram) -> None:
    async with booted() as kernel:
        with pytest.raises(ProgramFailed, match="no address"):
            await kernel.init_gate().call(Spawn(program=program("")))


@pytest.mark.anyio
async def test_the_kernels_own_variables_cannot_be_set(
    booted: OpenKernel, program: MakeProgram
) -> None:
    async with booted() as kernel:
        with pytest.raises(InvalidCall, match="AIOS_"):
            await spawned(kernel, Spawn(program=program(""), env={"AIOS_TOKEN": "stolen"}))


@pytest.mark.anyio
async def test_what_no_program_can_be_told_starts_none(
    booted: OpenKernel, program: MakeProgram
) -> None:
    """Behind a NUL, `bwrap` would read options: `--bind / /tmp/h` of an agent's own choice."""
    path = program("")
    async with booted() as kernel:
        for call in (
            Spawn(program=path, env={"X": "a\0--bind\0/\0/tmp/h"}),
            Spawn(program=path, env={"X\0--share-net\0": "a"}),
            Spawn(program=path, args=("a\0b",)),
        ):
            with pytest.raises(ProgramFailed, match="no NUL"):
                await spawned(kernel, call)
        with pytest.raises(NotFound, match="working directory"):
            await spawned(kernel, Spawn(program=path, cwd="/a\0b"))
        assert len(list(kernel.table)) == 1, "nothing is left of them"


@pytest.mark.anyio
async def test_a_bug_of_ours_in_a_life_of_a_program_ends_that_one_alone(
    booted: OpenKernel, program: MakeProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("in this life")

    async with booted() as kernel:
        monkeypatch.setattr(programs, "take_grants", fails)
        with pytest.raises(KernelBug, match="in this life"):
            await spawned(kernel, Spawn(program=program("")))
        assert [each.exit.status for each in kernel.table if each.exit is not None] == [126]


@pytest.mark.anyio
async def test_a_missing_working_directory_is_said(
    booted: OpenKernel, program: MakeProgram
) -> None:
    async with booted() as kernel:
        with pytest.raises(NotFound, match="working directory /not/there"):
            await spawned(kernel, Spawn(program=program(""), cwd="/not/there"))


def test_a_folder_without_a_manifest_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"agent\.toml is not there"):
        load_program(str(tmp_path))
    with pytest.raises(NotFound):
        load_program(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("manifest", "complaint"),
    [
        ("name = 3", "`name`: expected text, got a whole number"),
        ("nope = [", "no manifest"),
        ("entry = 'main.py'", "missing required field `name`"),
        ("name = 'a'\ncolour = 'red'", "unknown field `colour`"),
        ("name = '../x'", "the first a letter or digit"),
        ("name = 'a'\nnice = 99", "<= 19"),
        ("name = 'a'\nblock_bytes = '2Mb'", "`block_bytes`: '2Mb' could be bits"),
        ("name = 'a'\nblock_bytes = '2k'", "`block_bytes`: expected a whole number >= 4096"),
        ("name = 'a'\n[budget]\nwritten_bytes = 'all'", "`written_bytes`: 'all' is no size"),
        ("#" * 70_000, "over 65536 bytes"),
        (f"name = {'[' * 20_000}", "no manifest"),
    ],
)
def test_a_malformed_manifest_is_refused_with_the_reason(
    program: MakeProgram, manifest: str, complaint: str
) -> None:
    with pytest.raises(InvalidCall, match=complaint):
        load_program(program("", manifest=manifest))


@pytest.mark.parametrize("entry", ["absent.py", "../other.py", "/bin/true", "."])
def test_an_entry_outside_the_folder_or_absent_is_refused(program: MakeProgram, entry: str) -> None:
    with pytest.raises(NotFound, match="entry"):
        load_program(program("", manifest=f"name = 'a'\nentry = '{entry}'"))


def test_an_entry_that_is_no_path_or_leads_in_a_circle_is_refused(program: MakeProgram) -> None:
    for entry in ("a\\u0000b", "é" * 250):
        with pytest.raises(NotFound):
            load_program(program("", manifest=f'name = "a"\nentry = "{entry}"'))
    folder = Path(program(""))
    (folder / "main.py").unlink()
    (folder / "main.py").symlink_to("main.py")
    with pytest.raises(NotFound, match="entry"):
        load_program(str(folder))


def test_with_a_copy_what_is_in_that_counts(program: MakeProgram, tmp_path: Path) -> None:
    folder = Path(program(""))
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (folder / "other.py").touch()
    (folder / "agent.toml").write_text('name = "evil"\nentry = "other.py"\n')
    assert load_program(str(folder)).entry == folder / "other.py"
    loaded = load_program(str(folder), copy)
    assert (loaded.folder, loaded.entry) == (folder, folder / "main.py")


def test_return_codes_become_exits_as_in_a_shell() -> None:
    assert exit_of(3).status == 3
    assert exit_of(-35) == Exit(163, "killed by signal 35"), "one for real time"
    killed = exit_of(-signal.SIGSEGV)
    assert (killed.status, killed.reason) == (139, "killed by SIGSEGV")


def test_a_kernel_whose_folder_is_gone_starts_programs_in_others(
    program: MakeProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_program(program("pass"))
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    spawn = Spawn(program=str(loaded.folder), cwd=str(tmp_path))
    assert view_for(spawn, loaded, None).cwd == tmp_path.resolve()
    with pytest.raises(NotFound, match="was started is gone"):
        view_for(Spawn(program=str(loaded.folder)), loaded, None)


@pytest.mark.anyio
async def test_a_child_that_nobody_awaits_any_more_leaves_no_control_group(
    booted: OpenKernel, program: MakeProgram
) -> None:
    path = program("import time; time.sleep(60)")
    with anyio.fail_after(30):
        async with booted() as kernel:
            if (await kernel.launcher.find_walls()).groups is None:
                pytest.skip("this machine lets us make no control group")
            process = kernel.add_process("prog", Kind.PROGRAM, kernel.init)
            loaded = load_program(path)
            view = view_for(Spawn(program=path), loaded, None)
            child = Child(process, kernel.clock, kernel.launcher)
            before = own_groups()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child.run, Launch(loaded, (), view, {}, URL, "token"))
                await child.started.wait()
                assert own_groups() > before
                tasks.cancel_scope.cancel()
            assert own_groups() == before
            kernel.end_process(process, Exit(0))


def own_groups() -> set[Path]:
    """The control groups that this very process has made."""
    return set(Path("/sys/fs/cgroup").rglob(f"aios-{os.getpid()}-*"))


def test_a_spawn_is_the_same_from_a_copy_of_its_program_and_from_its_folder() -> None:
    words, env = ("/a/b/x", "--in=/a/y", "see /.kept/a", "/.keptx"), {"DATA": "/a/z"}
    call = Spawn(program="/a/b", args=words, cwd="/a", read=("/c", "d"), write=(), env=env)
    words, env = (f"{KEPT}/a/b/x", f"--in={KEPT}/a/y", *words[2:]), {"DATA": f"{KEPT}/a/z"}
    kept = Spawn(
        program=f"{KEPT}/a/b",
        args=words,
        cwd=f"{KEPT}/a",
        read=(f"{KEPT}/c", "d"),
        write=(),
        env=env,
    )
    assert by_folder(kept) == by_folder(call) == call
    assert by_folder(Spawn(program="b")) == Spawn(program="b")
    assert by_folder(TimerAdd(kept, at_unix_s=1.0)) == TimerAdd(call, at_unix_s=1.0)
