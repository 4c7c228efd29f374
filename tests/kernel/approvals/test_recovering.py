from pathlib import Path

import anyio
import msgspec
import pytest
from tests.kernel.approvals.test_approvals import asked, home, served

from aios.abi.approvals import RECOVER, ApprovalState
from aios.abi.recovery import AnswerQuestion, Questions, Restart
from aios.abi.tools import ToolRun
from aios.abi.types import Pid
from aios.config import Home
from aios.disk.connection import connect
from aios.errors import Conflict, InvalidCall
from aios.kernel.journal.records import Effect, Outcome, Record
from aios.kernel.journal.tables import save
from aios.kernel.journal.texts import write_call

pytestmark = pytest.mark.anyio

__all__ = ["home"]

RUNNER = """\
from aios.errors import OutcomeUnknown
from aios.sdk.blocking import connect
with connect() as client:
    said = ""
    try:
        said = client.tools.run("calculator", {"expression": "6 * 7"}).text
    except OutcomeUnknown:
        said = "unknown"
    client.approvals.ask("On?")
    client.exit(0, said)
"""


async def cut_off(home: Path) -> Pid:
    """A program of which the kernel ended in the middle of its first call, which cannot be undone."""
    folder = home / "runner"
    folder.mkdir()
    (folder / "agent.toml").write_text('name = "runner"\n')
    (folder / "main.py").write_text(RUNNER)
    async with served(home) as (kernel, owner):
        pid = (await owner.spawn(str(folder), restart=Restart(policy="on-failure"))).pid
        await asked(kernel)
    connection = connect(Home(home).database, is_writer=True)
    connection.execute("DELETE FROM journal_records WHERE pid = ?", (pid,))
    connection.execute("DELETE FROM approvals")
    call = ToolRun(name="calculator", arguments={"expression": "6 * 7"})
    save(
        connection,
        Record(
            pid, 1, "tool_run", write_call(call).digest, Effect.IRREVERSIBLE, 0.0,
            outcome=Outcome.OPEN, intent=write_call(call),
        ),
    )  # fmt: skip
    connection.close()
    return pid


@pytest.mark.parametrize(("choice", "said"), [("again", "42"), ("done", "unknown")])
async def test_what_a_crash_left_in_doubt_is_asked_among_the_approvals(
    home: Path, choice: str, said: str
) -> None:
    pid = await cut_off(home)
    async with served(home) as (kernel, owner):
        first = (await asked(kernel))[0]
        assert (first.pid, first.action) == (pid, RECOVER)
        assert "in the middle of calculator" in first.why, "which tool, and with what"
        assert '{"expression":"6 * 7"} (call ' in first.why
        assert first.choices == ("again", "done", "fresh", "end")
    async with served(home) as (kernel, owner):
        question = (await asked(kernel))[0]
        assert question == first, "it is the same one under the next kernel"
        with pytest.raises(InvalidCall, match="no answer"):
            await owner.approvals.answer(question.id, "once")
        await owner.approvals.answer(question.id, choice)
        with pytest.raises(Conflict, match="nothing is asked"):
            await kernel.init_gate().call(AnswerQuestion(pid=pid, choice="end"))
        while (found := (await asked(kernel))[0]).action == RECOVER:
            await anyio.sleep(0.01)
        await owner.approvals.answer(found.id, "yes")
        assert (await owner.wait(pid)).exit.result == said
        over = await owner.approvals.list(include_over=True)
        assert [each.state for each in over] == [ApprovalState.USED] * 2


async def test_an_answer_by_recover_answers_the_question_and_end_ends(home: Path) -> None:
    pid = await cut_off(home)
    async with served(home) as (kernel, owner):
        question = (await asked(kernel))[0]
        (also,) = (await kernel.init_gate().call(Questions())).value.questions
        assert also.why == question.why
        await kernel.init_gate().call(AnswerQuestion(pid=pid, choice="end"))
        assert (await owner.wait(pid)).exit.status == 1
        (over,) = await owner.approvals.list(include_over=True)
        assert (over.state, over.said, over.by) == (ApprovalState.USED, "end", "owner")


async def test_an_answer_that_the_kernel_before_was_told_is_carried_out_by_the_next(
    home: Path,
) -> None:
    pid = await cut_off(home)
    async with served(home) as (kernel, _):
        question = (await asked(kernel))[0]
    answered = msgspec.structs.replace(question, state=ApprovalState.ANSWERED, said="end", by="o")
    connection = connect(Home(home).database, is_writer=True)
    connection.execute(
        "UPDATE approvals SET row = ? WHERE id = ?", (msgspec.msgpack.encode(answered), question.id)
    )
    connection.close()
    async with served(home) as (kernel, owner):
        assert (await owner.wait(pid)).exit.status == 1
