"""What a branch may do before it is committed: nothing that could be seen or could stay when it is discarded. Pure.

Paths are judged by the storage manager (`Reach.is_confined`), where they are canonical; all else here. What is not
named is refused, so that a new call is held in until somebody says that it leaves nothing.
"""

from collections.abc import Callable

from aios.abi import branches, contexts, interactions, mail, memory, storage, tools
from aios.abi.budget import SetBudget
from aios.abi.calls import Cont, ExitSelf, Kill, Log, Nice, SendSignal, Spawn, Stop
from aios.abi.fork import Fork
from aios.abi.types import Pid
from aios.kernel.journal.records import Effect

INSIDE = (
    *(Spawn, Fork, Kill, Stop, Cont, SendSignal, Nice, ExitSelf, Log, SetBudget),
    *(branches.Branch, branches.BranchCommit, branches.BranchDiscard),
    *(mail.Receive, mail.Subscribe, interactions.MemoryLog),
    *(contexts.ContextOpen, contexts.ContextAppend, contexts.ContextFork, contexts.ContextClose),
    *(contexts.ContextCompact, contexts.ContextUndo, contexts.ContextFault, contexts.ContextRestore),
    *(storage.FileEdit, storage.FileDraft, storage.FileRollback, storage.FileLock, storage.FileUnlock),
    *(tools.ToolRegister, tools.ToolUnregister, tools.ToolTake, tools.ToolReturn),
)  # fmt: skip
"""Calls with an effect that ends with the branch, or reaches only itself and its descendants."""
OWN_SCOPES = (memory.Scope.PROCESS, memory.Scope.AGENT)


def objection(
    call: object, effect: Effect, *, may_act: bool, may_write_to: Callable[[Pid], bool]
) -> str:
    """Why a branch may not make a call; empty: it may.

    Args:
        call: The call.
        effect: What it does to the world.
        may_act: Tools may do what cannot be taken back.
        may_write_to: Whether a process is within the branch or above it.
    """
    if effect is Effect.PURE or isinstance(call, INSIDE):
        return ""
    match call:
        case mail.Send():
            return (
                "" if may_write_to(call.to) else "writes mail only to those above it and within it"
            )
        case memory.Remember():
            return (
                "" if call.scope in OWN_SCOPES else f"keeps no note of scope `{call.scope.value}`"
            )
        case tools.ToolRun():
            if may_act or effect is Effect.REVERSIBLE:
                return ""
            return f"runs no tool whose effect is {effect.value} (`{call.name}`)"
        case _:
            return "does not do that"
