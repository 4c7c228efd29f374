"""The access manager: one check for every system call, on every path.

A right is what a process has from its parent; a policy says what it may do with it. Both must agree.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from msgspec import Struct

from aios.abi.access import Decision, Principal, Request, Resource, Verdict
from aios.abi.call import Answer, Call
from aios.abi.types import Right
from aios.errors import AccessDenied
from aios.kernel.access.policy import Policies, digest_of
from aios.kernel.access.policyfiles import profile_source
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.process_table import ProcessTable

OnAsk = Callable[[Run, Request, Decision], Awaitable[None]]
"""Lets a human decide: returns if it is allowed, raises `AccessDenied` if not."""

BY_PATH = frozenset({Right.FILE_READ, Right.FILE_WRITE})
"""Rights whose policies are asked about each path, where the storage manager has made it canonical."""
RESTRAINING = frozenset({"kill", "signal", "exit", "shutdown"})
"""Calls that only hold back: nobody is asked for them, whatever has reached who makes them."""
LEAVING = "exit"
KERNEL = Resource()
HIDDEN = "(hidden)"
MAX_SHOWN_CHARS = 16 << 10
"""What a human is shown of the arguments of a call."""
SHORTER_CHARS = (4096, 1024, 256, 64)
"""To so much each text in them is cut, one after the other, until they fit."""
SHARE_CHARS = (2048, 512, 128, 32)
"""The same of each argument as a whole, where it is what lies in one another or is called that is long."""


class Act(Struct, frozen=True):
    """What a call does with its right: an answer of a human's is for exactly this call."""

    call: Call[Answer]
    effect: str = "pure"
    resource: Resource | None = None
    """On what; None: the target, or the kernel."""
    look: Callable[[], Awaitable[None]] | None = None
    """Raises if there is nothing to be done, before a human is asked."""

    @property
    def is_leaving(self) -> bool:
        """It ends its own process: a policy may forbid that, but nobody is kept waiting for a yes."""
        return self.call.__struct_config__.tag == LEAVING

    @property
    def is_restraining(self) -> bool:
        """It only holds back."""
        return self.call.__struct_config__.tag in RESTRAINING


class AccessManager:
    """Decides whether a process may use a right, and on what.

    Besides init, a process reaches only itself and its descendants.
    """

    def __init__(self, table: ProcessTable, policies: Policies | None = None) -> None:
        """Make it. Without policies those of the profile `workspace` hold."""
        self._table = table
        self.policies = policies or Policies([profile_source("workspace")])
        self.on_ask: OnAsk | None = None
        """Set by whoever can ask a human; until then what would be asked is denied."""
        self._n_checks = 0
        self._n_denied = 0
        self._n_asked = 0

    def check(self, process: Process, right: Right, target: Process | None = None) -> None:
        """Return if it is allowed without a question.

        Raises:
            AccessDenied: It is not; the message says which right is lacking and where, or which policy is against it.
        """
        request = self.request(process, right, target)
        if request is not None:
            self._require(process, request, self.decide(process, request))

    async def admit(
        self, run: Run, right: Right, target: Process | None = None, *, act: Act | None = None
    ) -> None:
        """As `check`, for a call in flight: waits for a human where a policy says so.

        Raises:
            AccessDenied: It is not allowed.
        """
        request = self.request(run.process, right, target, act)
        if request is None:
            return
        decision = self.decide(run.process, request)
        if decision.verdict is Verdict.ASK and act is not None:
            if act.is_leaving:
                return
            if act.look is not None:
                await act.look()
            fields = fields_of(act.call)
            run.shown = partial(shown, _without_env(fields))
            request = msgspec.structs.replace(request, digest=digest_of(fields))
        await self._conclude(run, request, decision)

    async def admit_request(self, run: Run, request: Request, digest: Callable[[], str]) -> None:
        """Return if the policies allow a request of a call in flight, or a human does; `digest` is what his answer is bound to.

        Raises:
            AccessDenied: It is not allowed.
        """
        decision = self.decide(run.process, request)
        if decision.verdict is Verdict.ASK:
            request = msgspec.structs.replace(request, digest=digest())
        await self._conclude(run, request, decision)

    async def _conclude(self, run: Run, request: Request, decision: Decision) -> None:
        is_asked = request.action != Right.APPROVE.value  # else who answers would wait for himself
        if decision.verdict is Verdict.ASK and self.on_ask is not None and is_asked:
            self._n_asked += 1
            await self.on_ask(run, request, decision)
        else:
            self._require(run.process, request, decision)

    def request(
        self, process: Process, right: Right, target: Process | None, act: Act | None = None
    ) -> Request | None:
        """What the policies are asked for the use of a right; None: they are asked later, path by path.

        Raises:
            AccessDenied: The process lacks the right, or does not reach the target.
        """
        self._n_checks += 1
        if right not in process.rights:
            self._n_denied += 1
            raise AccessDenied(
                f"process {process.pid} ({process.name}) has no right `{right.value}`",
                hint="a right can only come from its parent; the owner's token has all of them",
            )
        if target is not None and not self.may_reach(process, target):
            self._n_denied += 1
            raise AccessDenied(
                f"process {process.pid} ({process.name}) may not use `{right.value}` on process {target.pid}",
                hint="a process reaches only itself and its descendants",
            )
        effect = act.effect if act is not None else "pure"
        is_tainted = process.taint is not None and not (act is not None and act.is_restraining)
        if act is not None and act.resource is not None:
            return Request(right.value, act.resource, effect, is_tainted)
        if right in BY_PATH:
            return None
        if target is None:
            return Request(right.value, KERNEL, effect, is_tainted)
        about = Resource("Process", target.name)
        return Request(right.value, about, effect, is_tainted, is_own=True)

    def decide(self, process: Process, request: Request) -> Decision:
        """What the policies say to a process; nothing is counted or asked."""
        asking = process.bounds or (principal_of(process),)
        like = self.policies.like_agents(asking)
        decision = self.policies.decide(like, request)
        if decision.is_allowed or like == asking:
            return decision
        return self.policies.decide(asking, request)

    def like_path(self, path: str, *, is_write: bool) -> str:
        """A path, by a made-up name, that the policies allow exactly if they allow this one: one answer serves all files of a folder."""
        right = Right.FILE_WRITE if is_write else Right.FILE_READ
        return self.policies.like(right.value, path)

    def judge_path(self, process: Process, path: str, *, is_write: bool) -> Decision:
        """What the policies say to the use of a path, which is in canonical form."""
        right = Right.FILE_WRITE if is_write else Right.FILE_READ
        effect = "reversible" if is_write else "pure"
        is_tainted = process.taint is not None
        like = Resource("Path", self.like_path(path, is_write=is_write))
        decision = self.decide(process, Request(right.value, like, effect, is_tainted))
        if decision.is_allowed or like.id == path:
            return decision
        about = Resource("Path", path)
        return self.decide(process, Request(right.value, about, effect, is_tainted))

    def may_reach(self, process: Process, target: Process) -> bool:
        """Whether `target` is in the part of the tree that `process` rules."""
        return process.pid == INIT_PID or self._table.is_within(target, process)

    def may_turn_to(self, process: Process, target: Process) -> bool:
        """Whether `process` may write to `target` and run its tools, as far as the policies let it: it is of the same owner, or one that it rules."""
        return process.owner == target.owner or self.may_reach(process, target)

    def may_write_to(self, process: Process, target: Process) -> bool:
        """Whether the policies let `process` send mail to `target`, and nobody need be asked."""
        about = Resource("Process", target.name)
        is_tainted = process.taint is not None
        request = Request(Right.MAIL.value, about, "compensable", is_tainted)
        return self.decide(process, request).is_allowed

    def statistics(self) -> dict[str, int]:
        """How many checks there were, how many failed, and how often a human was asked."""
        return {"n_checks": self._n_checks, "n_denied": self._n_denied, "n_asked": self._n_asked}

    def _require(self, process: Process, request: Request, decision: Decision) -> None:
        if decision.is_allowed:
            return
        self._n_denied += 1
        raise AccessDenied(
            f"process {process.pid} ({process.name}) may not use `{request.action}`"
            f" on {request.resource.type} {request.resource.id}: {'; '.join(decision.reasons)}",
            hint=hint_for(decision),
        )


def fields_of(call: Call[Answer]) -> dict[str, object]:
    """A call as plain values, without its deadline: that is no part of what is asked for."""
    fields = msgspec.structs.asdict(call)  # with what has its default, which encoding leaves out
    del fields["deadline_s"]
    plain: dict[str, object] = msgspec.to_builtins(fields)
    return {"call": call.__struct_config__.tag, **plain}


def shown(fields: dict[str, object]) -> str:
    """What a human reads who is asked: a long value must not push the others out of sight."""
    text = msgspec.json.encode(fields).decode()
    for longest in SHORTER_CHARS:
        if len(text) <= MAX_SHOWN_CHARS:
            return text
        text = msgspec.json.encode(_shortened(fields, longest)).decode()
    for longest in SHARE_CHARS:
        if len(text) <= MAX_SHOWN_CHARS:
            return text
        shares = {
            _cut(name, longest): _cut(msgspec.json.encode(value).decode(), longest)
            for name, value in fields.items()
        }
        text = msgspec.json.encode(shares).decode()
    return text


def _without_env(fields: dict[str, object]) -> dict[str, object]:
    """What a program's environment holds is nobody's to read; what a tool calls so is seen."""
    env = fields.get("env")
    return {**fields, "env": dict.fromkeys(env, HIDDEN)} if isinstance(env, dict) else fields


def _cut(text: str, longest: int) -> str:
    """A text of which what is left out is counted."""
    more = len(text) - longest
    return text if more <= 0 else f"{text[:longest]}... (and {more} characters more)"


def _shortened(value: object, longest: int) -> object:
    """A value in which no text and no list is longer; what is left out is counted."""
    match value:
        case str():
            return _cut(value, longest)
        case list() | tuple():
            more = [f"... (and {len(value) - longest} more)"] if len(value) > longest else []
            return [*(_shortened(each, longest) for each in value[:longest]), *more]
        case dict():
            return {name: _shortened(each, longest) for name, each in value.items()}
        case _:
            return value


def hint_for(decision: Decision) -> str:
    """What can be done about a decision that is not `allow`."""
    if decision.verdict is Verdict.ASK:
        return "nobody can be asked here; permit it in a file of AIOS_HOME/policies, see docs/concepts/access.md"
    return "`aios policy explain` shows which policies decide"


def principal_of(process: Process) -> Principal:
    """A process as policies see it."""
    return Principal(process.name, process.owner, process.kind.value, process.program)


def bounds_of(process: Process, parent: Process) -> tuple[Principal, ...]:
    """Whose policies a new process is under: those of all that stand between it and init, and its own."""
    own = principal_of(process)
    above = parent.bounds if parent.pid != INIT_PID else ()
    return (*(each for each in above if each != own), own)
