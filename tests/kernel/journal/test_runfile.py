import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.journal.runs import Pair, rows

from aios.abi.call import Done
from aios.abi.calls import Admit, Chat, ChatAnswer, GetPid, Guest, Log, Self
from aios.abi.gate import Fault
from aios.abi.links import LinkInfo, LinkInfos
from aios.abi.types import Finish, Message, Pid, Role, Usage
from aios.abi.wire import decode_answer, decode_call, decode_fault
from aios.errors import InvalidCall
from aios.kernel.journal.records import Outcome
from aios.kernel.journal.redaction import Redaction
from aios.kernel.journal.runfile import Run, _digest, _Line, read_run, write_run
from aios.kernel.journal.texts import HIDDEN
from aios.kernel.replay import retell


def said(text: str, role: Role = Role.USER) -> Message:
    return Message(role, text)


def told(text: str) -> ChatAnswer:
    return ChatAnswer(said(text, Role.ASSISTANT), Finish.STOP, Usage(10, 0, 5), "m")


PAIRS: list[Pair] = [
    (GetPid(), Self(Pid(2), Pid(1), "a")),
    (Chat(messages=(said("hi"),)), told("ho")),
    (Chat(messages=(said("hi"), said("ho", Role.ASSISTANT), said("so?"))), told("so")),
    (Chat(messages=(said("more"),)), Fault("not_found", "no engine", "start one")),
    (Log(text="the end"), None),
]


def exported(pairs: list[Pair], *secrets: str) -> bytes:
    return write_run(Run("reader", "reading", rows(pairs)), Redaction(secrets))


def test_a_run_comes_back_as_it_was() -> None:
    run, was = read_run(exported(PAIRS)), rows(PAIRS)
    assert (run.name, run.program) == ("reader", "reading")
    for row, before in zip(run.rows, was, strict=True):
        assert row.record == before.record
        assert decode_call(row.intent) == decode_call(before.intent)
        if before.record.outcome is Outcome.FAULT:
            assert decode_fault(row.answer) == decode_fault(before.answer)
        elif before.answer:
            assert decode_answer(row.answer) == decode_answer(before.answer)


@pytest.mark.no_cover
def test_a_file_grows_with_what_was_said_not_with_its_square() -> None:
    def size(n_turns: int) -> int:
        talk: tuple[Message, ...] = (said("begin"),)
        pairs = list[Pair]()
        for turn in range(n_turns):
            text = f"{turn:08x}" * 20
            pairs.append((Chat(messages=talk), told(text)))
            talk = (*talk, said(text, Role.ASSISTANT), said(f"{turn} more"))
        return len(zlib.decompress(exported(pairs)[len(b"aios-run 1\n") + 32 :]))

    assert size(200) < 2.5 * size(100)


def test_secrets_are_left_out_and_the_run_is_still_of_one_piece() -> None:
    pairs: list[Pair] = [
        (Admit(name="bob"), Guest(Pid(3), "bob", "bobs-token")),
        (Log(text="the password is swordfish, the key sk-abcdefghijklmnopqrst"), Done()),
        (Log(text="Authorization: Bearer abcdefghijklmnop1234"), Done()),
    ]
    run = read_run(exported(pairs, "swordfish", "in"))
    everything = b"".join(row.intent + row.answer for row in run.rows)
    for secret in (b"bobs-token", b"swordfish", b"sk-abc", b"abcdefghijklmnop1234"):
        assert secret not in everything
    assert decode_call(run.rows[1].intent) == Log(
        text=f"the password is {HIDDEN}, the key {HIDDEN}"
    )


NONSENSE: list[dict[str, object]] = [
    {"seq": 1 << 63},
    {"seq": 0},
    {"call": "\x1b]0;owned\x07"},
    {"call": "log"},
    {"begun_unix_s": float("nan")},
    {"ended_unix_s": 1e300},
    {"ran_s": float("inf")},
    {"n_preemptions": (1 << 64) - 1},
    {"within": -1},
    {"name": "\x1b[2J"},
    {"name": "two\nlines"},
    {"program": "a\x9bb"},
    {"pid": 1 << 63},
]


@pytest.mark.parametrize("given_to", NONSENSE)
def test_what_could_not_have_been_written_is_refused(given_to: dict[str, object]) -> None:
    """Nothing of a file may act on a terminal that shows it, or be too large for what keeps it."""
    head, packed = b"aios-run 1\n", exported(PAIRS[:1]).removeprefix(b"aios-run 1\n")[32:]
    body = msgspec.msgpack.decode(zlib.decompress(packed))
    fields = _Line.__struct_fields__
    for name, value in given_to.items():
        if name in fields:
            body["lines"][0][fields.index(name)] = value
        else:
            body[name] = value
    packed = zlib.compress(msgspec.msgpack.encode(body))
    with pytest.raises(InvalidCall, match="this run is damaged"):
        read_run(head + _digest(packed) + packed)


def test_what_is_no_run_is_refused_and_says_why() -> None:
    data = exported(PAIRS)
    with pytest.raises(InvalidCall, match="no run"):
        read_run(b"PK\x03\x04 a zip")
    with pytest.raises(InvalidCall, match="version 9"):
        read_run(data.replace(b"aios-run 1", b"aios-run 9", 1))
    with pytest.raises(InvalidCall, match="digest"):
        read_run(data[:-1])
    with pytest.raises(InvalidCall, match="no run"):
        read_run(b"")


@given(st.data())
def test_a_damaged_file_is_refused_whatever_the_damage(data: st.DataObject) -> None:
    whole = exported(PAIRS)
    place = data.draw(st.integers(0, len(whole) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    with pytest.raises(InvalidCall):
        read_run(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])


def test_what_cannot_be_hidden_in_its_place_is_not_there_and_the_run_is_whole() -> None:
    link = LinkInfos((LinkInfo("0123456789abcdef", "/shared/a", 1, 2.0),))
    run = read_run(exported([(GetPid(), link), *PAIRS], "0123456789abcdef"))
    assert (run.rows[0].record.outcome, run.rows[0].answer) == (Outcome.DONE, b"")
    assert len(list(retell(run.rows))) == len(PAIRS) + 1


def test_a_secret_in_the_name_of_a_process_is_not_in_its_run() -> None:
    data = write_run(Run("swordfish-1", "swordfish", rows(PAIRS)), Redaction(["swordfish"]))
    assert (read_run(data).name, read_run(data).program) == (f"{HIDDEN}-1", HIDDEN)
