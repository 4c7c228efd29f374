"""What a generation has brought, and how much of that its process was told of and its turns were charged."""

from dataclasses import dataclass, field

from msgspec.structs import replace

from aios.abi.gate import Token
from aios.abi.types import Finish, TokenLogprob, ToolCall, Usage
from aios.engine.base import Delta
from aios.kernel.journal.streams import Stream
from aios.kernel.process import Run


@dataclass
class Output:
    """What a generation has brought so far."""

    text: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    n_tokens: int = 0
    finish: Finish | None = None
    usage: Usage = Usage()
    """Of all of it, known at the end."""
    usage_so_far: Usage = Usage()
    pages: tuple[bytes, ...] = ()
    is_begun: bool = False
    """An engine was given the job: its prompt may have been computed."""
    stream: Stream | None = None
    """Where it is journalled in pieces."""
    is_handed_out: bool = False
    """Somebody has seen a part of it: it cannot be begun anew."""
    unsaid: list[Delta] = field(default_factory=list)
    """What came while its process was stopped: it is told of that once it goes on."""

    @property
    def is_done(self) -> bool:
        """The generation has ended."""
        return self.finish is not None

    def spent(self) -> Usage | None:
        """Tokens so far; those of the prompt are known at the end. None if it was never begun."""
        if not self.is_begun:
            return None
        return self.usage if self.is_done else Usage(completion_tokens=self.n_tokens)

    def n_uncharged(self, n_prompt: int) -> int:
        """Tokens of the prompt that were computed and no turn was charged: of a call that was cut off all that are new.

        `n_prompt` where nobody has told how many those are. 0 if it was never begun.
        """
        if self.is_done or not self.is_begun:
            return 0
        so_far = self.usage_so_far
        return so_far.prompt_tokens - so_far.cached_tokens if so_far.prompt_tokens else n_prompt

    def n_used(self, n_prompt: int) -> int:
        """Tokens that count against the limits of a key; `n_prompt` of the prompt until that is known. 0 if never begun."""
        spent = self.spent()
        if spent is None:
            return 0
        return max(1, (spent.prompt_tokens or n_prompt) + spent.completion_tokens)

    def uncounted(self) -> Usage:
        """What its process has not been told of yet: all but the tokens that were counted as they came."""
        if not self.is_done:
            return replace(self.usage_so_far, completion_tokens=0)
        rest = self.usage.completion_tokens - self.n_tokens
        return replace(self.usage, completion_tokens=rest)

    def add(self, delta: Delta) -> None:
        """Take in the next piece."""
        if delta.text:
            self.text.append(delta.text)
        self.tool_calls.extend(delta.tool_calls)
        self.logprobs.extend(delta.logprobs)
        self.n_tokens += delta.n_tokens
        if delta.finish is not None:
            self.finish = delta.finish
            self.usage = delta.usage or Usage()
            self.pages = delta.pages

    def say(self, run: Run) -> None:
        """Hand on what is unsaid, unless the process is stopped."""
        if run.process.is_stopped:
            return
        unsaid, self.unsaid = self.unsaid, []
        for delta in unsaid:
            if self.stream is not None:
                self.stream.add(delta)
            if run.emit is not None and (delta.text or delta.tool_calls or delta.logprobs):
                self.is_handed_out = True
                run.emit(Token(delta.text, delta.n_tokens, delta.logprobs, delta.tool_calls))
