"""Rows of the process table, made up."""

import msgspec

from aios.abi.types import Exit, Kind, Pid, ProcessInfo, State, Usage


def process(pid: int, name: str = "", **changes: object) -> ProcessInfo:
    """A living program; `changes` are other fields."""
    fields: dict[str, object] = {
        "pid": Pid(pid),
        "ppid": Pid(1),
        "name": name or f"p{pid}",
        "program": "",
        "owner": "owner",
        "kind": Kind.PROGRAM,
        "state": State.WAITING,
        "nice": 0,
        "activity": "",
        "started_unix_s": 1000.0,
        "ended_unix_s": None,
        "exit": None,
        "n_calls": 0,
        "n_faults": 0,
        "n_preemptions": 0,
        "waited_s": 0.0,
        "ran_s": 0.0,
        "usage": Usage(),
    }
    return msgspec.convert({**fields, **changes}, ProcessInfo, from_attributes=True)


def ended(pid: int, name: str = "", *, status: int = 0, reason: str = "") -> ProcessInfo:
    """One that has ended."""
    return process(pid, name, state=State.EXITED, exit=Exit(status, reason), ended_unix_s=1010.0)
