"""The system calls of the operating system that a sandboxed program cannot make, as a program for the kernel's filter. Pure.

A list of what is denied, as in Docker and Flatpak: calls that reach other processes, mount, load code into the kernel, make
namespaces, or have had a long row of holes (keyrings, BPF, io_uring, userfaultfd). Sockets are an allow-list of families:
some, such as vsock, know no network namespaces.

Layout of an instruction: `struct sock_filter` in linux/filter.h; of the data it reads: `struct seccomp_data` in linux/seccomp.h.
"""

from errno import EAFNOSUPPORT, ENOSYS, EPERM
from struct import pack

from msgspec import Struct

LOAD_WORD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Offsets in `struct seccomp_data`: the call, the instruction set, six arguments of 8 bytes (low half first)."""
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000

DENIED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "personality": (135, 92),
    "vhangup": (153, 58),
    "fanotify_init": (300, 262),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
"""Numbers on x86_64 and on aarch64."""
X86_ONLY = {"iopl": 172, "ioperm": 173, "modify_ldt": 154, "uselib": 134}

SHARED = {
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}
"""Memory, semaphores and queues that all programs of a user share, where a program has no namespaces of its own."""

CLONE_NEW = 0x7E020000
"""The flags of `clone` that make a namespace: mount, cgroup, UTS, IPC, user, PID, network."""
TERMINAL_INPUT = (0x5412, 0x541C)
"""`TIOCSTI` and `TIOCLINUX`: type into the terminal of whoever started the kernel."""
FAMILIES = (1, 2, 10, 16)
"""Unix, IPv4, IPv6, netlink: all of them end at the namespace."""
LOCAL_FAMILIES = (1,)
"""Where there is no network namespace, no family but this one is let through."""


class Machine(Struct, frozen=True):
    """An instruction set, with the calls that the filter has to look into."""

    audit: int
    column: int
    socket: int
    ioctl: int
    clone: int
    clone3: int = 435


MACHINES = {
    "x86_64": Machine(0xC000003E, 0, 41, 16, 56),
    "aarch64": Machine(0xC00000B7, 1, 198, 29, 220),
}


def filter_program(machine: str, *, has_namespaces: bool = True) -> bytes:
    """The filter for an instruction set (`platform.machine()`), 8 bytes an instruction.

    Without namespaces of its own a program reaches no network, and nothing that other programs share.

    Raises:
        KeyError: The instruction set is not one of `MACHINES`.
    """
    its = MACHINES[machine]
    families = FAMILIES if has_namespaces else LOCAL_FAMILIES
    calls = DENIED if has_namespaces else DENIED | SHARED
    denied = [numbers[its.column] for numbers in calls.values()]
    code = [
        _load(ARCHITECTURE),
        _jump(JUMP_EQUAL, its.audit, 1, 0),
        _return(KILL),  # the 32-bit calls of the same processor have other numbers
        _load(NUMBER),
    ]
    if its.column == 0:
        denied += X86_ONLY.values()
        code += [_jump(JUMP_GREATER_EQUAL, 0x40000000, 0, 1), _return(ERRNO | ENOSYS)]  # x32
    for number in sorted(denied):
        code += [_jump(JUMP_EQUAL, number, 0, 1), _return(ERRNO | EPERM)]
    # glibc falls back to `clone`, whose flags can be seen here; those of `clone3` lie in memory.
    code += [_jump(JUMP_EQUAL, its.clone3, 0, 1), _return(ERRNO | ENOSYS)]
    code += _within(its.clone, [_jump(JUMP_SET, CLONE_NEW, 0, 1), _return(ERRNO | EPERM)])
    typed = [
        line
        for request in TERMINAL_INPUT
        for line in (_jump(JUMP_EQUAL, request, 0, 1), _return(ERRNO | EPERM))
    ]
    code += _within(its.ioctl, typed, argument=1)
    allowed = [
        line for family in families for line in (_jump(JUMP_EQUAL, family, 0, 1), _return(ALLOW))
    ]
    code += _within(its.socket, [*allowed, _return(ERRNO | EAFNOSUPPORT)])
    return b"".join([*code, _return(ALLOW)])


def _within(number: int, body: list[bytes], *, argument: int = 0) -> list[bytes]:
    """What is done for one call only, on the low half of one of its arguments."""
    body = [_load(ARGUMENTS + 8 * argument), *body, _load(NUMBER)]
    return [_jump(JUMP_EQUAL, number, 0, len(body)), *body]


def _load(offset: int) -> bytes:
    return pack("<HBBI", LOAD_WORD, 0, 0, offset)


def _jump(kind: int, value: int, if_so: int, if_not: int) -> bytes:
    """Skip `if_so` or `if_not` instructions, after a comparison with what was loaded."""
    return pack("<HBBI", kind, if_so, if_not, value)


def _return(verdict: int) -> bytes:
    return pack("<HBBI", RETURN, 0, 0, verdict)
