"""Rows as a journal has them, for tests about runs."""

from collections.abc import Sequence

from aios.abi.every import AnyAnswer, AnyCall
from aios.abi.gate import Fault
from aios.abi.types import Pid
from aios.abi.wire import encode, encode_call
from aios.kernel.journal.records import Effect, Outcome, Record, Where
from aios.kernel.journal.tables import Row
from aios.kernel.journal.texts import write_call

Pair = tuple[AnyCall, AnyAnswer | Fault | None]


def rows(pairs: Sequence[Pair], pid: int = 2) -> tuple[Row, ...]:
    """Calls and their answers as the records of one process; None is a call without an outcome."""
    return tuple(_row(seq, *pair, pid=Pid(pid)) for seq, pair in enumerate(pairs, 1))


def _row(seq: int, call: AnyCall, answer: AnyAnswer | Fault | None, pid: Pid) -> Row:
    outcome = Outcome.FAULT if isinstance(answer, Fault) else Outcome.DONE
    record = Record(
        pid,
        seq,
        str(call.__struct_config__.tag),
        write_call(call).digest,
        Effect.PURE,
        float(seq),
        Where.KERNEL,
        Outcome.OPEN if answer is None else outcome,
        ended_unix_s=seq + 0.5,
    )
    return Row(record, encode_call(call), b"" if answer is None else encode(answer))
