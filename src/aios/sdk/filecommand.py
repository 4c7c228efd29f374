"""Carries out commands about files in plain words: which calls are made, in which order, and what is said of it.

Each procedure is a generator that yields a call and is sent its answer (or has its error raised inside), so the async client and the
blocking one run the same. Every effect is a system call of the caller: what it may not do, no plan does for it.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from aios.abi.calls import Chat, ChatAnswer
from aios.abi.storage import (
    Append,
    Content,
    Copy,
    Delete,
    Edit,
    Edited,
    FileEdit,
    FilePurge,
    FileRead,
    FileRollback,
    Files,
    FileStat,
    FileVersion,
    Move,
    Purged,
    Put,
)
from aios.abi.types import Finish, JsonSchema, Message, Role, Sampling
from aios.errors import AccessDenied, AiosError, Conflict, InvalidCall, NotFound
from aios.sdk.filelookup import (
    N_SHOWN,
    Procedure,
    T,
    file_for_text,
    files_replaced,
    hits_for,
    sources_of,
    target_of,
)
from aios.sdk.filenames import Name, named_in
from aios.sdk.fileplan import (
    FOUND_BY_NAME,
    FOUND_EXACTLY,
    MAX_CLAUSES,
    MAX_COMMAND_CHARS,
    FilePlan,
    Menu,
    PlannedStep,
    Source,
    Wish,
    menu_of,
    only_wish,
    overlaps,
    question_of,
    schema_for,
    targets_of,
    wish_of,
)
from aios.sdk.filewords import (
    Clause,
    Do,
    clauses,
    held_back,
    is_loose,
    names_file,
    pattern_in,
    stray_in,
)
from aios.sdk.requests import build

if TYPE_CHECKING:
    from aios.abi.gate import Gate
    from aios.sdk.blocking import BlockingGate

PLAN_TOKENS = 400
PROMPT = (
    "Say what the user's command about files means, as JSON; choose from what is listed. "
    "Kinds: find (a question about files), move and copy (source to target), write and append (text to target).\n"
    "Command: put the budget report into archive\nSources: /shared/budget.md\nTargets: archive\n"
    '{"do": "move", "source": "/shared/budget.md", "target": "archive"}\n'
    'Command: is there a recipe for soup?\n{"do": "find"}'
)


class Outcome(Struct, frozen=True):
    """What came of a plan. `done` and the rest say only what the kernel has confirmed; `fault` is what ended it, if it did not end by itself."""

    plan: FilePlan
    done: tuple[str, ...] = ()
    versions: tuple[FileVersion, ...] = ()
    found: tuple[str, ...] = ()
    fault: str = ""

    @property
    def is_done(self) -> bool:
        """All of the plan was carried out."""
        return self.plan.is_ready and not self.fault and bool(self.done)


def planning(command: str, model: str) -> Procedure[FilePlan]:
    """A plan for a command; nothing is changed. A model is asked about what its words leave open, clause by clause.

    Raises:
        InvalidCall: The command is empty or too long, does not say enough, or the model made no plan of it.
    """
    if not command.strip() or len(command) > MAX_COMMAND_CHARS:
        raise InvalidCall(
            f"a command has 1 to {MAX_COMMAND_CHARS} characters", hint="say what to do"
        )
    asked = clauses(command)
    if len(asked) > MAX_CLAUSES:
        raise InvalidCall(
            f"the command asks for {len(asked)} things, the limit is {MAX_CLAUSES}",
            hint="say it in several commands",
        )
    if any(clause.kinds != (Do.FIND,) for clause in asked):
        _check_said(command)
    steps: list[PlannedStep] = []
    problems: list[str] = []
    for clause in asked:
        if clause.before and clause.kinds != (Do.FIND,):
            raise InvalidCall(
                f"`{clause.before}` stands before what is to be done and may change what is meant",
                hint="begin with what to do, as in `delete a.md`",
            )
        menu = yield from _menu(clause)
        wish = only_wish(menu)
        step = yield from _resolved(wish or (yield from _chosen(menu, model)), menu)
        if step.do is not Do.APPEND:
            there = yield from files_replaced(step.paths, targets_of(step))
            step = msgspec.structs.replace(step, replaces=there)
        is_found = step.why in FOUND_BY_NAME or not step.paths
        is_guess = step.do is not Do.FIND and not (wish and is_found)
        if step.do in (Do.WRITE, Do.APPEND):
            is_guess = is_guess or (yield from _may_be_other(step, clause, command))
        elif (
            Do.WRITE in clause.kinds
        ):  # who says `put` or `save` has said nothing of another's place
            is_guess = is_guess or bool(step.replaces)
        steps.append(msgspec.structs.replace(step, is_guess=is_guess))
        problems += yield from _problems(step)
        if step.replaces and (clause.is_new or step.do is Do.MOVE):
            problems.append(f"{step.replaces[0]} is there already")
    problems += overlaps(steps)
    return FilePlan(command, tuple(steps), tuple(problems))


def carrying_out(plan: FilePlan, *, consents: bool) -> Procedure[Outcome]:
    """Do what a plan says: all its edits or none of them, then what cannot be undone.

    Raises:
        Conflict: It is not ready; or it cannot be undone or is a guess, and nobody has consented.
    """
    if not plan.is_ready:
        raise Conflict(
            "the plan is not ready: " + "; ".join(plan.problems), hint="say it otherwise"
        )
    if plan.is_irreversible and not consents:
        raise Conflict("the plan cannot be undone", hint="look at it, and consent (--yes)")
    if plan.is_guess and not consents:
        raise Conflict(
            "the plan is a guess: a model made it, a file is meant by what is in it, or a text has no quotation marks, or `put` or `save` would take the place of a file",
            hint="look at it, and consent (--yes); or say the names of the files, and texts in quotation marks",
        )
    edits: list[Edit] = []
    for step in plan.steps:
        edits += _edits(step, is_in_line=(yield from _ends_in_line(step)))
    outcome = Outcome(plan, found=tuple(p for s in plan.steps if s.do is Do.FIND for p in s.paths))
    if outcome.found:
        outcome = _and(outcome, done=[f"found {path}" for path in outcome.found])
    try:
        if edits:
            edited = yield build(FileEdit, edits=tuple(edits), message=plan.command)
            assert isinstance(edited, Edited)
            outcome = _and(outcome, done=_told(edited), versions=edited.versions)
        for path in (path for step in plan.steps if step.do is Do.PURGE for path in step.paths):
            purged = yield from _purging(path, plan.command)
            outcome = _and(outcome, done=[f"purged {path}: {purged.n_versions} versions are gone"])
    except AiosError as error:
        return msgspec.structs.replace(outcome, fault=f"{error.code}: {error.message}")
    return outcome


def _purging(path: str, message: str) -> Procedure[Purged]:
    """Delete a file and all its versions. The purge of an agent waits for the owner, whose no brings the file back."""
    deleted = yield build(FileEdit, edits=(Delete(path=path),), message=message)
    assert isinstance(deleted, Edited)
    try:
        purged = yield build(FilePurge, path=path, keep=0)
        assert isinstance(purged, Purged)
        while purged.n_left:
            more = yield build(FilePurge, path=path, keep=0)
            assert isinstance(more, Purged)
            purged = purged.plus(more)
    except AiosError:
        with suppress(NotFound):  # part of it is purged; that the rest is not is what is told
            yield build(
                FileRollback, transaction=deleted.transaction, message=f"not purged: {message}"
            )
        raise
    return purged


def commanding(command: str, model: str, *, dry_run: bool, consents: bool) -> Procedure[Outcome]:
    """Plan, and carry it out if it is ready and may be."""
    plan = yield from planning(command, model)
    if dry_run or not plan.is_ready:
        return Outcome(plan, fault="" if dry_run else "; ".join(plan.problems) or "nothing to do")
    return (yield from carrying_out(plan, consents=consents))


async def drive(gate: "Gate", procedure: Procedure[T]) -> T:
    """Make the calls of a procedure."""
    try:
        call = next(procedure)
        while True:
            try:
                answer = (await gate.call(call)).value
            except AiosError as error:
                call = procedure.throw(error)
            else:
                call = procedure.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value


def drive_blocking(gate: "BlockingGate", procedure: Procedure[T]) -> T:
    """Make the calls of a procedure, and wait for each."""
    try:
        call = next(procedure)
        while True:
            try:
                answer = gate.call(call).value
            except AiosError as error:
                call = procedure.throw(error)
            else:
                call = procedure.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value


class FileCommands:
    """The methods of `client.files` for commands in plain words."""

    _gate: "Gate"

    async def plan(self, command: str, *, model: str = "") -> FilePlan:
        """What would be done for a command such as "move the travel notes to archive"; nothing is changed."""
        return await drive(self._gate, planning(command, model))

    async def carry_out(self, plan: FilePlan, *, consents: bool = False) -> Outcome:
        """Do what a plan says. `consents` allows what cannot be undone, and what is a guess."""
        return await drive(self._gate, carrying_out(plan, consents=consents))

    async def command(
        self, command: str, *, model: str = "", dry_run: bool = False, consents: bool = False
    ) -> Outcome:
        """Plan a command and carry it out, if it is clear and permitted; the outcome tells what really happened.

        Raises:
            Conflict: The plan cannot be undone or is a guess, and `consents` is false.
            InvalidCall: The model made no plan of it.
        """
        procedure = commanding(command, model, dry_run=dry_run, consents=consents)
        return await drive(self._gate, procedure)


class BlockingFileCommands:
    """`FileCommands` for code that waits; its methods say more."""

    _gate: "BlockingGate"

    def plan(self, command: str, *, model: str = "") -> FilePlan:
        """What would be done for a command; nothing is changed."""
        return drive_blocking(self._gate, planning(command, model))

    def carry_out(self, plan: FilePlan, *, consents: bool = False) -> Outcome:
        """Do what a plan says. `consents` allows what cannot be undone."""
        return drive_blocking(self._gate, carrying_out(plan, consents=consents))

    def command(
        self, command: str, *, model: str = "", dry_run: bool = False, consents: bool = False
    ) -> Outcome:
        """Plan a command and carry it out, if it is clear and permitted; the outcome tells what really happened."""
        procedure = commanding(command, model, dry_run=dry_run, consents=consents)
        return drive_blocking(self._gate, procedure)


# --- planning ----------------------------------------------------------------------------------------------------


def _check_said(command: str) -> None:
    """See that a command that changes files says what it means.

    Raises:
        InvalidCall: It has a pattern, quotation marks that do not pair, or says what is not to be done.
    """
    if pattern := pattern_in(command):
        raise InvalidCall(
            f"`{pattern}` is a pattern, and files are named in words here",
            hint="say the names, or `all files in FOLDER`; put it into quotation marks where it is a name or a text",
        )
    if stray := stray_in(command):
        raise InvalidCall(
            f"the quotation marks at `{stray}` do not say where a name or a text ends",
            hint='put others around them: \' around ", or " around `',
        )
    if word := held_back(command):
        raise InvalidCall(
            f"`{word}` says what is not to be done, or only perhaps; a command that changes files says what to do",
            hint=f"say it without `{word}`; put it into quotation marks where it is part of a name or a text",
        )


def _may_be_other(step: PlannedStep, clause: Clause, command: str) -> Procedure[bool]:
    """Whether a text may not be meant so: it stands without quotation marks and names a file, or would replace one that is told to be written by no word."""
    if not is_loose(step.text, command):
        return bool(step.replaces) and clause.kinds != (Do.WRITE,)
    if step.replaces or names_file(step.text):
        return True
    return (yield from sources_of(Name(step.text))).why in FOUND_EXACTLY


def _menu(clause: Clause) -> Procedure[Menu]:
    """What a clause may mean: its names are looked up. Without a verb, the files that its words name whole, or are most like."""
    if clause.kinds == (Do.FIND,):
        return menu_of(clause, [])
    if clause.is_open:
        hits = yield from hits_for(clause.words, N_SHOWN)
        paths = named_in(clause.words, hits) or [hit.path for hit in hits]
        return menu_of(clause, [Source(path, (path,), "as chosen") for path in paths])
    sources: list[Source] = []
    for name in clause.names:
        sources.append((yield from sources_of(name)))  # noqa: PERF401 - no comprehension can yield
    return menu_of(clause, sources)


def _chosen(menu: Menu, model: str) -> Procedure[Wish]:
    """What a model makes of a clause that leaves a choice."""
    answer = yield build(
        Chat,
        messages=(Message(Role.SYSTEM, PROMPT), Message(Role.USER, question_of(menu))),
        constraint=JsonSchema(schema_for(menu), "step"),
        sampling=Sampling(temperature=0.0),
        max_tokens=PLAN_TOKENS,
        model=model,
    )
    assert isinstance(answer, ChatAnswer)
    if answer.finish is Finish.LENGTH:
        raise InvalidCall(
            "the model's plan has no end", hint="say it shorter, or use another model"
        )
    return wish_of(answer.message.text(), menu)


def _resolved(wish: Wish, menu: Menu) -> Procedure[PlannedStep]:
    """A step with paths in the place of its words."""
    if wish.do in (Do.WRITE, Do.APPEND):
        target = yield from file_for_text(menu.places[wish.target])
        return PlannedStep(wish.do, wish.target, target=target, text=wish.text)
    if wish.do is Do.FIND:
        words = menu.clause.names[0].words
        hits = yield from hits_for(words, N_SHOWN)
        return PlannedStep(wish.do, words, tuple(hit.path for hit in hits), why="by content")
    source = menu.sources[wish.source]
    if wish.do is Do.PURGE and source.why not in FOUND_EXACTLY:  # never what is only like it
        source = Source(source.words, candidates=source.candidates or source.paths)
    target = ""
    if wish.target and source.paths:
        target = yield from target_of(menu.places[wish.target], source.paths)
    return PlannedStep(
        wish.do,
        source.words,
        source.paths,
        target=target,
        why=source.why,
        candidates=source.candidates,
    )


def _problems(step: PlannedStep) -> Procedure[list[str]]:
    """Why a step cannot be taken: nothing or too much is meant, or the caller may not."""
    if step.candidates:
        return [f"{step.words!r} could be {', '.join(step.candidates)}: say which"]
    if not step.paths and step.do not in (Do.WRITE, Do.APPEND):
        return [f"no file is {step.words!r}"]
    edits = [Delete(path=path) for path in step.paths] if step.do is Do.PURGE else _edits(step)
    if edits:
        try:
            yield build(FileEdit, edits=tuple(edits), is_trial=True)
        except AiosError as error:
            return [error.message]
    return []


# --- carrying out ------------------------------------------------------------------------------------------------


def _ends_in_line(step: PlannedStep) -> Procedure[bool]:
    """Whether the file that a step appends to has no end of a line at its end, as far as the caller may know."""
    if step.do is not Do.APPEND:
        return False
    try:
        there = yield build(FileStat, path=step.target)
        assert isinstance(there, Files)
        n_before = max(0, there.files[0].size_bytes - 1)
        last = yield build(FileRead, path=step.target, offset=n_before, length=1)
    except (AccessDenied, InvalidCall, NotFound):
        return False
    assert isinstance(last, Content)
    return bool(last.data) and not last.data.endswith(b"\n")


def _edits(step: PlannedStep, *, is_in_line: bool = False) -> list[Edit]:
    """The reversible edits of a step; what is appended to a file that `is_in_line` begins a new line."""
    match step.do:
        case Do.MOVE | Do.COPY:
            kind = Move if step.do is Do.MOVE else Copy
            pairs = zip(step.paths, targets_of(step), strict=True)
            return [kind(source=path, target=target) for path, target in pairs]
        case Do.DELETE:
            return [Delete(path=path) for path in step.paths]
        case Do.WRITE:
            return [Put(path=step.target, data=step.text.encode())]
        case Do.APPEND:
            begin = "\n" if is_in_line else ""
            return [Append(path=step.target, data=f"{begin}{step.text}\n".encode())]
        case Do.FIND | Do.PURGE:
            return []


def _told(edited: Edited) -> list[str]:
    """What an edit has changed, by the versions that the kernel made."""
    if not edited.versions:
        return ["nothing has changed: it was so already"]
    return [
        f"{each.path}: deleted"
        if each.size_bytes is None
        else f"{each.path}: version {each.version}, {each.size_bytes} bytes"
        for each in edited.versions
    ]


def _and(outcome: Outcome, *, done: list[str], versions: tuple[FileVersion, ...] = ()) -> Outcome:
    return msgspec.structs.replace(
        outcome, done=(*outcome.done, *done), versions=outcome.versions + versions
    )
