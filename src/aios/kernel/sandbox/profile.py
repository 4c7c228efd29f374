"""What a sandboxed program may see and take: values, and the bubblewrap arguments that make them true. Pure.

    /usr /lib* /bin /sbin   read-only        /etc   only what a program needs to run (no accounts, no keys)
    readable                read-only        writable   as on the host
    /tmp, $HOME             a private one of bounded size, gone at the end
    /proc, /dev             of its own: no other process, no device but the harmless ones

Everything else of the host does not exist. There is no network, not even loopback's neighbours: a namespace of its own.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = (
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/ca-certificates",
)
"""What programs read of `/etc`; private keys, accounts and host names are not among it."""
PROCESSES = Path("/proc")
"""Never the host's: by it a program would reach what others have open."""
HOME = "/tmp"  # noqa: S108 - inside the sandbox it is private
PASSWD_FILE = "agent:x:{uid}:{gid}:agent:{home}:/bin/sh\n"  # noqa: S105 - no password in it
GROUP_FILE = "agent:x:{gid}:\n"
UID = 1000
"""Inside; outside it stays the user who runs the kernel."""


class Bounds(Struct, frozen=True):
    """How much a program may take. Memory, files and CPU time count for each of its processes.

    Attributes:
        memory_bytes: Address space of one process; of all of them together where control groups can be written.
        cpu_s: Processor seconds of one process.
        n_processes: Processes and threads at once.
        file_bytes: The largest file it may write.
        n_files: Open files of one process.
        tmp_bytes: Its private `/tmp`.
    """

    memory_bytes: int = 4 << 30
    cpu_s: int = 3600
    n_processes: int = 256
    file_bytes: int = 1 << 30
    n_files: int = 1024
    tmp_bytes: int = 256 << 20


class Profile(Struct, frozen=True):
    """One program's view of the machine.

    Attributes:
        readable: Folders and files that it sees read-only, at their own paths.
        writable: Folders and files that it sees as they are.
        links: Symlinks that lead to some of these, each with where it leads; by the name it has outside.
        hidden: Folders within the others that it sees empty: the kernel's own state, keys.
        blanked: The same of files.
        copies: Folders that it sees read-only, by the places where it does, in which there is nothing else; behind Landlock there are none.
        fixed: Folders and files within the writable ones that it may only read; behind Landlock it may change them.
        env: Its whole environment; nothing of the kernel's is added but `HOME` and `TMPDIR`.
        bounds: How much it may take; None: what the configuration says.
    """

    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    links: Mapping[Path, Path] = msgspec.field(default_factory=dict)
    hidden: tuple[Path, ...] = ()
    blanked: tuple[Path, ...] = ()
    copies: Mapping[Path, Path] = msgspec.field(default_factory=dict)
    fixed: tuple[Path, ...] = ()
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    bounds: Bounds | None = None

    @property
    def roots(self) -> tuple[Path, ...]:
        """All that it sees beside the system."""
        return (*self.readable, *self.writable)

    def environment(self) -> dict[str, str]:
        """Its environment, with a home and a place for temporary files that exist inside."""
        env = {**self.env}
        for name in ("HOME", "TMPDIR"):
            if not any(is_within(Path(env.get(name, HOME)), root) for root in self.writable):
                env[name] = HOME
        return env


def bubblewrap_options(profile: Profile, *, cwd: Path, files: "Files") -> list[str]:
    """The options of `bwrap` for a profile. All paths are real ones: no symlinks in them.

    Args:
        profile: What the program may see and take.
        cwd: Where it starts; must be within the profile.
        files: Open files that `bwrap` reads.
    """
    tmp_bytes = str((profile.bounds or Bounds()).tmp_bytes)
    options = [
        *(
            "--unshare-all",
            "--unshare-user",
            "--disable-userns",
            "--new-session",
            "--die-with-parent",
        ),
        *("--uid", str(UID), "--gid", str(UID), "--hostname", "sandbox"),
    ]
    for place in (*SYSTEM, *ETC):
        options += ["--ro-bind-try", place, place]
    own = ["--proc", "/proc", "--dev", "/dev"]
    own += ["--size", tmp_bytes, "--tmpfs", "/dev/shm"]  # noqa: S108
    options += ["--size", tmp_bytes, "--tmpfs", HOME, *own]
    options += ["--ro-bind-data", str(files.passwd), "/etc/passwd"]
    options += ["--ro-bind-data", str(files.group), "/etc/group"]
    for path, mount in _mounts(profile):
        options += [*mount, str(path)]
        if path in (Path("/"), Path("/dev")):  # of the host; the program has its own
            options += own
    # Of `/proc`, root's own kernel could be changed through `sys`, without any capability.
    for place in ("/proc", "/dev", "/"):
        options += ["--remount-ro", place]
    options += ["--chdir", str(cwd)]
    options += ["--info-fd", str(files.info), "--block-fd", str(files.go)]
    options += ["--seccomp", str(files.seccomp), "--clearenv"]
    for name, value in profile.environment().items():
        options += ["--setenv", name, value]
    return options


def bound_paths(profile: Profile) -> list[Path]:
    """What of the host is mounted at its own path."""
    return [path for path, mount in _mounts(profile) if mount[-1] == str(path)]


class Files(Struct, frozen=True):
    """Numbers of the open files that `bwrap` inherits.

    Attributes:
        passwd: Where it reads `PASSWD_FILE`.
        group: Where it reads `GROUP_FILE`.
        seccomp: Where it reads the filter of `seccomp.py`.
        info: Where it writes the number of the process inside.
        go: Where it waits for a byte before it starts the program.
    """

    passwd: int
    group: int
    seccomp: int
    info: int
    go: int


def _mounts(profile: Profile) -> list[tuple[Path, tuple[str, ...]]]:
    """Outer folders first, so that an inner one with another right lies on top."""
    covers: dict[Path, tuple[str, ...]] = dict.fromkeys(profile.hidden, ("--tmpfs",))
    covers |= dict.fromkeys(profile.blanked, ("--ro-bind", "/dev/null"))
    wanted = {
        path: cover
        for path, cover in covers.items()
        if contains(profile, path) and path not in profile.roots
    }
    walls = (*wanted, *profile.fixed)
    wanted |= {path: ("--ro-bind", str(path)) for path in profile.readable}
    wanted |= {path: ("--bind", str(path)) for path in profile.writable}
    # What lies in a mount of the same or more rights needs none of its own: a file that is a mount cannot be replaced.
    for path in profile.roots:
        around = profile.writable if path in profile.writable else profile.roots
        if _lies_in(path, around) and not _lies_in(path, walls):
            wanted.pop(path, None)
    wanted |= {path: ("--ro-bind", str(path)) for path in profile.fixed}
    for path, target in profile.links.items():
        if not contains(profile, path):  # else it can be seen as it is
            wanted[path] = ("--symlink", str(target))
    wanted |= {path: ("--bind", str(path)) for path in _pinned(wanted, walls)}
    for path in [path for path in wanted if is_within(path, PROCESSES)]:
        del wanted[path]
    wanted |= {path: ("--ro-bind", str(copy)) for path, copy in profile.copies.items()}
    return sorted(wanted.items(), key=lambda item: (len(item[0].parts), item[0]))


def _pinned(mounts: Mapping[Path, tuple[str, ...]], walls: Iterable[Path]) -> list[Path]:
    """The folders on the way to what is hidden or fixed that the program could move: then it would lie where the next start looks for nothing.

    A folder that is a mount cannot be moved.
    """
    on_the_way = dict.fromkeys(path for wall in walls for path in wall.parents)
    around = {path: next((up for up in path.parents if up in mounts), None) for path in on_the_way}
    return [
        path
        for path, up in around.items()
        if path not in mounts and up is not None and mounts[up][0] == "--bind"
    ]


def _lies_in(path: Path, roots: Iterable[Path]) -> bool:
    return any(path != root and is_within(path, root) for root in roots)


def contains(profile: Profile, path: Path) -> bool:
    """Whether a program in this profile sees `path`."""
    seen = (*profile.roots, *map(Path, SYSTEM))
    return any(is_within(path, root) for root in seen)


def is_within(path: Path, root: Path) -> bool:
    """`Path.is_relative_to` for absolute paths; in a tenth of its time, and a profile asks hundreds of times."""
    around = str(root).rstrip("/")
    return str(path) == around or str(path).startswith(f"{around}/")
