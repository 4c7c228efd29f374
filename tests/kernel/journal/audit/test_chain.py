import string

from hypothesis import given
from hypothesis import strategies as st

from aios.abi.calls import Kill
from aios.abi.storage import FileEdit, Put
from aios.abi.tools import ToolRun
from aios.abi.types import Pid
from aios.kernel.journal.audit.chain import (
    NO_CODE,
    SUBJECT_CHARS,
    Act,
    Kind,
    Mark,
    code_of,
    seal_of,
    subject_of,
)

KEY = b"k" * 32


def test_a_subject_names_whom_it_is_done_to_and_never_what_is_written() -> None:
    edit = FileEdit(edits=(Put("/agents/a/plan.txt", b"CANARY content"),), message="CANARY note")
    assert subject_of(edit) == "put:/agents/a/plan.txt"
    assert subject_of(Kill(pid=Pid(7), reason="CANARY reason")) == "pid=7"
    assert subject_of(ToolRun(name="shell", arguments={"command": "CANARY"})) == "name=shell"


@given(st.text(string.ascii_letters + string.digits + "_-", min_size=16, max_size=60))
def test_what_looks_like_a_token_is_never_in_a_subject(secret: str) -> None:
    assert secret not in subject_of(ToolRun(name=f"x/aios_{secret}", arguments={}))


def test_a_long_subject_is_cut() -> None:
    edits = tuple(Put(f"/shared/{'x' * 200}/{i}", b"") for i in range(50))
    assert len(subject_of(FileEdit(edits=edits))) <= SUBJECT_CHARS + 3


@given(st.integers(0, 2**50), st.integers(0, 2**31), st.text(max_size=20), st.binary(max_size=32))
def test_every_field_and_place_and_key_makes_another_code(
    unix_us: int, pid: int, subject: str, digest: bytes
) -> None:
    act = Act(unix_us, pid, 3, Kind.EFFECT, "kill", "irreversible", subject, digest)
    others = [
        Act(unix_us + 1, pid, 3, Kind.EFFECT, "kill", "irreversible", subject, digest),
        Act(unix_us, pid + 1, 3, Kind.EFFECT, "kill", "irreversible", subject, digest),
        Act(unix_us, pid, 4, Kind.EFFECT, "kill", "irreversible", subject, digest),
        Act(unix_us, pid, 3, Kind.DENIED, "kill", "irreversible", subject, digest),
        Act(unix_us, pid, 3, Kind.EFFECT, "stop", "irreversible", subject, digest),
        Act(unix_us, pid, 3, Kind.EFFECT, "kill", "pure", subject, digest),
        Act(unix_us, pid, 3, Kind.EFFECT, "kill", "irreversible", subject + "x", digest),
        Act(unix_us, pid, 3, Kind.EFFECT, "kill", "irreversible", subject, digest + b"x"),
    ]
    codes = {code_of(KEY, NO_CODE, 5, each) for each in (act, *others)}
    codes |= {code_of(KEY, NO_CODE, 6, act), code_of(KEY, b"x" * 32, 5, act), code_of(b"j" * 32, NO_CODE, 5, act)}  # fmt: skip
    assert len(codes) == len(others) + 4


def test_a_mark_of_one_end_is_none_of_the_other() -> None:
    assert seal_of(KEY, Mark.BASE, 5, NO_CODE) != seal_of(KEY, Mark.HEAD, 5, NO_CODE)
