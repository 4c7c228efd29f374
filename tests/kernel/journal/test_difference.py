from tests.kernel.journal.runs import Pair, rows

from aios.abi.call import Done
from aios.abi.calls import Chat, ChatAnswer, Exited, GetPid, Log, Self, Wait
from aios.abi.mail import Send, Sent
from aios.abi.recovery import Moment, Now
from aios.abi.spawn import Spawn, Spawned
from aios.abi.timers import SleepUntil
from aios.abi.tools import (
    ToolDescribe,
    ToolInfo,
    ToolKind,
    ToolResult,
    ToolRun,
    Tools,
    Traits,
)
from aios.abi.types import Exit, Finish, Message, Pid, Role, Usage
from aios.kernel.journal.difference import Parting, find_difference

PAIRS: list[Pair] = [(GetPid(), Self(Pid(2), Pid(1), "a")), (Log(text="a"), Done())]
SAID = (Message(Role.USER, "hello"),)


def reply(text: str = "yes", *, cached_tokens: int = 0) -> ChatAnswer:
    usage = Usage(9, cached_tokens, 1)
    return ChatAnswer(Message(Role.ASSISTANT, text), Finish.STOP, usage, "m")


def told(n_runs: int) -> ToolInfo:
    return ToolInfo("files", ToolKind.BUILTIN, "", {}, None, Traits(), "1", n_runs=n_runs)


def test_two_runs_that_asked_and_were_told_the_same_do_not_differ() -> None:
    assert find_difference(rows(PAIRS), rows(PAIRS, pid=9)) is None
    assert find_difference((), ()) is None


def test_another_call_is_where_they_part() -> None:
    left, right = rows(PAIRS), rows([PAIRS[0], (Log(text="b"), Done())])
    found = find_difference(left, right)
    assert found is not None
    assert (found.kind, found.n_equal) == (Parting.CALL, 1)
    assert (found.left, found.right) == (left[1], right[1])


def test_another_answer_to_the_same_call_is_where_they_part() -> None:
    found = find_difference(rows(PAIRS), rows([(GetPid(), Self(Pid(3), Pid(1), "b")), PAIRS[1]]))
    assert found is not None
    assert (found.kind, found.n_equal) == (Parting.ANSWER, 0)


def test_the_receipts_of_two_writes_are_no_difference() -> None:
    call = Send(to=Pid(1), body="hello")
    assert find_difference(rows([(call, Sent(7))]), rows([(call, Sent(9))])) is None


def test_a_run_that_goes_on_differs_from_its_beginning() -> None:
    found = find_difference(rows(PAIRS), rows(PAIRS[:1]))
    assert found is not None
    assert (found.kind, found.n_equal, found.right) == (Parting.END, 1, None)


def test_times_and_what_the_machine_was_busy_with_are_no_difference() -> None:
    def run(unix_s: float, n: int) -> list[Pair]:
        return [
            (Now(), Moment(unix_s)),
            (SleepUntil(unix_s=unix_s + 5), Moment(unix_s + 5)),
            (ToolDescribe(names=("files",)), Tools((told(n_runs=n),))),
            (Spawn(program="/p"), Spawned(Pid(n), "child")),
            (Wait(pid=Pid(n)), Exited(Pid(n), Exit(0, ""))),
            (Chat(messages=SAID), reply(cached_tokens=n)),
        ]

    early, late = run(100.0, 4), run(900.0, 7)
    assert find_difference(rows(early), rows(late)) is None
    assert find_difference(rows(early), rows([*late[:-1], (Chat(messages=SAID), reply("other"))]))


def test_the_own_folder_has_one_name_in_both_runs_also_in_json_of_tools() -> None:
    def run(name: str) -> list[Pair]:
        changed = f'{{"changed":[{{"path":"/agents/{name}/a.md","version":{len(name)}}}]}}'
        tool = Message(Role.TOOL, changed, tool_call_id=f"call_{name}")
        return [
            (ToolRun(name="files", arguments="{}"), ToolResult(changed, True, len(changed))),
            (Chat(messages=(*SAID, tool)), reply()),
        ]

    assert find_difference(rows(run("a")), rows(run("a-fork")), names={"a", "a-fork"}) is None
    found = find_difference(rows(run("a")), rows(run("a-fork")), names={"a"})
    assert found is not None, "another's folder is another folder"
    assert found.n_equal == 0
