"""The calls about budgets. What they do is `kernel/spending.py`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aios.abi.call import Answer, Call
from aios.abi.types import Count, Pid

Limit = Annotated[int, Meta(ge=0, le=10**15)]
OnBreach = Literal["pause", "fail"]


class Limits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a process and all that it starts may spend together; None sets no limit.

    `calls` counts system calls that use a model, `tool_calls` runs of tools (each at the tool's `cost`), `money_micros` millionths of
    the currency in which the engines' prices are, `written_bytes` contents of files, `children` the descendants that may be alive at
    once, `wall_ms` the milliseconds during which one of them is alive and not stopped.
    """

    prompt_tokens: Limit | None = None
    completion_tokens: Limit | None = None
    calls: Limit | None = None
    children: Limit | None = None
    tool_calls: Limit | None = None
    money_micros: Limit | None = None
    written_bytes: Limit | None = None
    wall_ms: Limit | None = None


class Spent(Struct, frozen=True):
    """Amounts of what can be spent; of `children` only what is alive counts, so it is held and never spent."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    calls: Count = 0
    children: Count = 0
    tool_calls: Count = 0
    money_micros: Count = 0
    written_bytes: Count = 0
    wall_ms: Count = 0


class BudgetInfo(Answer, frozen=True):
    """The budget of a process: its own limits, what was spent, what running calls hold, and what is really left.

    `left` counts the limits of all above it as well; None is without limit.
    """

    pid: Pid
    limits: Limits
    on_breach: OnBreach
    spent: Spent
    held: Spent
    left: Limits


class Budget(Call[BudgetInfo], frozen=True):
    """Ask for the budget of a process, which covers all that it has started."""

    pid: Pid


class SetBudget(Call[BudgetInfo], frozen=True, tag="set_budget"):
    """Set the limits of a process and all that it starts; limits that are not given are lifted.

    A process may set the budget of its descendants, not its own. Before a call that uses a model its worst case is reserved, here
    and at all above it. What does not fit is not begun: with `pause` the process is stopped until its owner has given more (`approval_answer`) or somebody lets it
    go on (`cont`), with `fail`, or when the owner says no, the call fails with `BudgetExceeded`. When `wall_ms` is over, all that is at work is stopped, whatever is to be done on a breach.

    Raises:
        AccessDenied: The process is the caller itself, or not its descendant.
    """

    pid: Pid
    limits: Limits
    on_breach: OnBreach = "pause"
