from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import apsw
import msgspec
import pytest
from tests.kernel.test_resume import daemon
from tests.kernel.test_resume import owner as owner_of
from tests.kernel.tools.offering import declared, echo, idle, offer

from aios.abi.approvals import Approval, ApprovalAnswer, ApprovalList, ApprovalState
from aios.abi.budget import Limits
from aios.abi.recovery import AnswerQuestion, Choice, Restart
from aios.abi.storage import FilePurge
from aios.abi.tools import ToolRun, Traits
from aios.abi.types import Pid, State
from aios.config import ApprovalsConfig, Config, EngineConfig, Home, ServerConfig
from aios.configload import Loaded
from aios.disk.connection import connect
from aios.engine.scripted import ScriptedEngine
from aios.errors import (
    AccessDenied,
    ApprovalDenied,
    ApprovalExpired,
    Conflict,
    DeadlineExceeded,
    InvalidCall,
    ResourceExhausted,
    Unsupported,
)
from aios.kernel import residents
from aios.kernel.approvals import tables
from aios.kernel.gate import LocalGate
from aios.kernel.journal.audit import tables as audit
from aios.kernel.journal.records import Effect, Outcome, Record
from aios.kernel.journal.tables import save
from aios.kernel.journal.texts import write_call
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.sandbox.scratch import scratch_folder
from aios.kernel.waitqueue import WaitQueue
from aios.sdk import blocking
from aios.sdk.client import Client
from aios.server.daemon import open_server

pytestmark = pytest.mark.anyio

FINAL = Traits(effect="irreversible")
ASKING = ApprovalsConfig()


@asynccontextmanager
async def kernel_with_launcher(
    home: Path, config: ApprovalsConfig = ASKING
) -> AsyncIterator[tuple[Kernel, Client]]:
    """A kernel on a real disk in which `base/launch` cannot be undone, and its owner."""
    with anyio.fail_after(30):
        async with open_kernel(
            Config(approvals=config), Home(home), engines={}, is_durable=True
        ) as kernel:
            await offer(kernel, "base", echo, declared("launch", FINAL))
            yield kernel, Client(kernel.init_gate())
            kernel.check_invariants()


async def asked(kernel: Kernel, n: int = 1) -> list[Approval]:
    """Wait until so many questions are open."""
    changed, owner = WaitQueue(), Client(kernel.init_gate())
    kernel.approvals.watchers.append(lambda _: changed.wake_all())
    while len(found := await owner.approvals.list()) < n:
        await changed.wait()
    return list(found)


def launch(**arguments: object) -> ToolRun:
    return ToolRun(name="base/launch", arguments=arguments)


class Caller:
    """Makes calls as a process, and keeps how each ended."""

    def __init__(self, kernel: Kernel, tasks: anyio.abc.TaskGroup, name: str = "ann") -> None:
        self.pid = kernel.spawn_task(name, idle)
        self.gate: LocalGate = kernel.gate(self.pid)
        self.client = Client(self.gate)
        self.ends: list[str] = []
        self._ended = WaitQueue()
        self._tasks = tasks

    def start(self, call: ToolRun | FilePurge) -> None:
        self._tasks.start_soon(self.make, call)

    async def make(self, call: ToolRun | FilePurge) -> None:
        try:
            await self.gate.call(call)
            self.ends.append("done")
        except AccessDenied as error:
            self.ends.append(error.code)
        self._ended.wake_all()

    async def wait_end(self) -> None:
        """Return when one of its calls has ended."""
        while not self.ends:
            await self._ended.wait()


async def test_a_call_waits_for_its_answer_and_once_is_for_one_call(tmp_path: Path) -> None:
    async with (
        kernel_with_launcher(tmp_path) as (kernel, owner),
        anyio.create_task_group() as tasks,
    ):
        ann = Caller(kernel, tasks)
        ann.start(launch(n=1))
        question = (await asked(kernel))[0]
        assert (question.name, question.action) == ("ann", "tool.run")
        assert (question.resource, question.arguments) == ("Tool base/launch", '{"n":1}')
        assert question.choices == ("once", "process", "deny"), "a task has no program"
        waits = f"tool_run base/launch waits for approval {question.id}"
        shown = next(each for each in await owner.ps() if each.pid == ann.pid)
        assert (shown.state, shown.activity) == (State.WAITING, waits)
        answered = await owner.approvals.answer(question.id, "once")
        assert (answered.state, answered.by) == (ApprovalState.ALLOWED, "owner")
        await ann.wait_end()
        assert ann.ends == ["done"]
        ann.start(launch(n=1))
        assert (await asked(kernel))[0].id != question.id, "it is asked about again"
        tasks.cancel_scope.cancel()


async def test_answers_hold_for_exactly_these_arguments_and_can_be_taken_back(
    tmp_path: Path,
) -> None:
    async with (
        kernel_with_launcher(tmp_path) as (kernel, owner),
        anyio.create_task_group() as tasks,
    ):
        ann, bob = Caller(kernel, tasks), Caller(kernel, tasks, "bob")
        # What the tool of another says is data from outside: an answer from before that would not hold after it.
        ann.start(launch(n=0))
        await owner.approvals.answer((await asked(kernel))[0].id, "once")
        await ann.wait_end()
        ann.start(launch(n=1))
        question = (await asked(kernel))[0]
        assert question.is_tainted
        await owner.approvals.answer(question.id, "process")
        for _ in range(3):
            await ann.make(launch(n=1))
        for other in (ann, bob):  # other arguments; another process
            other.start(launch(n=2) if other is ann else launch(n=1))
        two = await asked(kernel, 2)
        assert {each.pid for each in two} == {ann.pid, bob.pid}
        for each in two:
            await owner.approvals.answer(each.id, "deny")
        await ann.make(launch(n=2))
        assert ann.ends[-1] == "approval_denied", (
            "a no holds for the process; nobody is asked again"
        )
        assert not await owner.approvals.list()
        await owner.approvals.revoke(question.id)
        with pytest.raises(Conflict, match="no answer of it holds"):
            await owner.approvals.revoke(question.id)
        ann.start(launch(n=1))
        await asked(kernel)
        tasks.cancel_scope.cancel()


async def test_nobody_answers_in_time_is_a_no_and_zero_asks_nobody(tmp_path: Path) -> None:
    async with kernel_with_launcher(tmp_path, ApprovalsConfig(timeout_s=0.05)) as (kernel, owner):
        ann = Client(kernel.gate(kernel.spawn_task("ann", idle)))
        with pytest.raises(ApprovalExpired, match="nobody answered question 1 in time"):
            await ann.tools.run("base/launch", {"n": 1})
        assert (await ann.approvals.ask("Red or blue?", timeout_s=9.0)).is_expired
        with pytest.raises(Conflict, match="is expired already"):
            await owner.approvals.answer(1, "once")
    async with open_kernel(
        Config(approvals=ApprovalsConfig(timeout_s=0)), Home(tmp_path / "b"), engines={}
    ) as kernel:
        await offer(kernel, "base", echo, declared("launch", FINAL))
        ann = Client(kernel.gate(kernel.spawn_task("ann", idle)))
        with pytest.raises(
            AccessDenied, match=r"workspace\.irreversible-tools lets a human decide"
        ):
            await ann.tools.run("base/launch", {"n": 1})
        with pytest.raises(Unsupported):
            await ann.approvals.ask("Is anybody there?")


async def test_who_waits_can_be_killed_and_a_deadline_takes_the_question_along(
    tmp_path: Path,
) -> None:
    async with (
        kernel_with_launcher(tmp_path) as (kernel, owner),
        anyio.create_task_group() as tasks,
    ):
        ann = Caller(kernel, tasks)
        with pytest.raises(DeadlineExceeded):
            await ann.gate.call(ToolRun(name="base/launch", arguments={}, deadline_s=0.05))
        assert not await owner.approvals.list()
        tasks.start_soon(_swallow, ann)
        question = (await asked(kernel))[0]
        await owner.kill(ann.pid)
        assert not await owner.approvals.list()
        over = await owner.approvals.list(include_over=True)
        assert [each.state for each in over] == [ApprovalState.WITHDRAWN] * 2
        with pytest.raises(Conflict, match="is withdrawn already"):
            await owner.approvals.answer(question.id, "once")


async def _swallow(ann: Caller) -> None:
    with pytest.raises(Conflict):  # it is gone
        await ann.gate.call(launch(n=1))


async def test_an_agent_answers_neither_for_itself_nor_for_its_child(tmp_path: Path) -> None:
    async with (
        kernel_with_launcher(tmp_path) as (kernel, owner),
        anyio.create_task_group() as tasks,
    ):
        parent = kernel.spawn_task("parent", idle)
        ann = Caller(kernel, tasks)
        kernel.table.get(ann.pid)
        child = kernel.spawn_task("child", idle, ppid=parent)
        tasks.start_soon(_denied, kernel.gate(child))
        number = (await asked(kernel))[0].id
        for pid in (parent, child, ann.pid, kernel.admit("guest")[0].pid):
            gate = kernel.gate(pid)
            for call in (ApprovalAnswer(id=number, answer="once"), ApprovalList()):
                with pytest.raises(AccessDenied, match=r"no right `approval\.give`"):
                    await gate.call(call)
        await owner.approvals.answer(number, "deny")


async def _denied(gate: LocalGate) -> None:
    with pytest.raises(ApprovalDenied, match="owner said no"):
        await gate.call(launch(n=1))


async def test_questions_of_one_process_are_bounded(tmp_path: Path) -> None:
    config = ApprovalsConfig(max_open=2)
    async with (
        kernel_with_launcher(tmp_path, config) as (kernel, owner),
        anyio.create_task_group() as tasks,
    ):
        ann = Caller(kernel, tasks)
        for n in range(2):
            ann.start(launch(n=n))
        await asked(kernel, 2)
        with pytest.raises(ResourceExhausted, match="has 2 questions open"):
            await ann.gate.call(launch(n=3))
        ann.start(launch(n=1))  # the same: no third question
        await anyio.wait_all_tasks_blocked()
        assert len(await owner.approvals.list()) == 2
        tasks.cancel_scope.cancel()


async def test_a_purge_is_asked_about_and_the_audit_log_has_all_of_it_before_the_effect(
    tmp_path: Path,
) -> None:
    async with (
        kernel_with_launcher(tmp_path) as (kernel, owner),
        anyio.create_task_group() as tasks,
    ):
        ann = Caller(kernel, tasks)
        await ann.client.files.write("/shared/a", b"secret one")
        await ann.client.files.write("/shared/a", b"secret two")
        ann.start(FilePurge(path="/shared/a", keep=1))
        question = (await asked(kernel))[0]
        assert (question.resource, question.effect) == ("Path /shared/a", "irreversible")
        await owner.approvals.answer(question.id, "once")
        await ann.wait_end()
        assert len(await owner.files.versions("/shared/a")) == 1
        await owner.files.purge("/shared/a", keep=1)  # the owner is asked nothing
        links = await kernel.db.read(lambda c: list(audit.read(c, audit.Wanted())))
        acts = [f"{each.act.kind.value} {each.act.subject}" for each in links]
        first = acts.index(f"asked approval={question.id} `file.write` on Path /shared/a")
        then = acts.index(
            f"answered approval={question.id} answer=once by=owner `file.write` on Path /shared/a"
        )
        assert first < then < acts.index("effect path=/shared/a")
        assert "secret" not in "".join(acts)


async def test_a_question_in_words_is_answered_by_a_choice_or_in_words(tmp_path: Path) -> None:
    async with (
        kernel_with_launcher(tmp_path) as (kernel, owner),
        anyio.create_task_group() as tasks,
    ):
        ann = Caller(kernel, tasks)
        answers: list[str] = []

        async def ask(*choices: str) -> None:
            answers.append((await ann.client.approvals.ask("Which?", choices=choices)).text)

        tasks.start_soon(ask, "once", "deny")
        tasks.start_soon(ask)
        of_choice, in_words = await asked(kernel, 2)
        with pytest.raises(InvalidCall, match="'green' is no answer"):
            await owner.approvals.answer(of_choice.id, "green")
        await owner.approvals.answer(of_choice.id, "deny")
        answered = await owner.approvals.answer(in_words.id, "the green one")
        assert answered.state is ApprovalState.ANSWERED
    assert sorted(answers) == ["deny", "the green one"]


# --- restarts ----------------------------------------------------------------------------------------------------


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_folder("a") as folder:
        yield folder


@asynccontextmanager
async def served(home: Path) -> AsyncIterator[tuple[Kernel, Client]]:
    config = Config(engine=EngineConfig(kind="scripted"), server=ServerConfig(port=0))
    loaded = Loaded(config, Home(home), home / "config.toml")
    with anyio.fail_after(40):
        async with open_server(
            loaded, http=False, engines={"local": ScriptedEngine()}, is_durable=True
        ) as kernel:
            yield kernel, Client(kernel.init_gate())
            kernel.check_invariants()


PURGER = """\
from aios.sdk.blocking import connect
with connect() as client:
    client.files.write("/shared/a", b"one")
    client.files.write("/shared/a", b"two")
    said = client.approvals.ask("Shall I?", choices=["yes", "no"]).text
    client.files.purge("/shared/a", keep=1)
    client.exit(0, said)
"""


async def test_questions_and_answers_outlive_a_kernel_and_nobody_is_asked_twice(
    home: Path,
) -> None:
    folder = home / "purger"
    folder.mkdir()
    (folder / "agent.toml").write_text('name = "purger"\n')
    (folder / "main.py").write_text(PURGER)
    async with served(home) as (kernel, owner):
        pid = (await owner.spawn(str(folder), restart=Restart(policy="on-failure"))).pid
        first = (await asked(kernel))[0]
        assert first.why == "Shall I?"
    async with served(home) as (kernel, owner):
        again = (await asked(kernel))[0]
        assert again == first, "the same question is open"
        await owner.approvals.answer(first.id, "yes")
        purge = (await asked(kernel))[0]
        assert purge.choices == ("once", "process", "always", "deny")
        await owner.approvals.answer(purge.id, "always")
        assert (await owner.wait(pid)).exit.result == "yes"
        assert len(await owner.files.versions("/shared/a")) == 1
    async with served(home) as (kernel, owner):
        other = (await owner.spawn(str(folder))).pid
        await owner.approvals.answer((await asked(kernel))[0].id, "no")
        assert (await owner.wait(other)).exit.result == "no", "the purge needed no second yes"
        (folder / "main.py").write_text(PURGER + "# changed\n")
        changed = (await owner.spawn(str(folder))).pid
        await owner.approvals.answer((await asked(kernel))[0].id, "no")
        question = (await asked(kernel))[0]
        assert (question.pid, question.action) == (changed, "file.write"), "its code is another"
        await owner.kill(Pid(changed))


async def test_a_yes_that_was_taken_for_nothing_holds_for_the_same_call(tmp_path: Path) -> None:
    async with (
        kernel_with_launcher(tmp_path) as (kernel, owner),
        anyio.create_task_group() as tasks,
    ):
        ann = Caller(kernel, tasks)
        await owner.set_budget(ann.pid, Limits(tool_calls=0))
        async with anyio.create_task_group() as life:
            life.start_soon(ann.make, launch(n=1))
            question = (await asked(kernel))[0]
            await owner.approvals.answer(question.id, "once")
            assert (await asked(kernel))[0].action == "budget.raise", "it comes to its budget"
            assert kernel.approvals.get(question.id).state is ApprovalState.USED
            life.cancel_scope.cancel()
        assert kernel.approvals.get(question.id).state is ApprovalState.ALLOWED
        await owner.set_budget(ann.pid, Limits())
        await owner.cont(ann.pid)
        await ann.make(launch(n=1))
        assert ann.ends == ["done"]
        assert kernel.approvals.get(question.id).state is ApprovalState.USED
        ann.start(launch(n=1))
        assert (await asked(kernel))[0].id != question.id, "it was for one call"
        tasks.cancel_scope.cancel()


RUNNER = """\
from aios.sdk.blocking import connect
with connect() as client:
    client.tools.run("calculator", {"expression": "6 * 7"})
    client.exit(0, "ran")
"""
ASK_BEFORE_TOOLS = (
    '@id("ask") @decide("ask") permit(principal, action == Action::"tool.run", resource);'
)


async def left_taken(home: Path) -> tuple[apsw.Connection, Approval]:
    """The database as a crash left it after a program's first call had taken a yes, and that question."""
    (home / "policies").mkdir()
    (home / "policies" / "mine.cedar").write_text(ASK_BEFORE_TOOLS)
    folder = home / "runner"
    folder.mkdir()
    (folder / "agent.toml").write_text('name = "runner"\n')
    (folder / "main.py").write_text(RUNNER)
    async with served(home) as (kernel, owner):
        await owner.spawn(str(folder), restart=Restart(policy="on-failure"))
        question = (await asked(kernel))[0]
    used = msgspec.structs.replace(question, state=ApprovalState.USED, said="once", holds=False)
    connection = connect(Home(home).database, is_writer=True)
    tables.save(connection, used, 1)
    return connection, question


@pytest.mark.parametrize(
    ("outcome", "choice"),
    [
        (None, None),  # taken, but the intent never reached the disk
        (Outcome.OPEN, "again"),  # nobody knows; the owner has it done again
    ],
)
async def test_an_answer_that_a_crash_left_taken_holds_if_its_call_was_not_made(
    home: Path, outcome: Outcome | None, choice: Choice | None
) -> None:
    connection, question = await left_taken(home)
    if outcome is not None:
        record = Record(
            question.pid, 1, "tool_run", b"x", Effect.IRREVERSIBLE, 0.0, outcome=outcome,
            intent=write_call(ToolRun(name="calculator", arguments={})),
        )  # fmt: skip
        save(connection, record)
    connection.close()
    async with served(home) as (kernel, owner):
        if choice is not None:
            await kernel.init_gate().call(AnswerQuestion(pid=question.pid, choice=choice))
        assert (await owner.wait(question.pid)).exit.result == "ran"
        over = await owner.approvals.list(include_over=True)
        states = [each.state for each in over if each.action == "tool.run"]
        assert states == [ApprovalState.USED], "nobody was asked twice"


async def test_an_answer_that_an_earlier_life_took_stays_taken(home: Path) -> None:
    connection, question = await left_taken(home)
    row = residents.read_residents(connection)[-1]
    assert row.launched is not None
    launched = msgspec.structs.replace(row.launched, first_seq=2)
    residents.save(connection, msgspec.structs.replace(row, launched=launched))
    connection.close()
    async with served(home) as (kernel, _):
        assert (await asked(kernel))[0].id != question.id, "the yes was for the call of that life"


KILLED_IN_BETWEEN = """\
import os
from aios.sdk.blocking import connect
with connect() as client:
    client.files.write("/shared/a", b"one")
    client.files.write("/shared/a", b"two")
    client.files.purge("/shared/a", keep=1)
    client.exit(0, str(len(client.files.versions("/shared/a"))))
"""


def test_a_daemon_killed_while_it_asks_comes_back_with_the_question_and_asks_once(
    home: Path,
) -> None:
    (home / "purger").mkdir()
    (home / "purger" / "agent.toml").write_text('name = "purger"\n')
    (home / "purger" / "main.py").write_text(KILLED_IN_BETWEEN)
    with daemon(home), owner_of(home) as client:
        restart = Restart(policy="on-failure")
        pid = client.spawn(str(home / "purger"), restart=restart).pid
        first = wait_asked(client)
    with daemon(home), owner_of(home) as client:
        again = wait_asked(client)
        assert again == first
        assert len(client.files.versions("/shared/a")) == 2, "nothing of it was done"
        client.approvals.answer(first.id, "once")
    with daemon(home), owner_of(home) as client:  # killed as soon as the answer was on disk
        end = client.wait(pid).exit
        assert (end.status, end.result) == (0, "1")
        over = client.approvals.list(include_over=True)
        assert [each.id for each in over] == [first.id], "nobody was asked twice"


def wait_asked(client: blocking.Client) -> Approval:
    after = client.journal.events(is_waiting=False).last
    while not (found := client.approvals.list()):
        after = client.journal.events(after=after, deadline_s=20).last
    return found[0]
