"""The filter is run here as the operating system's kernel would run it."""

from errno import EAFNOSUPPORT, ENOSYS, EPERM
from struct import iter_unpack

import pytest

from aios.kernel.sandbox.seccomp import (
    ALLOW,
    DENIED,
    ERRNO,
    KILL,
    MACHINES,
    filter_program,
)

MAX_INSTRUCTIONS = 4096
"""`BPF_MAXINSNS`."""


def verdict(code: bytes, audit: int, number: int, *arguments: int) -> int:
    """What the filter says to a call."""
    program = list(iter_unpack("<HBBI", code))
    at, loaded = 0, 0
    while True:
        kind, if_so, if_not, value = program[at]
        at += 1
        if kind == 0x20:
            fields = {0: number, 4: audit}
            fields |= {16 + 8 * i: argument & 0xFFFFFFFF for i, argument in enumerate(arguments)}
            loaded = fields.get(value, 0)
        elif kind == 0x06:
            return int(value)
        else:
            is_so = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[kind]
            at += if_so if is_so else if_not


@pytest.mark.parametrize("name", MACHINES)
def test_each_denied_call_is_denied_and_common_ones_are_not(name: str) -> None:
    machine, code = MACHINES[name], filter_program(name)
    for numbers in DENIED.values():
        assert verdict(code, machine.audit, numbers[machine.column]) == ERRNO | EPERM
    common = (0, 1, 3, 9, 12, 59, 60, 231) if name == "x86_64" else (56, 57, 63, 64, 93, 221, 222)
    for number in common:
        assert verdict(code, machine.audit, number) == ALLOW
    assert len(code) // 8 < MAX_INSTRUCTIONS


@pytest.mark.parametrize("name", MACHINES)
def test_calls_that_are_looked_into(name: str) -> None:
    machine, code = MACHINES[name], filter_program(name)
    assert verdict(code, machine.audit, machine.clone3) == ERRNO | ENOSYS
    assert verdict(code, machine.audit, machine.clone, 0x3D0F00) == ALLOW  # a thread
    assert verdict(code, machine.audit, machine.clone, 17) == ALLOW  # a fork
    for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(code, machine.audit, machine.clone, flag | 17) == ERRNO | EPERM
    assert verdict(code, machine.audit, machine.ioctl, 0, 0x5412) == ERRNO | EPERM
    assert verdict(code, machine.audit, machine.ioctl, 0, 0x5401) == ALLOW  # isatty
    for family in (1, 2, 10, 16):
        assert verdict(code, machine.audit, machine.socket, family) == ALLOW
    for family in (0, 3, 17, 31, 38, 40):
        assert verdict(code, machine.audit, machine.socket, family) == ERRNO | EAFNOSUPPORT


def test_without_a_network_namespace_only_local_sockets_are_let_through() -> None:
    machine, code = MACHINES["x86_64"], filter_program("x86_64", has_namespaces=False)
    assert verdict(code, machine.audit, machine.socket, 1) == ALLOW
    for family in (2, 10, 16):
        assert verdict(code, machine.audit, machine.socket, family) == ERRNO | EAFNOSUPPORT


def test_other_instruction_sets_of_the_same_processor_are_no_way_around() -> None:
    machine, code = MACHINES["x86_64"], filter_program("x86_64")
    assert verdict(code, 0x40000003, 11) == KILL  # i386
    assert verdict(code, machine.audit, 0x40000000 | 59) == ERRNO | ENOSYS  # x32


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(KeyError):
        filter_program("pdp11")
