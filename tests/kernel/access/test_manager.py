import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.kernel.calls import chat
from tests.kernel.tools.offering import declared, echo, idle, offer, run_tool

from aios.abi.access import Decision, Request, Verdict
from aios.abi.calls import ExitSelf, GetPid, Kill
from aios.abi.retrieval import FileRetrieve
from aios.abi.storage import FileEdit, FileList, FilePurge, FileRead, Put
from aios.abi.tools import ToolRegister, ToolRun, Traits
from aios.abi.types import Kind, Right
from aios.config import AccessConfig, ApprovalsConfig, Config, Home
from aios.engine.scripted import ScriptedEngine
from aios.errors import AccessDenied, ConfigError, Conflict, NotFound
from aios.kernel.access.manager import MAX_SHOWN_CHARS, AccessManager, shown
from aios.kernel.clock import SystemClock
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.process import Process, Run
from aios.kernel.process_table import ProcessTable
from aios.sdk.client import Client


@pytest.fixture
def table() -> ProcessTable:
    table = ProcessTable(clock=SystemClock(), max_alive=99, max_exited=9, max_log_bytes=1 << 16)
    table.add("init", kind=Kind.INIT, parent=None, rights=frozenset(Right), owner="me")
    return table


def add(table: ProcessTable, parent: Process, *rights: Right) -> Process:
    return table.add("p", kind=Kind.TASK, parent=parent, rights=frozenset(rights), owner="me")


def test_a_right_that_was_not_granted_is_denied_by_name(table: ProcessTable) -> None:
    process = add(table, next(iter(table)), Right.LOG)
    access = AccessManager(table)
    access.check(process, Right.LOG)
    with pytest.raises(AccessDenied, match=r"no right `model\.use`"):
        access.check(process, Right.MODEL)
    assert access.statistics() == {"n_checks": 2, "n_denied": 1, "n_asked": 0}


def test_a_process_reaches_itself_and_its_descendants_and_nobody_else(table: ProcessTable) -> None:
    init = next(iter(table))
    parent = add(table, init, Right.SIGNAL)
    child = add(table, parent, Right.SIGNAL)
    grandchild = add(table, child, Right.SIGNAL)
    stranger = add(table, init, Right.SIGNAL)
    access = AccessManager(table)
    for target in (parent, child, grandchild):
        access.check(parent, Right.SIGNAL, target)
    for target in (init, stranger):
        with pytest.raises(AccessDenied, match=r"may not use `process\.signal`"):
            access.check(parent, Right.SIGNAL, target)
    access.check(init, Right.SIGNAL, stranger)
    with pytest.raises(AccessDenied):
        access.check(child, Right.SIGNAL, parent)


WORKSPACE = AccessConfig()
FENCE = """
@id("fence") forbid(principal, action, resource in Path::"/shared/vault") unless { principal.kind == "init" };
@id("no-shell") forbid(principal == Agent::"low", action == Action::"tool.run", resource == Tool::"shell");
@id("no-model") forbid(principal == Agent::"low", action == Action::"model.use", resource);
"""


@asynccontextmanager
async def fenced(
    home: Path, text: str = FENCE, *, access: AccessConfig = WORKSPACE
) -> AsyncIterator[Kernel]:
    (home / "policies").mkdir()
    (home / "policies" / "mine.cedar").write_text(text)
    engines = {"local": ScriptedEngine()}
    config = Config(access=access, approvals=ApprovalsConfig(timeout_s=0))
    async with open_kernel(config, Home(home), engines=engines) as kernel:
        owner = Client(kernel.init_gate())
        await owner.files.write("/shared/vault/deep/er/key", b"canary")
        await owner.files.write("/shared/open", b"hello")
        with anyio.fail_after(30):
            yield kernel


async def refused(call: Awaitable[object], why: str) -> None:
    with pytest.raises(AccessDenied) as caught:
        await call
    assert why in caught.value.message
    assert "canary" not in caught.value.message


VAULT_WAYS = (
    "/shared/vault/deep/er/key",
    "/shared//vault/./deep/er/key",
    "/shared/vault/deep//er/key/",
    "/\uff53hared/vault/deep/er/key",
)


@pytest.mark.anyio
@pytest.mark.parametrize("path", VAULT_WAYS)
async def test_a_fence_around_a_folder_holds_at_every_depth_and_spelling(
    tmp_path: Path, path: str
) -> None:
    async with fenced(tmp_path) as kernel:
        files = Client(kernel.gate(kernel.spawn_task("ann", idle))).files
        await refused(files.read(path), "mine.fence")
        await refused(files.write(path, b"x"), "mine.fence")
        await refused(files.stat(path), "mine.fence")
        await refused(files.copy(path, "/shared/mine"), "mine.fence")
        await refused(files.move(path, "/shared/mine"), "mine.fence")
        await refused(files.copy("/shared/open", path), "mine.fence")
        await refused(files.delete(path), "mine.fence")
        await refused(files.versions(path), "mine.fence")


@pytest.mark.anyio
async def test_what_is_fenced_is_not_listed_found_or_reached_beside_what_is_not(
    tmp_path: Path,
) -> None:
    async with fenced(tmp_path) as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        deep = (await gate.call(FileList(path="/shared", is_deep=True))).value.files
        assert [each.path for each in deep] == ["/shared/open"]
        found = (await gate.call(FileRetrieve(query="canary key", is_waiting=True))).value
        assert not found.hits
        edits = (Put(path="/shared/fine", data=b"x"), Put(path="/shared/vault/no", data=b"x"))
        await refused(gate.call(FileEdit(edits=edits)), "mine.fence")
        with pytest.raises(NotFound):  # all or nothing
            await gate.call(FileRead(path="/shared/fine"))
        run = ToolRun(
            name="files", arguments={"action": "read", "path": "/shared/vault/deep/er/key"}
        )
        await refused(gate.call(run), "mine.fence")


@pytest.mark.anyio
async def test_calls_side_by_side_are_each_judged(tmp_path: Path) -> None:
    outcomes: list[str] = []

    async def read(gate: LocalGate, path: str) -> None:
        try:
            await gate.call(FileRead(path=path))
            outcomes.append("read")
        except AccessDenied:
            outcomes.append("denied")

    async with fenced(tmp_path) as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        async with anyio.create_task_group() as tasks:
            for n in range(40):
                path = "/shared/vault/deep/er/key" if n % 2 else "/shared/open"
                tasks.start_soon(read, gate, path)
    assert (outcomes.count("read"), outcomes.count("denied")) == (20, 20)


@pytest.mark.anyio
async def test_a_child_with_another_name_is_under_the_policies_of_its_parent(
    tmp_path: Path,
) -> None:
    async with fenced(tmp_path) as kernel:
        low = kernel.spawn_task("low", idle)
        child = kernel.spawn_task("innocent", idle, ppid=low)
        await kernel.init_gate().call(Kill(pid=low))
        orphan = kernel.table.find(child)
        assert orphan is None or orphan.bounds[0].name == "low"
        low = kernel.spawn_task("low", idle)
        grandchild = kernel.spawn_task("c", idle, ppid=kernel.spawn_task("b", idle, ppid=low))
        for pid in (low, grandchild):
            gate = kernel.gate(pid)
            await refused(gate.call(chat()), "mine.no-model forbids low")
            run = ToolRun(name="shell", arguments={"command": "true"})
            await refused(gate.call(run), "mine.no-shell forbids low")
        assert (await kernel.init_gate().call(chat())).value.message.text()


@pytest.mark.anyio
async def test_a_tool_of_anothers_that_cannot_be_undone_is_not_run_without_a_human(
    tmp_path: Path,
) -> None:
    async with fenced(tmp_path, "") as kernel:
        final = declared("launch", traits=Traits(effect="irreversible"))
        await offer(kernel, "base", echo, final)
        ann = kernel.table.get(kernel.spawn_task("ann", idle))
        call = ToolRun(name="base/launch", arguments={"n": 1})
        await refused(kernel.gate(ann.pid).call(call), "workspace.irreversible-tools")
        asked: list[Request] = []

        async def yes(run: Run, request: Request, decision: Decision) -> None:
            assert (run.process, decision.verdict) == (ann, Verdict.ASK)
            asked.append(request)

        kernel.access.on_ask = yes
        assert (await kernel.gate(ann.pid).call(call)).value.text
        assert [each.resource.id for each in asked] == ["base/launch"]
        await run_tool(kernel.init_gate(), "base/launch", n=2)
        assert len(asked) == 1, "the owner is not asked"


@pytest.mark.anyio
async def test_read_only_agents_read_and_change_nothing(tmp_path: Path) -> None:
    async with fenced(tmp_path, "", access=AccessConfig("read-only")) as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        files = Client(gate).files
        assert await files.read("/shared/open") == b"hello"
        await refused(files.write("/shared/open", b"x"), "no policy permits ann")
        run = ToolRun(name="shell", arguments={"command": "true"})
        await refused(gate.call(run), "no policy permits ann")


@pytest.mark.anyio
async def test_a_kernel_does_not_start_without_a_rule_that_its_owner_wrote(
    tmp_path: Path,
) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "mine.cedar").write_text("forbid(principal, action")
    with pytest.raises(ConfigError, match="mine"):
        async with open_kernel(Config(), Home(tmp_path), engines={}):
            pass


ASK_BEFORE_WHAT_IS_FINAL = """
@id("final") @decide("ask") permit(principal, action, resource) when { context.effect == "irreversible" };
@id("keep") forbid(principal, action, resource in Path::"/shared/keep") when { context.effect == "irreversible" };
"""


@pytest.mark.anyio
async def test_an_irreversible_call_is_judged_as_such_with_its_path_and_exact_arguments(
    tmp_path: Path,
) -> None:
    async with fenced(tmp_path, ASK_BEFORE_WHAT_IS_FINAL) as kernel:
        asked, shown = recording(kernel)
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        await Client(gate).files.write("/shared/keep/it", b"x")
        assert not asked, "a write can be taken back"
        for keep in (1, 2, 1):
            await gate.call(FilePurge(path="/shared//./open", keep=keep, deadline_s=9.0 + keep))
        assert {(each.action, each.resource.id, each.effect) for each in asked} == {
            ("file.write", "/shared/open", "irreversible")
        }
        first, second, third = (each.digest for each in asked)
        assert first == third != second, "the arguments and nothing else are bound"
        assert shown[1] == '{"call":"file_purge","path":"/shared//./open","keep":2}'
        await refused(gate.call(FilePurge(path="/shared/keep/it")), "mine.keep forbids")
        n_asked, leaver = len(asked), kernel.spawn_task("leaver", idle)
        await kernel.gate(leaver).call(ExitSelf(status=0))
        assert len(asked) == n_asked, "nobody is asked whether a process may end"
        me = (await gate.call(GetPid())).value.pid
        await gate.call(Kill(pid=kernel.spawn_task("child", idle, ppid=me)))
        assert (asked[-1].action, asked[-1].effect) == ("process.signal", "irreversible")


@pytest.mark.anyio
async def test_an_answer_is_for_one_tool_as_it_is_and_one_set_of_arguments(tmp_path: Path) -> None:
    async with fenced(tmp_path, ASK_BEFORE_WHAT_IS_FINAL) as kernel:
        asked, shown = recording(kernel)
        final = Traits(effect="irreversible")
        base = await offer(kernel, "base", echo, declared("launch", final), declared("land", final))
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        await run_tool(gate, "base/launch", n=1)
        await run_tool(gate, "base/launch", n=1)
        await run_tool(gate, "base/launch", n=2)
        await run_tool(gate, "base/land", n=1)
        other = declared("launch", final, parameters={"type": "object", "title": "other"})
        await kernel.gate(base).call(ToolRegister(tools=(other,)))
        await run_tool(gate, "base/launch", n=1)
        assert {each.action for each in asked} == {"tool.run"}
        digests = [each.digest for each in asked]
        assert digests[0] == digests[1]
        assert len(set(digests)) == 4
        assert shown[2] == '{"n":2}'


@pytest.mark.anyio
async def test_a_tool_that_changes_while_somebody_is_asked_is_not_run(tmp_path: Path) -> None:
    async with fenced(tmp_path, ASK_BEFORE_WHAT_IS_FINAL) as kernel:
        final = Traits(effect="irreversible")
        base = await offer(kernel, "base", echo, declared("launch", final))

        async def swap(_: Run, __: Request, ___: Decision) -> None:
            other = declared("launch", final, parameters={"type": "object", "title": "other"})
            await kernel.gate(base).call(ToolRegister(tools=(other,)))

        kernel.access.on_ask = swap
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        with pytest.raises(Conflict, match="another tool than the one that was asked about"):
            await run_tool(gate, "base/launch", n=1)


def test_a_long_argument_hides_no_other_from_who_is_asked() -> None:
    fields: dict[str, object] = {
        "body": "x" * 40_000,
        "copies": list(range(9_000)),
        "to": {"name": "y" * 40_000, "at": "evil"},
    }
    text = shown(fields)
    assert len(text) <= MAX_SHOWN_CHARS
    told = json.loads(text)
    assert told["to"]["at"] == "evil"
    assert told["body"].endswith("characters more)")
    assert told["copies"][-1].endswith("more)")
    assert shown({"body": "x" * 9_000}) == '{"body":"' + "x" * 9_000 + '"}'


@pytest.mark.parametrize(
    "padding",
    [
        {"body": [[[[["x"] * 20] * 20] * 20] * 20]},
        {"x" * 20_000: 1},
        {f"{i}{'x' * 400}": i for i in range(60)},
    ],
)
def test_no_argument_hides_another_by_what_lies_in_it_or_what_it_is_called(
    padding: dict[str, object],
) -> None:
    text = shown({**padding, "to": "evil"})
    assert len(text) <= MAX_SHOWN_CHARS
    assert "evil" in json.loads(text)["to"]


@pytest.mark.anyio
async def test_of_a_tool_also_an_argument_called_env_is_shown(tmp_path: Path) -> None:
    async with fenced(tmp_path, ASK_BEFORE_WHAT_IS_FINAL) as kernel:
        _, shown = recording(kernel)
        await offer(kernel, "base", echo, declared("launch", Traits(effect="irreversible")))
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        await run_tool(gate, "base/launch", env={"to": "evil"})
        assert shown == ['{"env":{"to":"evil"}}']


def recording(kernel: Kernel) -> tuple[list[Request], list[str]]:
    """Say yes to everything. Returns: what was asked, and what the human was shown."""
    asked: list[Request] = []
    shown: list[str] = []

    async def yes(run: Run, request: Request, _: Decision) -> None:
        asked.append(request)
        shown.append(run.shown() if run.shown is not None else "")

    kernel.access.on_ask = yes
    return asked, shown
