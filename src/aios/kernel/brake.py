"""The loop brake: stops a process that asks a model or a tool the same again and again, and is told the same.

Kinds of calls are counted apart: between two runs of the same tool an agent asks its model, each time with a longer conversation. Calls
of a kind side by side do not count, for to ask the same many times at once is how samples are drawn. Cheap calls, with which programs
poll, do not count either. The idea is that of the stuck detector in OpenHands (arXiv 2407.16741).
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import msgspec
from msgspec import Struct

from aios.abi.call import Answer
from aios.abi.calls import ChatAnswer, CompleteAnswer
from aios.abi.tools import ToolResult
from aios.abi.types import Pid
from aios.config import KernelConfig
from aios.errors import AiosError, NoProgress
from aios.kernel.process import INIT_PID, Process, Run

DIGEST_BYTES = 16


class LoopBrake(Struct, frozen=True):
    """Counts what processes repeat, and stops them.

    Args:
        limits: How often, and what happens then.
        pause: Holds a process, in the middle of a call of its own, and writes down why.
        tell: Tells those who watch what became of a process.
    """

    limits: KernelConfig
    pause: Callable[[Process, str], None]
    tell: Callable[[Pid, str, str], None]

    def is_on(self, run: Run) -> bool:
        """Whether a call counts: one of a process that makes no other of its kind meanwhile; the owner's are its own business."""
        process = run.process
        is_alone = all(each is run or each.name != run.name for each in process.runs.values())
        return self.limits.max_repeats > 0 and process.pid != INIT_PID and is_alone

    def check(self, run: Run, digest: bytes) -> None:
        """Before a call is made: hold its process, or refuse it, if it brought nothing new too often.

        Raises:
            NoProgress: It did, and the configuration says that it fails.
        """
        repeats = run.process.repeats.get(run.name)
        if repeats is None or digest != repeats.call or repeats.n < self.limits.max_repeats:
            return
        why = f"{run.name} was asked {repeats.n} times in a row and told the same each time"
        self.tell(run.process.pid, "braked", why)
        if self.limits.on_repeat == "fail":
            raise NoProgress(why, hint="ask something else; kernel.max_repeats is the limit")
        del run.process.repeats[run.name]
        run.detail = f"{run.detail} in a loop".strip()
        self.pause(run.process, f"{why}; `aios cont {run.process.pid}` lets it go on")

    def note(self, run: Run, digest: bytes, told: Answer | AiosError) -> None:
        """After a call: count it. Cost: that of a digest of the answer, where the call was a repetition."""
        repeats = run.process.repeats.get(run.name)
        if repeats is None or repeats.call != digest:
            run.process.repeats[run.name] = Repeats(digest)
            return
        repeats.add(_digest_of(told))


@dataclass(slots=True)
class Repeats:
    """The last call of a kind that a process made, and how often it was answered alike in a row."""

    call: bytes
    answer: bytes = b""
    """Not known of the first one, which nearly always stays the only one."""
    n: int = 1

    def add(self, answer: bytes) -> None:
        """The call was made again."""
        self.n = self.n + 1 if self.answer in (b"", answer) else 1
        self.answer = answer


def _digest_of(told: Answer | AiosError) -> bytes:
    """The digest of what an answer says: not of what it cost, nor of the ids of its tool calls."""
    said: object = told
    if isinstance(told, ChatAnswer):
        message = told.message
        said = (message.text(), [(call.name, call.arguments) for call in message.tool_calls])
    elif isinstance(told, CompleteAnswer | ToolResult):
        said = told.text
    elif isinstance(told, AiosError):
        said = (told.code, told.message)
    return blake2b(msgspec.msgpack.encode(said), digest_size=DIGEST_BYTES).digest()
