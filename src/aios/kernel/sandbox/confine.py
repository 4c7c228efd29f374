"""Confine this very process with control groups, Landlock, seccomp and resource limits, then become another program.

For machines without bubblewrap, and for programs that are to have limits but no walls. Run as a script of its own, with nothing of AIOS imported, so that it starts fast and no
import can be led astray:

    python -I -S confine.py FD

`FD` holds JSON: `command`, `cwd`, `env`, `bounds` (name of a limit -> value), `behind` (steps of niceness), `groups` (files by which control groups are joined) and `walls`: `system`, `readable`, `writable`, `seccomp`
(base64), or nothing where programs are only limited. What lies in `system` is read, and no program can change it.
Numbers and layouts: linux/landlock.h, linux/prctl.h. What this cannot do is in docs/concepts/sandbox.md.
"""

import base64
import ctypes
import errno
import json
import os
import resource
import stat
import sys
from struct import pack

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""The same numbers on every instruction set."""
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2
ONLY_VERSION, PATH_BENEATH = 1, 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READING = EXECUTE | READ_FILE | READ_DIR
ALL_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
ALL_NOW = (1 << 16) - 1
TCP, TCP_SINCE = 3, 4
"""Binding and connecting; no rule allows either."""
SCOPES, SCOPES_SINCE = 3, 6
"""Abstract Unix sockets and signals end at the domain."""

libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Of Landlock; 0 where there is none."""
    found: int = libc.syscall(CREATE_RULESET, None, 0, ONLY_VERSION)
    return max(0, found)


def restrict(system: list[str], readable: list[str], writable: list[str]) -> None:
    """From here on this process and its children reach these paths and no others.

    Raises:
        OSError: Landlock does not work, or a symlink was put into a path that had none when it was checked.
    """
    now = version()
    handled = ALL_BY_VERSION.get(now, ALL_NOW)
    # `struct landlock_ruleset_attr`, whose later fields older kernels do not know.
    known = 8 if now < TCP_SINCE else 16 if now < SCOPES_SINCE else 24
    ruleset = pack("<QQQ", handled, TCP, SCOPES)[:known]
    fd = check(libc.syscall(CREATE_RULESET, ruleset, known, 0), "landlock")
    for path in system:
        allow(fd, os.path.realpath(path), READING & handled)
    for path in readable:
        allow(fd, path, READING & handled)
    for path in writable:
        allow(fd, path, handled)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(libc.syscall(RESTRICT_SELF, fd, 0), "landlock")
    os.close(fd)


def allow(ruleset: int, path: str, rights: int) -> None:
    """Add a path; one that is not there is left out."""
    try:
        fd = open_real(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        rights &= OF_FILES
    rule = pack("<Qi", rights, fd)  # `struct landlock_path_beneath_attr`
    check(libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0), path)
    os.close(fd)


def open_real(path: str, root: str = "/") -> int:
    """Open a path below a root, for its place only, if nothing in it is a symlink.

    Raises:
        OSError: It is not there, or something in it is one.
    """
    fd = os.open(root, os.O_PATH | os.O_CLOEXEC)
    for part in path.split("/"):
        if part:
            around = fd
            try:
                fd = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=around)
            finally:
                os.close(around)
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                os.close(fd)
                raise OSError(errno.ELOOP, f"{path} leads through a symlink now")
    return fd


def join(groups: list[str]) -> None:
    """Be in control groups; all that this process starts will be, too, for it has started nothing yet.

    Raises:
        OSError: One is not there or takes nobody.
    """
    for path in groups:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"0")
        os.close(fd)


def limit(bounds: dict[str, int]) -> None:
    """Set resource limits by the names of the `resource` module."""
    for name, value in bounds.items():
        number = getattr(resource, name)
        _, hard = resource.getrlimit(number)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))


def filter_calls(code: bytes) -> None:
    """Install a seccomp filter; it holds over exec."""
    kept = ctypes.create_string_buffer(code, len(code))
    program = pack("<H6xQ", len(code) // 8, ctypes.addressof(kept))  # `struct sock_fprog`
    check(libc.prctl(PR_SET_SECCOMP, MODE_FILTER, program, 0, 0), "seccomp")


def check(result: int, what: str) -> int:
    """The result of a system call.

    Raises:
        OSError: It failed.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def main() -> None:
    """Read the order, obey it, and become the program."""
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        order = json.load(file)
    join(order["groups"])
    os.chdir(order["cwd"])
    limit(order["bounds"])
    os.nice(order["behind"])
    if walls := order["walls"]:
        restrict(walls["system"], walls["readable"], walls["writable"])
        filter_calls(base64.b64decode(walls["seccomp"]))
    os.execve(order["command"][0], order["command"], order["env"])  # noqa: S606 - to become a program is its purpose


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, KeyError, TypeError) as failure:
        sys.stderr.write(f"the sandbox could not be made: {failure}\n")
        os._exit(126)
