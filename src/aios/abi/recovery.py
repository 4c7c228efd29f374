"""What becomes of processes that ended before they were done, and the calls by which programs stay repeatable.

What they do is `kernel/programs.py`; docs/guides/recovery.md tells how it fits together.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call
from aios.abi.types import Pid

RestartPolicy = Literal["with-parent", "never", "on-failure", "always"]
OnDivergence = Literal["stop", "fresh", "live"]
Choice = Literal["replay", "fresh", "again", "done", "end"]


class Restart(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a program is started again when it, or the kernel, ended before it was done: `[restart]` of `agent.toml`.

    `on-failure`: when it crashed or the kernel ended, with its calls answered from the journal up to where it was. `always`: also
    when it is done, from the beginning. `with-parent`: when the kernel ended, and the program that spawned it is started again; so a
    team comes back whole when the one who leads it does. After a crash it waits `delay_s`, twice as long each time up to a minute, and is given
    up after `max_restarts` crashes in a row. `on_divergence` says what happens when it asks otherwise than before: `stop` ends it,
    `fresh` starts it from the beginning, `live` goes on from there without what is left of its journal.
    """

    policy: RestartPolicy = "with-parent"
    max_restarts: Annotated[int, Meta(ge=0, le=1_000)] = 5
    delay_s: Annotated[float, Meta(gt=0, le=3_600)] = 1.0
    on_divergence: OnDivergence = "stop"


class Moment(Answer, frozen=True):
    """A time, in seconds since 1970 UTC."""

    unix_s: float


class Now(Call[Moment], frozen=True):
    """Ask what time it is. A program that is replayed is told the same again, which its own clock would not."""


class RandomBytes(Answer, frozen=True):
    """Bytes that nobody can foresee."""

    data: bytes


class DrawBytes(Call[RandomBytes], frozen=True, tag="random"):
    """Ask for random bytes. A program that is replayed gets the same again."""

    n_bytes: Annotated[int, Meta(ge=1, le=4_096)] = 16


class Question(Answer, frozen=True):
    """Why a process is not started, and the answers that there are."""

    pid: Pid
    name: str
    why: str
    choices: tuple[Choice, ...]


class QuestionList(Answer, frozen=True):
    """The processes that wait for an answer of the owner's or an ancestor's."""

    questions: tuple[Question, ...]


class Questions(Call[QuestionList], frozen=True):
    """List the processes that were not started again because nobody but their owner can know what is right."""


class AnswerQuestion(Call[Question], frozen=True, tag="answer_question"):
    """Decide what happens to a process that was not started again; the owner may answer the same among the approvals.

    `replay`: start it as it is, its calls answered from the journal. `again`: the same, and what was cut off is done again.
    `done`: the same, and what was cut off is taken as done: the program gets the fault `outcome_unknown` for it. `fresh`: from the
    beginning. `end`: not at all.

    Raises:
        Conflict: Nothing is asked about that process, or this is no answer to it.
    """

    pid: Pid
    choice: Choice
