import json

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked
from tests.kernel.conftest import OpenKernel
from tests.kernel.tools.offering import FREE, declared, echo, idle, offer, run_tool

from aios.abi.calls import Kill, Ps, Stop
from aios.abi.tools import (
    ToolDescribe,
    ToolJob,
    ToolList,
    ToolRegister,
    ToolReturn,
    ToolRun,
    ToolUnregister,
    Traits,
)
from aios.abi.types import JsonObject, State
from aios.errors import (
    AccessDenied,
    AiosError,
    Conflict,
    InvalidCall,
    NotFound,
    ProcessGone,
    ResourceExhausted,
    ToolFailed,
)
from aios.kernel.access.policy import Policies
from aios.kernel.access.policyfiles import profile_source
from aios.kernel.journal.records import Effect

pytestmark = pytest.mark.anyio
NUMBER: JsonObject = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def test_a_tool_of_a_program_runs_in_that_program(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.init_gate()
        with anyio.fail_after(30):
            pid = await offer(kernel, "editor", echo, declared("say"), is_json=True)
            result = await run_tool(gate, "editor/say", a=1)
            (info,) = (await gate.call(ToolDescribe(names=("editor/say",)))).value.tools
        assert json.loads(result.text) == {"caller": 1, "arguments": {"a": 1}}
        assert (info.provider, info.n_runs, info.n_failed) == (pid, 1, 0)


async def test_names_are_lossless_and_ones_own_comes_first(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann = kernel.gate(kernel.spawn_task("ann", idle))
        bob = kernel.gate(kernel.spawn_task("bob", idle))
        tools = (declared("calculator"), declared("x-y_z"))
        assert (await ann.call(ToolRegister(tools=tools))).value.names == (
            "ann/calculator",
            "ann/x-y_z",
        )
        described = await ann.call(ToolDescribe(names=("calculator", "ann/calculator", "x-y_z")))
        assert [tool.name for tool in described.value.tools] == [
            "ann/calculator",
            "ann/calculator",
            "ann/x-y_z",
        ]
        others = await bob.call(ToolDescribe(names=("calculator",)))
        assert others.value.tools[0].name == "calculator", "nobody stands in for others"
        with pytest.raises(NotFound):
            await bob.call(ToolDescribe(names=("x-y_z",)))
        with pytest.raises(NotFound):
            await bob.call(ToolUnregister(names=("ann/calculator",)))
        await ann.call(ToolUnregister(names=("x-y_z",)))
        names = [tool.name for tool in (await bob.call(ToolList())).value.tools]
        assert "ann/calculator" in names
        assert "ann/x-y_z" not in names


async def test_a_guest_sees_no_tools_of_others_and_others_see_none_of_its(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        ann = kernel.gate(kernel.spawn_task("ann", idle))
        guest = kernel.gate(kernel.admit("guest")[0].pid)
        for gate in (ann, guest):
            await gate.call(ToolRegister(tools=(declared("mine"),)))
        for gate, name in ((guest, "ann/mine"), (ann, "guest/mine")):
            with pytest.raises(NotFound):
                await gate.call(ToolRun(name=name))
            assert name not in [tool.name for tool in (await gate.call(ToolList())).value.tools]


async def test_a_bad_schema_registers_nothing(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        bad = declared("bad", parameters={"type": "nonsense"})
        with pytest.raises(InvalidCall, match="2020-12"):
            await gate.call(ToolRegister(tools=(declared("good"), bad)))
        with pytest.raises(NotFound):
            await gate.call(ToolDescribe(names=("good",)))


async def test_arguments_are_checked_and_repaired_once(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.init_gate()
        with anyio.fail_after(30):
            await offer(kernel, "ann", echo, declared("say", parameters=NUMBER), is_json=True)
            result = (await gate.call(ToolRun(name="ann/say", arguments="{'n': 3,}"))).value
            assert json.loads(result.text)["arguments"] == {"n": 3}
            assert "repaired" in result.notes[0]
            with pytest.raises(InvalidCall, match=r"/n: \"x\" is not of type.*say\(n: integer\)"):
                await run_tool(gate, "ann/say", n="x")
            with pytest.raises(InvalidCall, match="no JSON object"):
                await gate.call(ToolRun(name="ann/say", arguments="three"))


RICH = f'{{"a":[{"[]," * 20_000}[]]}}'


@pytest.mark.parametrize(
    "text", [RICH, json.dumps(RICH), f"{RICH} x"], ids=["plain", "wrapped", "to repair"]
)
async def test_a_text_of_very_many_values_is_refused_before_they_are_made(
    booted: OpenKernel, text: str
) -> None:
    """Its weight at the door is that of a text; an object of them counts for all that it takes."""
    async with booted() as kernel:
        gate = kernel.gate(kernel.admit("guest")[0].pid)
        await gate.call(ToolRegister(tools=(declared("say"),)))
        with anyio.fail_after(30), pytest.raises(InvalidCall, match="over 16,384 values"):
            await gate.call(ToolRun(name="say", arguments=text))


async def test_a_long_text_that_is_full_of_marks_is_one_value(booted: OpenKernel) -> None:
    async with booted() as kernel:
        with anyio.fail_after(30):
            await offer(kernel, "ann", echo, declared("say"), is_json=True)
            text = json.dumps({"text": "[1, {2: 3}],\n" * 20_000})
            result = await kernel.init_gate().call(ToolRun(name="ann/say", arguments=text))
        assert result.value.size_bytes > len(text)


PATTERNS: JsonObject = {f"p{i}": {"pattern": rf"\w{{{i % 10 + 1}}}x"} for i in range(400)}


@pytest.mark.parametrize(
    "call",
    [
        ToolRun(name="say", arguments="{'n': [" + "12345,," * 8_000 + "]}"),
        ToolRegister(tools=(declared("slow", parameters={"properties": PATTERNS}),)),
    ],
)
async def test_repairs_and_schemas_keep_nobody_waiting(
    booted: OpenKernel, call: ToolRun | ToolRegister
) -> None:
    async with booted() as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        await gate.call(ToolRegister(tools=(declared("say", parameters=NUMBER),)))
        n_rounds, over = 0, list[None]()

        async def ask() -> None:
            if isinstance(call, ToolRegister):
                await gate.call(call)
            else:
                with pytest.raises(InvalidCall, match="do not fit"):
                    await gate.call(call)
            over.append(None)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                while not over:
                    await anyio.lowlevel.checkpoint()
                    n_rounds += 1
        assert n_rounds > 100, "others had their turns meanwhile"


async def test_a_tool_that_fails_hangs_or_brings_nonsense_ends_in_one_fault(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        gate = kernel.init_gate()

        async def carry(job: ToolJob) -> str:
            if job.tool == "hangs":
                await anyio.sleep_forever()
            return "[1" if job.tool == "nonsense" else "[1]"

        quick = Traits(effect="pure", timeout_s=0.05)
        tools = (
            declared("hangs", quick),
            declared("nonsense"),
            declared("liar", returns={"type": "object"}),
        )
        with anyio.fail_after(30):
            await offer(kernel, "bad", carry, *tools, is_json=True)
            for name, words in (("hangs", "0.05 s"), ("nonsense", "none"), ("liar", "promise")):
                with pytest.raises(ToolFailed, match=words):
                    await run_tool(gate, f"bad/{name}")
            infos = (
                await gate.call(ToolDescribe(names=tuple(f"bad/{tool.name}" for tool in tools)))
            ).value
        assert [tool.n_failed for tool in infos.tools] == [1, 1, 1]


async def test_the_declared_effect_is_in_the_journal_before_the_tool_runs(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        seen: list[tuple[str, Effect, str]] = []

        async def look(job: ToolJob) -> str:
            record = kernel.journal.records(job.caller)[-1]
            seen.append((record.call, record.effect, record.outcome.value))
            return ""

        tools = (declared("look"), declared("act", Traits(effect="compensable")))
        with anyio.fail_after(30):
            await offer(kernel, "ann", look, *tools)
            await run_tool(kernel.init_gate(), "ann/look")
            await run_tool(kernel.init_gate(), "ann/act")
        assert seen == [
            ("tool_run", Effect.PURE, "open"),
            ("tool_run", Effect.COMPENSABLE, "open"),
        ]


async def test_calls_that_overlap_wait_and_say_so_in_ps(booted: OpenKernel) -> None:
    async with booted() as kernel:
        ann, bob = (kernel.spawn_task(name, idle) for name in ("ann", "bob"))
        go_on, n_running, most = anyio.Event(), 0, 0

        async def carry(_: ToolJob) -> str:
            nonlocal n_running, most
            n_running += 1
            most = max(most, n_running)
            await go_on.wait()
            n_running -= 1
            return ""

        traits = Traits(effect="reversible", writes=("/shared/{name}",))
        with anyio.fail_after(30):
            await offer(kernel, "w", carry, declared("write", traits))
            async with anyio.create_task_group() as tasks:
                for pid, name in ((ann, "a"), (bob, "b")):
                    tasks.start_soon(
                        lambda p, n: run_tool(kernel.gate(p), "w/write", name=n), pid, name
                    )
                await wait_all_tasks_blocked()
                assert most == 2, "disjoint footprints run side by side"
                tasks.start_soon(lambda: run_tool(kernel.gate(bob), "w/write", name="a/x"))
                await wait_all_tasks_blocked()
                rows = {
                    row.pid: row for row in (await kernel.init_gate().call(Ps())).value.processes
                }
                assert rows[bob].state is State.READY
                assert (
                    rows[bob].activity == f"tool_run w/write, waits for /shared/a/x (process {ann})"
                )
                assert rows[ann].activity == "tool_run w/write"
                go_on.set()
        assert (most, n_running) == (2, 0)


async def test_a_stopped_process_holds_no_claim_and_a_killed_one_leaves_the_queue(
    booted: OpenKernel,
) -> None:
    async with booted() as kernel:
        pids = [kernel.spawn_task(name, idle) for name in ("ann", "bob", "eve", "joe")]
        ends = {pid: anyio.Event() for pid in pids}
        ran: list[int] = []

        async def carry(job: ToolJob) -> str:
            ran.append(job.caller)
            await ends[job.caller].wait()
            return ""

        async def use(pid: int) -> None:
            try:
                await run_tool(kernel.gate(pid), "w/write")  # type: ignore[arg-type]  # a pid
            except ProcessGone:
                ran.append(-pid)

        ann, bob, eve, joe = pids
        init = kernel.init_gate()
        with anyio.fail_after(30):
            await offer(
                kernel,
                "w",
                carry,
                declared("write", Traits(effect="reversible", writes=("/shared",))),
            )
            async with anyio.create_task_group() as tasks:
                for pid in pids:
                    tasks.start_soon(use, pid)
                    await wait_all_tasks_blocked()
                await init.call(Stop(pid=bob))
                await init.call(Kill(pid=eve))
                ends[ann].set()
                await wait_all_tasks_blocked()
                assert ran == [ann, -eve, joe], "bob is stopped and keeps nobody out"
                kernel.signals.cont(kernel.table.get(bob))
                ends[joe].set()
                await wait_all_tasks_blocked()
                assert ran == [ann, -eve, joe, bob]
                ends[bob].set()


async def test_results_of_pure_tools_are_kept_until_the_tool_changes(booted: OpenKernel) -> None:
    async with booted() as kernel:
        n_runs = 0

        async def carry(_: ToolJob) -> str:
            nonlocal n_runs
            n_runs += 1
            return str(n_runs)

        pure = declared("f", Traits(effect="pure", is_pure=True))
        with anyio.fail_after(30):
            pid = await offer(kernel, "ann", carry, pure)
            gate = kernel.init_gate()
            first = await run_tool(gate, "ann/f", a=1, b=2)
            again = await run_tool(gate, "ann/f", b=2, a=1)
            other = await run_tool(gate, "ann/f", a=1, b=3)
            assert [first.text, again.text, other.text] == ["1", "1", "2"]
            assert [each.is_cached for each in (first, again, other)] == [False, True, False]
            changed = declared("f", pure.traits, parameters={"type": "object", "title": "new"})
            await kernel.gate(pid).call(ToolRegister(tools=(changed,)))
            assert (await run_tool(gate, "ann/f", a=1, b=2)).text == "3"


async def test_a_full_queue_is_refused_with_a_hint(booted: OpenKernel) -> None:
    async with booted() as kernel:
        kernel.tools._claims._core._max_waiting = 1
        started, end = anyio.Event(), anyio.Event()

        async def carry(_: ToolJob) -> str:
            started.set()
            await end.wait()
            return ""

        refused: list[AiosError] = []

        async def use() -> None:
            try:
                await run_tool(kernel.init_gate(), "w/one")
            except ResourceExhausted as error:
                refused.append(error)

        with anyio.fail_after(30):
            await offer(kernel, "w", carry, declared("one", Traits(max_parallel=1)))
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(use)
                    await wait_all_tasks_blocked()
                assert len(refused) == 1
                assert refused[0].retry_after_s
                end.set()


async def test_no_process_makes_a_tool_that_counts_as_installed(booted: OpenKernel) -> None:
    """Under `workspace` installed tools are not asked about; what others offer is, whatever it is called."""
    final = Traits(effect="irreversible")
    async with booted() as kernel:
        kernel.access.policies = Policies([profile_source("workspace")])
        await offer(kernel, "base", echo, declared("calculator", final), declared("launch", final))
        ann = kernel.gate(kernel.spawn_task("ann", idle))
        for name in ("base/launch", "base/calculator"):
            with pytest.raises(AccessDenied, match=r"workspace\.irreversible-tools"):
                await run_tool(ann, name)
        with pytest.raises(AccessDenied, match=r"tool\.install"):
            await ann.call(ToolRegister(manifests=("any.toml",)))


async def test_two_tools_cannot_have_one_name(booted: OpenKernel) -> None:
    async with booted() as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        tool = kernel.tools._registry.get(kernel.init, "clock")
        tool.name = "ann/clock"
        kernel.tools._registry.add(tool)
        with pytest.raises(Conflict):
            await gate.call(ToolRegister(tools=(declared("clock"),)))
        kernel.tools._registry._drop("ann/clock")
        tool.name = "clock"


async def test_a_call_is_returned_once_and_by_its_process_alone(booted: OpenKernel) -> None:
    async with booted() as kernel:
        jobs: list[ToolJob] = []

        async def carry(job: ToolJob) -> str:
            jobs.append(job)
            with pytest.raises(NotFound):
                await kernel.init_gate().call(ToolReturn(id=job.id, text="forged"))
            return "true"

        with anyio.fail_after(30):
            pid = await offer(kernel, "ann", carry, declared("f", FREE))
            assert (await run_tool(kernel.init_gate(), "ann/f")).text == "true"
            with pytest.raises(NotFound):
                await kernel.gate(pid).call(ToolReturn(id=jobs[0].id, text="again"))
