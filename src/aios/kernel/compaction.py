"""Compaction: makes a transcript fit into the window of a model, by the policy of its context.

The prompt is counted whole, by the engine, because its template decides what a message costs; how much must leave is found by
bisection. What leaves, and the note that stands for it, is decided by the pure `context/window.py`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from aios.abi.calls import Chat
from aios.abi.contexts import WindowPolicy
from aios.abi.types import Message, Role, Sampling, ToolSpec
from aios.config import ContextConfig
from aios.engine.base import Ability, ChatPrompt
from aios.errors import ContextWindowExceeded, TooLarge, Unsupported
from aios.kernel.clock import Clock
from aios.kernel.context.transcript import Item, Items, Rewrite, Transcript
from aios.kernel.context.window import (
    cut_out,
    estimated_tokens,
    pointer_note,
    removable,
    shown,
    summary_note,
    within,
    without,
)
from aios.kernel.cores import Core, Cores
from aios.kernel.llm import MOVING, ModelCalls
from aios.kernel.process import Run
from aios.kernel.router import Wish

OUTPUT_SHARE = 0.25
"""The most of a window that is kept free for an answer when the caller has no smaller `max_tokens`."""
SUMMARY_SHARE = 0.125
"""The most of a window that a summary takes: where the window is small, what must stay needs the rest."""
N_SUMMARY_TRIES = 4
"""Each try shows the model half as much of what leaves."""
INSTRUCTION = "Summarise the conversation below in a few plain sentences. Keep names, numbers, decisions and open tasks."
_SPEAKERS = {
    Role.USER: "User",
    Role.ASSISTANT: "Assistant",
    Role.TOOL: "Tool",
    Role.SYSTEM: "System",
}


class Aim(Struct, frozen=True):
    """What is to fit: the tools and model of the prompts, and the policy. `target_tokens` None: the configured share.

    The engine that counts is the one that would serve the call: it can do what that `needs`, and with `may_move` it is the one
    that the call would move to while that of the model is down.
    """

    policy: WindowPolicy
    model: str = ""
    tools: tuple[ToolSpec, ...] = ()
    target_tokens: int | None = None
    may_move: bool = True
    needs: frozenset[Ability] = frozenset()


@dataclass
class _Gauge:
    """Counts prompts as the engine does, or estimates them where it cannot."""

    core: Core
    tools: tuple[ToolSpec, ...]
    counting: Callable[[int], AbstractAsyncContextManager[None]]
    can_count: bool = True
    is_estimated: bool = False
    """Whether any count was no more than an estimate."""

    @property
    def window_tokens(self) -> int:
        """What a prompt and its answer may take together; 0 when nobody told us."""
        return self.core.offer.window_tokens if self.core.offer else 0

    async def count(self, items: Items) -> int:
        """Tokens of a prompt."""
        messages = shown(items)
        prompt = ChatPrompt(messages, self.tools)
        if self.can_count:
            try:
                async with self.counting(prompt.n_chars()):
                    with self.core.in_use() as engine:
                        return await engine.count_tokens(prompt)
            except TooLarge:  # than anybody counts, and than any window
                pass
            except (Unsupported, *MOVING):  # whether it is broken or busy is for the call to find
                self.can_count = False
        self.is_estimated = True
        return estimated_tokens(messages, sum(len(str(tool)) for tool in self.tools))


class Compactor:
    """Compacts transcripts; holds nothing itself."""

    def __init__(
        self, models: ModelCalls, cores: Cores, clock: Clock, config: ContextConfig
    ) -> None:
        self._models = models
        self._cores = cores
        self._clock = clock
        self._config = config

    async def fit(
        self, run: Run, transcript: Transcript, aim: Aim, *, max_tokens: int | None
    ) -> Transcript:
        """The transcript, compacted if it leaves too little of the window for an answer of `max_tokens`.

        Raises:
            ContextWindowExceeded: What must stay does not fit.
        """
        if aim.policy is WindowPolicy.NONE:
            return transcript
        gauge = await self._gauge(run, aim)
        if not gauge.window_tokens:
            return transcript
        n_free = int(gauge.window_tokens * OUTPUT_SHARE)
        limit = gauge.window_tokens - min(max_tokens or n_free, n_free)
        n_bytes = sum(item.size_bytes for item in transcript.items)  # no text has more tokens
        if not aim.tools and n_bytes <= limit:
            return transcript
        if await gauge.count(transcript.items) <= limit:
            return transcript
        target = min(self._target(gauge.window_tokens, aim), limit)
        return await self.compact(run, transcript, replace(aim, target_tokens=target))

    async def compact(self, run: Run, transcript: Transcript, aim: Aim) -> Transcript:
        """The transcript with less in its window; as it was if it is short enough, or nothing is gained.

        Raises:
            ContextWindowExceeded: What must stay does not fit into the window.
        """
        gauge = await self._gauge(run, aim)
        n_before = await gauge.count(transcript.items)
        window_tokens = gauge.window_tokens or n_before
        target = self._target(window_tokens, aim)
        if n_before <= target:
            return transcript
        items = transcript.items
        spans = removable(items)
        placeholder = self._placeholder(aim.policy, transcript, window_tokens)
        n_spans = await _fewest(gauge, items, placeholder, target=target)
        n_after = await gauge.count(without(items, spans[:n_spans], placeholder))
        if 0 < gauge.window_tokens <= n_after:
            raise ContextWindowExceeded(
                f"{n_after} tokens must stay in the context; the window of {gauge.core.model} holds {window_tokens}",
                hint="pin less, send less, or start with a larger engine.window_tokens",
            )
        if not spans:
            return transcript
        leaving = within(items, spans[:n_spans])
        note = await self._note(run, transcript, leaving, aim=replace(aim, target_tokens=target))
        n_after = await gauge.count(without(items, spans[:n_spans], note))
        if n_after >= n_before:  # the note is longer than what it stands for
            return transcript
        rewrite = Rewrite(
            aim.policy.value,
            len(leaving),
            note=note,
            n_tokens_before=n_before,
            n_tokens_after=n_after,
            is_estimated=gauge.is_estimated,
            unix_s=self._clock.unix_s(),
        )
        return cut_out(transcript, spans[:n_spans], rewrite)

    async def shorten(self, run: Run, transcript: Transcript, aim: Aim) -> Transcript:
        """The transcript after an engine has refused it, whatever we thought its length was: about half of it stays.

        Raises:
            ContextWindowExceeded: What must stay does not fit into the window.
        """
        gauge = await self._gauge(run, aim)
        n_tokens = await gauge.count(transcript.items)
        window_tokens = gauge.window_tokens or n_tokens
        target = int(min(n_tokens, window_tokens) * self._config.target_share)
        return await self.compact(run, transcript, replace(aim, target_tokens=max(target, 1)))

    async def _gauge(self, run: Run, aim: Aim) -> _Gauge:
        core = await self._cores.find(run, Wish(aim.model, aim.needs, aim.may_move))
        return _Gauge(core, aim.tools, partial(self._models.counting, run, core))

    def _target(self, window_tokens: int, aim: Aim) -> int:
        """How many tokens a compaction should leave."""
        return aim.target_tokens or int(window_tokens * self._config.target_share)

    def _summary_tokens(self, window_tokens: int) -> int:
        """How long a summary may become."""
        return max(1, min(self._config.summary_tokens, int(window_tokens * SUMMARY_SHARE)))

    def _placeholder(
        self, policy: WindowPolicy, transcript: Transcript, window_tokens: int
    ) -> Item | None:
        """A note as long as the real one will be."""
        if policy is WindowPolicy.SUMMARISE:
            return summary_note("word " * self._summary_tokens(window_tokens))
        if policy is WindowPolicy.PAGE_TO_MEMORY:
            return pointer_note(len(transcript.pages) + 1, transcript.items)
        return None

    async def _note(
        self, run: Run, transcript: Transcript, leaving: Items, *, aim: Aim
    ) -> Item | None:
        """What stands for the messages that leave."""
        if aim.policy is WindowPolicy.SUMMARISE:
            return summary_note(await self._summary(run, leaving, aim))
        if aim.policy is WindowPolicy.PAGE_TO_MEMORY:
            return pointer_note(len(transcript.pages) + 1, leaving)
        return None

    async def _summary(self, run: Run, leaving: Items, aim: Aim) -> str:
        """What the model makes of the messages that leave. Its turn is asked for at the lowest priority."""
        text = "\n".join(_told(item.message) for item in leaving)
        gauge = await self._gauge(run, replace(aim, needs=frozenset()))
        window_tokens = gauge.window_tokens or aim.target_tokens or 0
        n_summary = self._summary_tokens(window_tokens)
        n_chars = max(256, 3 * (window_tokens - n_summary))
        for i in range(N_SUMMARY_TRIES):
            call = Chat(
                messages=(
                    Message(Role.SYSTEM, INSTRUCTION),
                    Message(Role.USER, _clipped(text, n_chars >> i)),
                ),
                model=aim.model,
                sampling=Sampling(temperature=0.0, repeat_penalty=1.1, seed=0),
                max_tokens=n_summary,
                may_move=aim.may_move,
            )
            try:
                with _in_background(run):
                    return (await self._models.chat(run, call)).message.text()
            except ContextWindowExceeded:
                if i == N_SUMMARY_TRIES - 1:
                    raise
        raise AssertionError("the last try returns or raises")


async def _fewest(gauge: _Gauge, items: Items, note: Item | None, *, target: int) -> int:
    """How many spans must leave for the rest to fit; all of them if not even that is enough."""
    spans = removable(items)
    low, high = min(1, len(spans)), len(spans)
    while low < high:
        middle = (low + high) // 2
        if await gauge.count(without(items, spans[:middle], note)) <= target:
            high = middle
        else:
            low = middle + 1
    return high


def _told(message: Message) -> str:
    """A message as a summary is made of it, with what it calls."""
    calls = "".join(f" [calls {call.name}({call.arguments})]" for call in message.tool_calls)
    return f"{_SPEAKERS[message.role]}: {message.text()}{calls}"


def _clipped(text: str, n_chars: int) -> str:
    """The beginning and the end of a text that is too long."""
    half = n_chars // 2
    return text if len(text) <= n_chars else f"{text[:half]}\n[...]\n{text[-half:]}"


@contextmanager
def _in_background(run: Run) -> Iterator[None]:
    """Let a call make another one of which its caller sees nothing, at the lowest priority."""
    emit, run.emit = run.emit, None
    run.is_background = True
    try:
        yield
    finally:
        run.emit = emit
        run.is_background = False
