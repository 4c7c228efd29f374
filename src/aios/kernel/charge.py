"""What a generation may spend at most, reserved for as long as it runs, and what it has spent, booked at its end."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import ceil

from msgspec.structs import replace

from aios.abi.types import Usage
from aios.engine.base import Ability, ChatPrompt, Engine, Job, TextPrompt
from aios.errors import CallerError, RateLimited
from aios.kernel.budget import Good
from aios.kernel.cores import Core
from aios.kernel.process import Run
from aios.kernel.spending import Budgets

SPECIAL_TOKENS = 2
"""What a tokenizer adds around a plain text, at most."""
UNKNOWN_WINDOW_TOKENS = 1 << 20
"""What an output may take where nobody has told us the window."""
MESSAGE_TOKENS = 64
"""More than any template known adds to a message; for engines whose tokenizer is elsewhere."""


Counting = Callable[[Run, Core, int], AbstractAsyncContextManager[None]]
"""Waits until a text of so many characters may be counted for somebody."""


@asynccontextmanager
async def charged(
    budgets: Budgets,
    run: Run,
    core: Core,
    job: Job,
    *,
    counting: Counting,
    used: Callable[[], Usage | None],
) -> AsyncIterator[Job]:
    """Hold the worst case of a generation while the block runs, then book `used()`; None says that it was never begun.

    A generation that is refused before its first token costs nothing.

    A job without `max_tokens` gets what is left of the budget, so that it ends there with finish `length` instead of being
    refused for what it might have filled. On an engine whose tokenizer is elsewhere the prompt is reserved by its bytes.

    Raises:
        BudgetExceeded: The worst case does not fit, and the budget says `fail`.
    """
    worst: dict[Good, int] = {}
    n_most = 0
    if budgets.is_limited(run.process):
        prompt = job.prompt
        n_chars = prompt.n_chars() if isinstance(prompt, ChatPrompt) else len(prompt.text)
        async with counting(run, core, n_chars):
            with core.in_use() as engine:
                n_prompt = await _n_prompt(engine, prompt)
                n_most = _n_most(engine, job, n_prompt)
        n_paid = n_most
        if job.max_tokens is None:
            n_paid = _n_affordable(
                core, n_prompt, n_most, left=budgets.left(run.process, Good.MONEY)
            )
        worst = _cost(core, n_prompt, n_paid)
    elastic = Good.COMPLETION_TOKENS if job.max_tokens is None else None
    reservation = await budgets.reserve(run, worst, elastic=elastic)
    was_refused = False
    try:
        n_held = reservation.amounts.get(Good.COMPLETION_TOKENS, 0)
        is_cut = n_held < n_most
        yield replace(job, max_tokens=n_held) if is_cut else job
    except (CallerError, RateLimited):
        spent = used()
        was_refused = spent is None or not spent.completion_tokens
        raise
    finally:
        usage = None if was_refused else used()
        budgets.settle(reservation, _booked(core, usage, worst) if usage is not None else {})


@asynccontextmanager
async def charged_texts(
    budgets: Budgets, run: Run, core: Core, texts: tuple[str, ...], *, counting: Counting
) -> AsyncIterator[Callable[[], None]]:
    """Hold the tokens of texts that are turned into vectors, and book them once the block has called what it is given.

    It calls that when an engine gets the texts: what comes of them then is no matter, they may have been computed.

    Raises:
        BudgetExceeded: They do not fit, and the budget says `fail`.
    """
    n_tokens = 0
    if budgets.is_limited(run.process):
        for text in texts:
            async with counting(run, core, len(text)):
                with core.in_use() as engine:
                    n_tokens += await _n_prompt(engine, TextPrompt(text))
    amounts = _cost(core, n_tokens, 0)
    reservation = await budgets.reserve(run, amounts)
    spent: dict[Good, int] = {}
    try:
        yield lambda: spent.update(amounts)
    finally:
        budgets.settle(reservation, spent)


def _booked(core: Core, usage: Usage, worst: Mapping[Good, int]) -> dict[Good, int]:
    """What a generation has spent; one that was cut off is charged its whole prompt, for it may have been computed."""
    n_prompt = usage.prompt_tokens or worst.get(Good.PROMPT_TOKENS, 0)
    return _cost(core, n_prompt, usage.completion_tokens)


def _cost(core: Core, n_prompt: int, n_completion: int) -> dict[Good, int]:
    """What a call takes of each good; money is rounded up, so what is booked is never more than was held."""
    price = core.config
    money = ceil(n_prompt * price.prompt_price + n_completion * price.completion_price)
    amounts = {
        Good.PROMPT_TOKENS: n_prompt,
        Good.COMPLETION_TOKENS: n_completion,
        Good.CALLS: 1,
        Good.MONEY: money,
    }
    return {good: amount for good, amount in amounts.items() if amount or good is not Good.MONEY}


def _n_affordable(core: Core, n_prompt: int, n_most: int, *, left: int | None) -> int:
    """How long an output may become for the money that is left, at least one token."""
    price = core.config
    if left is None or not price.completion_price:
        return n_most
    rest = left - n_prompt * price.prompt_price
    return max(1, min(n_most, int(rest // price.completion_price)))


def _n_most(engine: Engine, job: Job, n_prompt: int) -> int:
    """The longest output that the engine can bring."""
    window_tokens = engine.capabilities.window_tokens
    room = max(1, window_tokens - n_prompt) if window_tokens else UNKNOWN_WINDOW_TOKENS
    return room if job.max_tokens is None else min(job.max_tokens, room)


async def _n_prompt(engine: Engine, prompt: ChatPrompt | TextPrompt) -> int:
    """The tokens of a prompt, or a bound of them where the tokenizer is not here."""
    if Ability.TOKENIZE in engine.capabilities.abilities:
        if isinstance(prompt, ChatPrompt):
            return await engine.count_tokens(prompt)
        return len(await engine.tokenize(prompt.text)) + SPECIAL_TOKENS
    if isinstance(prompt, TextPrompt):
        return _bytes(prompt.text) + SPECIAL_TOKENS
    texts = [message.text() for message in prompt.messages]
    texts += [call.arguments for message in prompt.messages for call in message.tool_calls]
    texts += [f"{tool.name} {tool.description} {tool.parameters}" for tool in prompt.tools]
    return sum(_bytes(text) + MESSAGE_TOKENS for text in texts)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
