"""What a branch may do before it is committed."""

import pytest

from aios.abi import mail, memory, storage, tools
from aios.abi.calls import Shutdown
from aios.abi.every import AnyCall
from aios.abi.types import Pid
from aios.kernel.forking.confines import objection
from aios.kernel.journal.records import Effect

RUN = tools.ToolRun(name="t", arguments={})


@pytest.mark.parametrize(
    ("call", "effect", "may_act", "is_allowed"),
    [
        (storage.FileRead(path="a"), Effect.PURE, False, True),
        (storage.FileEdit(edits=(storage.Delete("a"),)), Effect.REVERSIBLE, False, True),
        (storage.FileShare(path="a", grantee="b"), Effect.REVERSIBLE, False, False),
        (mail.Send(to=Pid(1), body=""), Effect.COMPENSABLE, False, True),
        (mail.Send(to=Pid(2), body=""), Effect.COMPENSABLE, False, False),
        (memory.Remember(text="a"), Effect.REVERSIBLE, False, True),
        (memory.Remember(text="a", scope=memory.Scope.SHARED), Effect.REVERSIBLE, False, False),
        (RUN, Effect.REVERSIBLE, False, True),
        (RUN, Effect.COMPENSABLE, False, False),
        (RUN, Effect.IRREVERSIBLE, False, False),
        (RUN, Effect.IRREVERSIBLE, True, True),
        (Shutdown(), Effect.IRREVERSIBLE, True, False),
    ],
)
def test_a_branch_is_held_in(
    call: AnyCall, effect: Effect, *, may_act: bool, is_allowed: bool
) -> None:
    found = objection(call, effect, may_act=may_act, may_write_to=lambda pid: pid == 1)
    assert (found == "") == is_allowed, found


def test_what_nobody_thought_of_is_refused() -> None:
    class New:
        pass

    assert objection(New(), Effect.REVERSIBLE, may_act=True, may_write_to=lambda _: True)
    assert not objection(New(), Effect.PURE, may_act=False, may_write_to=lambda _: False)
