"""Starting programs within walls, and ending all that they started.

The program waits behind the wall until its limits and its control group stand; only then is it let go. Its command line and
environment go to `bwrap` through a file, so that no token shows in the host's list of processes.
"""

import json
import os
import platform
import resource
import shutil
import signal
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread
from msgspec import Struct
from msgspec.structs import replace

from aios.config import SandboxConfig
from aios.errors import ProgramFailed
from aios.kernel.sandbox import confine
from aios.kernel.sandbox.apart import check_apart, check_python, key_places, obeyed, state_of
from aios.kernel.sandbox.cgroup import ControlGroup, hasten
from aios.kernel.sandbox.mounted import held, let_go
from aios.kernel.sandbox.places import interpreter
from aios.kernel.sandbox.probe import Wall, Walls, probe
from aios.kernel.sandbox.processes import (
    MARK,
    descendants,
    has_ended,
    is_still,
    kill_group,
    marked,
    n_own_processes,
    new_mark,
    send,
)
from aios.kernel.sandbox.profile import (
    ETC,
    GROUP_FILE,
    HOME,
    PASSWD_FILE,
    SYSTEM,
    UID,
    Bounds,
    Files,
    Profile,
    bound_paths,
    bubblewrap_options,
)
from aios.kernel.sandbox.scratch import hidden_base, scratch_folder
from aios.kernel.sandbox.seccomp import filter_program
from aios.kernel.sandbox.spawning import ChildProcess, check_words, start_program

GRACE_S = 5.0
"""How long the wall may take to stand, and its remains to go."""
BEHIND = 5
"""Steps of niceness by which programs stand behind the kernel and its owner's commands where processors are scarce: a fork bomb could else leave them none."""
DEVICES = ("/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class Confined:
    """A running program and all that it started.

    Args:
        process: The process that was started, with its pipes; `returncode` is the program's.
        root: The number of the outermost process inside: the program, or the first of its namespace.
        root_fd: A file of the first of the namespace, readable once all of the namespace has ended; None where there is none.
        group: Its control group.
        mark: A variable by which what has left its session is known; empty where a namespace ends with the root.
    """

    def __init__(
        self,
        process: ChildProcess,
        *,
        root: int,
        root_fd: int | None,
        group: ControlGroup | None,
        mark: str,
        undo: ExitStack,
    ) -> None:
        self.process = process
        self.root = root
        self._root_fd = root_fd
        self._is_gone = False
        self._group = group
        self._mark = mark
        self._undo = undo

    @property
    def pid(self) -> int:
        """The number of the program itself, as the operating system has it."""
        return (
            self.root
            if self.root == self.process.pid
            else next(iter(descendants(self.root)), self.root)
        )

    def kill(self) -> None:
        """End everything inside; what has a namespace of processes ends with the first of them."""
        for pid in self.inside():
            send(pid, signal.SIGKILL)
        if self._has_ended:
            return  # its number may be another's by now
        send(self.root, signal.SIGKILL)
        # `bwrap` itself ends when it hears of it.
        if self._root_fd is None:
            kill_group(self.root)

    def terminate(self) -> None:
        """SIGTERM to the program itself, which may end what it started as it likes."""
        if not self._has_ended:
            send(self.pid, signal.SIGTERM)

    def freeze(self, is_stopped: bool) -> None:
        """SIGSTOP or SIGCONT to everything inside, until nobody new turns up."""
        number = signal.SIGSTOP if is_stopped else signal.SIGCONT
        seen: set[int] = set()
        while new := self._all() - seen:
            for pid in new:
                send(pid, number)
            seen |= new

    def is_still(self) -> bool:
        """Whether nothing inside runs; what does is stopped.

        Looks twice: who is over may have left a child, and one may slip from parent to parent meanwhile.
        """
        held = self._all()
        if all(is_still(pid) for pid in held) and self._all() <= held:
            return True
        self.freeze(True)
        return False

    async def wait_gone(self) -> None:
        """Return when the process has ended and nothing that it started is left."""
        await self.process.wait()
        with anyio.move_on_after(GRACE_S):
            # `bwrap` may go before the namespace has: it is told of the program's end by the first inside, which then ends too.
            while self._all() or (self._group and not self._group.remove()):
                self.kill()
                await anyio.sleep(0.005)
        self._is_gone = True
        self._undo.close()

    @property
    def _has_ended(self) -> bool:
        """Whether the outermost inside has ended, and so its number may be another's."""
        if self._root_fd is None:
            return self.process.returncode is not None
        return self._is_gone or has_ended(self._root_fd)

    def _all(self) -> set[int]:
        return self.inside() if self._has_ended else self.inside() | {self.root}

    def inside(self) -> set[int]:
        """What runs in there now, beside the outermost."""
        inside = set(descendants(self.root)) if not self._has_ended else set()
        if self._group is not None:
            return inside | set(self._group.pids())
        return inside | marked(self._mark) if self._mark else inside


class Launcher:
    """Starts programs behind the strongest wall of this machine.

    Args:
        config: Which walls, and how much a program may take.
        home: The kernel's own state: no program sees it.
    """

    def __init__(self, config: SandboxConfig, home: Path) -> None:
        self.config = config
        self._home = home.resolve()  # once: a program may change the symlinks on the way
        self._machine = platform.machine()
        self._keys: dict[Path, None] = {}
        """Each place of keys that was ever seen: a program may have removed a symlink that led there."""
        self._walls: Walls | None = None

    async def find_walls(self) -> Walls:
        """What this machine offers; looked at once."""
        if self._walls is None:
            self._walls = await anyio.to_thread.run_sync(probe, self.config.mode)
        return self._walls

    async def open(
        self,
        command: Sequence[str],
        profile: Profile,
        *,
        cwd: Path,
        stdin: int = subprocess.DEVNULL,
    ) -> Confined:
        """Start a program; its output is piped.

        Args:
            command: What to run, looked up in the `PATH` of the profile.
            profile: What it sees. The bounds of the configuration hold where it names none; the kernel's state and the
                user's keys (`apart.SECRETS`) are hidden in any case.
            cwd: Where it starts.
            stdin: As for `subprocess`.

        Raises:
            ProgramFailed: It is not there, a word cannot be told, the wall could not be built, or the profile holds the kernel's own state, or `cwd` keys; the
                program did not run then.
        """
        walls = await self.find_walls()
        if self.config.strict and (walls.missing or walls.wall is not Wall.BUBBLEWRAP):
            raise ProgramFailed(
                f"`sandbox.strict` is set, and the walls are not whole: {'; '.join(walls.missing)}",
                hint="mend that, or unset `sandbox.strict`",
            )
        if self.config.mode not in {"auto", walls.wall.value}:
            raise ProgramFailed(
                f"`sandbox.mode` asks for {self.config.mode}, and there is none: {walls.missing[0]}",
                hint='mend that; `sandbox.mode = "auto"` takes the best that works',
            )
        check_words((*command, *profile.env, *profile.env.values()))
        found = shutil.which(command[0], path=profile.env.get("PATH"))
        if found is None:
            raise ProgramFailed(f"{command[0]} is not there", hint="check the command and `PATH`")
        order = _Order([found, *command[1:]], self._walled(profile, walls, cwd), cwd, stdin)
        start = {
            Wall.BUBBLEWRAP: self._open_bubblewrap,
            Wall.LANDLOCK: self._open_landlock,
            Wall.NONE: self._open_bare,
        }[walls.wall]
        with ExitStack() as undo:
            group = walls.groups.make(order.bounds) if walls.groups else None
            if group is not None:
                undo.callback(group.remove)
            try:
                process, root, root_fd = await start(order, walls, group, undo)
            except OSError as error:
                raise ProgramFailed(
                    f"{command[0]} could not be started: {error}", hint="check the folder and `cwd`"
                ) from error
            return Confined(
                process,
                root=root,
                root_fd=root_fd,
                group=group,
                mark=_mark(order, walls),
                undo=undo.pop_all(),
            )

    def _walled(self, profile: Profile, walls: Walls, cwd: Path) -> Profile:
        """A profile with what holds for every program: bounds, and what nobody sees."""
        self._keys.update(dict.fromkeys(key_places()))
        keys, state = [*self._keys], state_of(self._home)
        if walls.wall is not Wall.NONE:
            check_apart(profile, state=state, keys=keys, cwd=cwd)
        check_python()
        places = [*keys, *state.elsewhere, hidden_base()]
        return replace(
            profile,
            hidden=(*profile.hidden, state.home, *filter(Path.is_dir, places)),
            blanked=(*profile.blanked, *filter(Path.is_file, places)),
            fixed=(*profile.fixed, *obeyed(profile)),
            env=profile.env if walls.wall is Wall.BUBBLEWRAP else {**profile.env, MARK: new_mark()},
            bounds=profile.bounds or bounds_of(self.config),
        )

    async def _open_bubblewrap(
        self, order: "_Order", walls: Walls, group: ControlGroup | None, undo: ExitStack
    ) -> "_Started":
        with ExitStack() as files:
            told, tell = os.pipe2(os.O_CLOEXEC)
            files.callback(os.close, told)
            go, begin = os.pipe2(os.O_CLOEXEC)
            files.callback(os.close, go)
            files.callback(os.close, begin)
            try:  # each number is closed once, or another's file goes with it
                process = self._start_bubblewrap(order, walls, files, info=tell, go=go)
            finally:
                os.close(tell)
            async with _whole_or_gone(process):
                try:
                    if group is not None:  # while `bwrap` builds the walls
                        await anyio.to_thread.run_sync(hasten)
                    root = await _read_info(told)
                    if root is None:
                        raise await _failed(process)
                    root_fd = os.pidfd_open(root)
                    undo.callback(os.close, root_fd)
                    await _bound(root, order.bounds, group)
                    os.write(begin, b"\0")
                    await let_go(process, root, bound_paths(order.profile), within_s=GRACE_S)
                except (ProcessLookupError, TimeoutError):
                    raise await _failed(process) from None
            return _Started(process, root, root_fd)

    def _start_bubblewrap(
        self, order: "_Order", walls: Walls, files: ExitStack, *, info: int, go: int
    ) -> ChildProcess:
        its = Files(
            passwd=_file(files, PASSWD_FILE.format(uid=UID, gid=UID, home=HOME).encode()),
            group=_file(files, GROUP_FILE.format(gid=UID).encode()),
            seccomp=_file(files, filter_program(self._machine)),
            info=info,
            go=go,
        )
        words, env = held(order.profile.environment())
        options = bubblewrap_options(replace(order.profile, env=env), cwd=order.cwd, files=its)
        arguments = _file(files, b"\0".join(os.fsencode(part) for part in options))
        return start_program(
            [walls.bwrap, "--args", str(arguments), "--", *words, *order.command],
            stdin=order.stdin,
            env={MARK: new_mark()},  # its own: the program's is cleared
            pass_fds=(its.passwd, its.group, its.seccomp, its.info, its.go, arguments),
        )

    async def _open_landlock(
        self, order: "_Order", _: Walls, group: ControlGroup | None, undo: ExitStack
    ) -> "_Started":
        profile = order.profile
        for path in (*profile.hidden, *profile.blanked):
            if path.exists() and any(path.is_relative_to(root) for root in profile.roots):
                raise ProgramFailed(
                    f"Landlock cannot hide {path} from a program that works above it",
                    hint="run it in another folder, or install bubblewrap",
                )
        tmp = str(undo.enter_context(scratch_folder("tmp", hidden_base())))
        env = {
            name: tmp if value == HOME else value for name, value in profile.environment().items()
        }
        walls = {
            "system": [*SYSTEM, *ETC, *DEVICES],
            "readable": [*map(str, profile.readable)],
            "writable": [*map(str, profile.writable), tmp, "/dev/null"],
            "seccomp": b64encode(filter_program(self._machine, has_namespaces=False)).decode(),
        }
        return self._open_confined(order, env, walls, group)

    async def _open_bare(
        self, order: "_Order", _: Walls, group: ControlGroup | None, _undo: ExitStack
    ) -> "_Started":
        return self._open_confined(order, order.profile.env, None, group)

    def _open_confined(
        self,
        order: "_Order",
        env: Mapping[str, str],
        walls: Mapping[str, object] | None,
        group: ControlGroup | None,
    ) -> "_Started":
        """Start `confine.py`, which joins its group, limits itself, builds the walls around itself if there are any, and becomes the program."""
        bounds = limits(order.bounds)
        bounds["RLIMIT_NPROC"] += n_own_processes()  # it counts all that this user runs
        said = {
            "command": order.command,
            "cwd": str(order.cwd),
            "env": dict(env),
            "bounds": bounds,
            "behind": BEHIND,
            "groups": [*map(str, group.doors)] if group is not None else [],
            "walls": walls,
        }
        with ExitStack() as files:
            fd = _file(files, json.dumps(said).encode())
            process = start_program(
                [interpreter(), "-I", "-S", confine.__file__, str(fd)],
                stdin=order.stdin,
                env={},
                pass_fds=(fd,),
            )
        return _Started(process, process.pid, None)


class _Order(Struct, frozen=True):
    """A program to start, checked."""

    command: list[str]
    profile: Profile
    cwd: Path
    stdin: int

    @property
    def bounds(self) -> Bounds:
        assert self.profile.bounds is not None
        return self.profile.bounds


class _Started(NamedTuple):
    """A program within its walls, with the outermost inside them."""

    process: ChildProcess
    root: int
    root_fd: int | None


def _mark(order: _Order, walls: Walls) -> str:
    return "" if walls.wall is Wall.BUBBLEWRAP else order.profile.env[MARK]


def bounds_of(config: SandboxConfig) -> Bounds:
    """How much a program may take where nobody says otherwise."""
    return Bounds(
        memory_bytes=config.memory_bytes,
        cpu_s=config.cpu_s,
        n_processes=config.n_processes,
        file_bytes=config.file_bytes,
        tmp_bytes=config.tmp_bytes,
    )


def limits(bounds: Bounds) -> dict[str, int]:
    """Limits of the operating system by their names in the `resource` module."""
    return {
        "RLIMIT_AS": bounds.memory_bytes,
        "RLIMIT_CPU": bounds.cpu_s,
        "RLIMIT_NPROC": bounds.n_processes,
        "RLIMIT_FSIZE": bounds.file_bytes,
        "RLIMIT_NOFILE": bounds.n_files,
        "RLIMIT_CORE": 0,
    }


async def _bound(root: int, bounds: Bounds, group: ControlGroup | None) -> None:
    """Limit a program that waits behind its wall; where less is allowed on this machine, to that.

    Raises:
        ProcessLookupError: It has ended.
    """
    for name, wanted in limits(bounds).items():
        number = getattr(resource, name)
        _, hard = resource.prlimit(root, number)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.prlimit(root, number, (value, value))
    here = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, root, min(here + BEHIND, 19))
    if group is not None:
        await anyio.to_thread.run_sync(group.add, root)


@asynccontextmanager
async def _whole_or_gone(process: ChildProcess) -> AsyncIterator[None]:
    """What the block leaves started only in part goes."""
    is_whole = False
    try:
        yield
        is_whole = True
    finally:
        if not is_whole:
            await _end(process)


async def _end(process: ChildProcess) -> None:
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            kill_group(process.pid)
        await process.aclose()


def _file(files: ExitStack, content: bytes) -> int:
    """A file in memory that a child may read from its beginning."""
    fd = os.memfd_create("aios", os.MFD_CLOEXEC)
    files.callback(os.close, fd)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


async def _read_info(fd: int) -> int | None:
    """The number of the process inside, or None when `bwrap` ended before it had one."""
    said = b""
    with anyio.move_on_after(GRACE_S):
        while not said.rstrip().endswith(b"}"):
            await anyio.wait_readable(fd)
            piece = os.read(fd, 4096)
            if not piece:
                return None
            said += piece
        pid: int = json.loads(said)["child-pid"]
        return pid
    return None


async def _failed(process: ChildProcess) -> ProgramFailed:
    said = b""
    with suppress(ProcessLookupError):
        process.kill()
    if process.stderr is not None:
        with suppress(anyio.EndOfStream):
            said = await process.stderr.receive()
    return ProgramFailed(
        f"no sandbox for it: {said.decode(errors='replace').strip() or 'bwrap ended at once'}",
        hint="`aios doctor` says what works here",
    )
