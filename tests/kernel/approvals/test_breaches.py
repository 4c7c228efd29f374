from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from tests.kernel.approvals.test_approvals import asked, wait_asked
from tests.kernel.test_resume import daemon
from tests.kernel.test_resume import owner as owner_of
from tests.kernel.tools.offering import idle, run_tool

from aios.abi.approvals import BUDGET_RAISE, ApprovalState
from aios.abi.budget import Limits
from aios.abi.recovery import Restart
from aios.abi.types import Pid, State
from aios.config import ApprovalsConfig, Config, Home
from aios.errors import AiosError, BudgetExceeded, InvalidCall
from aios.kernel.approvals import approvals as module
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.sandbox.scratch import scratch_folder
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio


NUMBERS = count()


@asynccontextmanager
async def asking_kernel(
    home: Path, *, timeout_s: float = 3600.0, max_open: int = 8
) -> AsyncIterator[tuple[Kernel, Client]]:
    config = ApprovalsConfig(timeout_s=timeout_s, max_open=max_open)
    with anyio.fail_after(30):
        async with open_kernel(
            Config(approvals=config), Home(home), engines={}, is_durable=True
        ) as kernel:
            yield kernel, Client(kernel.init_gate())
            kernel.check_invariants()


class Worker:
    """Runs the calculator, and keeps how each run ended."""

    def __init__(self, kernel: Kernel, tasks: anyio.abc.TaskGroup, ppid: Pid = Pid(1)) -> None:
        self.process = kernel.table.get(kernel.spawn_task("ann", idle, ppid=ppid))
        self.ends: list[str] = []
        self._gate = kernel.gate(self.process.pid)
        self._tasks = tasks

    @property
    def pid(self) -> Pid:
        return self.process.pid

    async def run(self) -> None:
        try:
            sum_ = f"42 + 0 * {next(NUMBERS)}"  # what was asked before is free
            self.ends.append((await run_tool(self._gate, "calculator", expression=sum_)).text)
        except AiosError as error:
            self.ends.append(f"{error.code}: {error.message}")

    async def start(self, n: int = 1) -> None:
        """Start so many runs, and return when they get no further."""
        for _ in range(n):
            self._tasks.start_soon(self.run)
        await wait_all_tasks_blocked()


@asynccontextmanager
async def limited_worker(
    home: Path, *, tool_calls: int
) -> AsyncIterator[tuple[Kernel, Client, Worker]]:
    """A worker that may run so many tools; at the end all its runs must be over."""
    async with asking_kernel(home) as (kernel, owner), anyio.create_task_group() as tasks:
        ann = Worker(kernel, tasks)
        await owner.set_budget(ann.pid, Limits(tool_calls=tool_calls))
        yield kernel, owner, ann


async def test_a_breach_pauses_and_asks_and_a_yes_gives_as_much_again(tmp_path: Path) -> None:
    async with limited_worker(tmp_path, tool_calls=2) as (kernel, owner, ann):
        await ann.start(3)
        question = (await asked(kernel))[0]
        assert (question.action, question.resource) == (BUDGET_RAISE, f"Process ann ({ann.pid})")
        assert question.choices == ("once", "deny")
        assert "of its budget of 2 only 0 are left; `once` gives 2 more" in question.why
        shown = next(each for each in await owner.ps() if each.pid == ann.pid)
        waits = f"tool_run calculator waits for approval {question.id}"
        assert (shown.state, shown.activity) == (State.STOPPED, waits)
        with pytest.raises(InvalidCall, match="no answer"):
            await owner.approvals.answer(question.id, "0")
        assert (await owner.approvals.answer(question.id, "once")).said == "once"
        await wait_all_tasks_blocked()
        assert ann.ends == ["42"] * 3
        about = await owner.budget(ann.pid)
        assert (about.limits.tool_calls, about.spent.tool_calls) == (4, 3)
        assert not ann.process.is_stopped
        over = await owner.approvals.list(include_over=True)
        assert [each.state for each in over] == [ApprovalState.USED]


async def test_who_gives_up_waiting_is_not_left_stopped(tmp_path: Path) -> None:
    async with limited_worker(tmp_path, tool_calls=0) as (kernel, owner, ann):
        async with anyio.create_task_group() as life:
            life.start_soon(ann.run)
            await asked(kernel)
            other = anyio.CancelScope()
            life.start_soon(_within, other, ann.run)
            await wait_all_tasks_blocked()
            other.cancel()
            await wait_all_tasks_blocked()
            assert ann.process.is_stopped, "its first call waits on"
            life.cancel_scope.cancel()
        assert await owner.approvals.list() == ()
        assert not ann.process.is_stopped, "a program that crashed so would never come back"


async def _within(scope: anyio.CancelScope, run: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await run()


async def test_the_owner_says_how_much_and_one_answer_is_for_all_under_a_limit(
    tmp_path: Path,
) -> None:
    async with (
        asking_kernel(tmp_path) as (kernel, owner),
        anyio.create_task_group() as tasks,
    ):
        boss = kernel.spawn_task("boss", idle)
        await owner.set_budget(boss, Limits(tool_calls=3))
        workers = [Worker(kernel, tasks, boss) for _ in range(6)]
        for worker in workers:
            await worker.start(2)
        question = (await asked(kernel))[0]
        assert len(await owner.approvals.list()) == 1
        assert question.pid == boss, "it is about the limit of the one above"
        stopped = [worker for worker in workers if worker.process.is_stopped]
        assert len(stopped) == 5
        await owner.approvals.answer(question.id, "9")
        await wait_all_tasks_blocked()
        assert sum(len(worker.ends) for worker in workers) == 12
        assert (await owner.budget(boss)).spent.tool_calls == 12
        assert await owner.approvals.list() == ()


async def test_a_no_ends_the_calls_with_the_budgets_fault_until_it_is_taken_back(
    tmp_path: Path,
) -> None:
    async with (
        asking_kernel(tmp_path) as (kernel, owner),
        anyio.create_task_group() as tasks,
    ):
        ann = Worker(kernel, tasks)
        await owner.set_budget(ann.pid, Limits(tool_calls=0))
        await ann.start(2)
        question = (await asked(kernel))[0]
        await owner.approvals.answer(question.id, "deny")
        await wait_all_tasks_blocked()
        no = f"budget_exceeded: tool_run may need 1 tool calls, and of its budget of 0 only 0 are left, and owner gives no more (question {question.id})"
        assert ann.ends == [no, no]
        with pytest.raises(BudgetExceeded, match="owner gives no more"):  # and nobody is asked
            await run_tool(kernel.gate(ann.pid), "calculator", expression="1 + 1")
        await owner.approvals.revoke(question.id)
        await ann.start()
        assert (await asked(kernel))[0].id != question.id
        tasks.cancel_scope.cancel()


async def test_who_raises_the_limit_himself_takes_the_question_away(tmp_path: Path) -> None:
    async with limited_worker(tmp_path, tool_calls=0) as (kernel, owner, ann):
        await ann.start()
        question = (await asked(kernel))[0]
        await owner.cont(ann.pid)  # nothing has changed: it is paused again
        await wait_all_tasks_blocked()
        assert ann.process.is_stopped
        assert [each.id for each in await owner.approvals.list()] == [question.id]
        await owner.set_budget(ann.pid, Limits(tool_calls=1))
        await owner.cont(ann.pid)
        await wait_all_tasks_blocked()
        assert ann.ends == ["42"]
        assert await owner.approvals.list() == ()


async def test_who_is_stopped_by_the_owner_besides_waits_for_him(tmp_path: Path) -> None:
    async with limited_worker(tmp_path, tool_calls=0) as (kernel, owner, ann):
        await ann.start()
        question = (await asked(kernel))[0]
        await owner.stop(ann.pid)
        await owner.approvals.answer(question.id, "5")
        await wait_all_tasks_blocked()
        assert (ann.process.is_stopped, ann.ends) == (True, [])
        await owner.cont(ann.pid)
        await wait_all_tasks_blocked()
        assert ann.ends == ["42"]


async def test_who_is_killed_takes_the_question_along(tmp_path: Path) -> None:
    async with limited_worker(tmp_path, tool_calls=0) as (kernel, owner, ann):
        await ann.start()
        await asked(kernel)
        await owner.kill(ann.pid)
        assert await owner.approvals.list() == ()


async def test_where_nobody_answers_or_can_be_asked_it_stays_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    for timeout_s in (0.0, 0.05):
        async with (
            asking_kernel(tmp_path / str(timeout_s), timeout_s=timeout_s) as (kernel, owner),
            anyio.create_task_group() as tasks,
        ):
            ann = Worker(kernel, tasks)
            await owner.set_budget(ann.pid, Limits(tool_calls=0))
            await ann.start()
            while not ann.process.is_stopped or ann.process.is_held:
                await anyio.sleep(0.01)
            assert await owner.approvals.list() == ()
            said = " ".join(line.text for line in ann.process.log.lines)
            assert f"`aios budget {ann.pid} tool_calls=+N --cont`" in said
            assert timeout_s == 0 or "until `aios cont`" in said
            await owner.set_budget(ann.pid, Limits(tool_calls=1))
            await owner.cont(ann.pid)
            await wait_all_tasks_blocked()
            assert ann.ends == ["42"]


async def test_who_has_too_many_questions_open_is_told_what_lets_it_go_on(tmp_path: Path) -> None:
    async with (
        asking_kernel(tmp_path, max_open=1) as (kernel, owner),
        anyio.create_task_group() as tasks,
    ):
        ann = Worker(kernel, tasks)

        async def ask() -> None:
            with suppress(AiosError):  # it is killed
                await Client(kernel.gate(ann.pid)).approvals.ask("Shall I?")

        tasks.start_soon(ask)
        await wait_all_tasks_blocked()
        await owner.set_budget(ann.pid, Limits(tool_calls=0))
        await ann.start()
        (told,) = (x.text for x in ann.process.log.lines if "nobody could be asked" in x.text)
        assert f"it stays stopped, `aios budget {ann.pid} tool_calls=+N --cont`" in told
        await owner.kill(ann.pid)


async def test_when_its_time_is_over_a_tree_is_stopped_and_goes_on_after_a_yes(
    tmp_path: Path,
) -> None:
    async with asking_kernel(tmp_path) as (kernel, owner):
        boss = kernel.spawn_task("boss", idle)
        child = kernel.table.get(kernel.spawn_task("child", idle, ppid=boss))
        await owner.set_budget(boss, Limits(wall_ms=20))
        question = (await asked(kernel))[0]
        assert (question.pid, child.is_stopped, child.is_held) == (boss, True, True)
        await owner.approvals.answer(question.id, "10000000")
        await wait_all_tasks_blocked()
        assert not child.is_stopped
        assert (await owner.budget(boss)).limits.wall_ms == 10_000_020
        await owner.set_budget(boss, Limits(wall_ms=1))
        again = (await asked(kernel))[0]
        await owner.approvals.answer(again.id, "deny")
        assert (child.is_stopped, child.is_held) == (True, False), "there is no call to fail"
        await owner.cont(boss)
        await wait_all_tasks_blocked()
        while not child.is_stopped:
            await anyio.sleep(0.005)
        await owner.set_budget(boss, Limits())
        await owner.cont(boss)
        assert not child.is_stopped


async def test_a_question_about_time_goes_when_somebody_gives_more(tmp_path: Path) -> None:
    async with asking_kernel(tmp_path) as (kernel, owner):
        boss = kernel.spawn_task("boss", idle)
        await owner.set_budget(boss, Limits(wall_ms=1))
        await asked(kernel)
        await owner.set_budget(boss, Limits())
        await owner.cont(boss)
        assert await owner.approvals.list() == ()


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_folder("b") as folder:
        yield folder


SPENDER = """\
from aios.sdk.blocking import connect
with connect() as client:
    said = [client.tools.run("calculator", {"expression": f"42 + 0 * {n}"}).text for n in range(3)]
    client.exit(0, " ".join(said))
"""


def test_a_daemon_killed_while_a_budget_is_asked_about_comes_back_with_the_question(
    home: Path,
) -> None:
    (home / "spender").mkdir()
    (home / "spender" / "agent.toml").write_text('name = "spender"\n')
    (home / "spender" / "main.py").write_text(SPENDER)
    with daemon(home), owner_of(home) as client:
        restart, limits = Restart(policy="on-failure"), Limits(tool_calls=1)
        pid = client.spawn(str(home / "spender"), restart=restart, budget=limits).pid
        first = wait_asked(client)
        assert first.action == BUDGET_RAISE
    with daemon(home), owner_of(home) as client:
        assert wait_asked(client) == first
        client.approvals.answer(first.id, "once")
        second = wait_asked(client)
        assert "of its budget of 2 only 0 are left" in second.why
        client.approvals.answer(second.id, "7")
        end = client.wait(pid).exit
        assert (end.status, end.result) == (0, "42 42 42")
        about = client.budget(pid)
        assert (about.limits.tool_calls, about.spent.tool_calls) == (9, 3)


TICKS = """\
import time
from aios.sdk.blocking import connect
with connect() as client:
    while not client.files.list("/shared"):
        time.sleep(0.02)
    client.exit(0, "went on")
"""


def test_a_question_about_time_outlives_the_kernel_and_its_answer_lets_the_program_go_on(
    home: Path,
) -> None:
    (home / "ticker").mkdir()
    (home / "ticker" / "agent.toml").write_text('name = "ticker"\n')
    (home / "ticker" / "main.py").write_text(TICKS)
    with daemon(home), owner_of(home) as client:
        earlier = client.spawn(str(home / "ticker"), budget=Limits(wall_ms=1)).pid
        withdrawn = wait_asked(client).id
        client.kill(earlier)
        restart = Restart(policy="on-failure")
        pid = client.spawn(str(home / "ticker"), restart=restart, budget=Limits(wall_ms=300)).pid
        first = wait_asked(client)
    with daemon(home), owner_of(home) as client:
        assert wait_asked(client) == first
        client.files.write("/shared/go", b"")
        client.approvals.answer(first.id, "60000")
        assert client.wait(pid, deadline_s=20).exit.result == "went on"
        over = client.approvals.list(include_over=True)
        states = {each.id: each.state for each in over}
        assert states.pop(first.id) is ApprovalState.USED
        assert states.pop(withdrawn) is ApprovalState.WITHDRAWN, "its number was not given again"
        assert states == {}, "nobody is asked about a process that is being killed"
