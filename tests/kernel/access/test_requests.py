"""What is said about policies without a kernel is what a kernel does."""

import random
from collections import defaultdict
from pathlib import Path
from typing import TypeVar

import anyio
import msgspec
import pytest
from tests.kernel.tools.offering import declared, echo, idle, offer

from aios.abi.access import Decision, Principal, Request, Resource, Verdict
from aios.abi.call import Answer, Call
from aios.abi.calls import Embed, ExitSelf, GetPid, Info, Kill, Log, Logs, Nice, Ps, Stop
from aios.abi.mail import Receive, Send
from aios.abi.memory import Recall, Remember
from aios.abi.storage import FileEdit, FilePurge, FileRead, Put
from aios.abi.tools import EffectName, ToolList, ToolRun, Traits
from aios.abi.types import Kind, Pid
from aios.config import AccessConfig, Config, Home
from aios.engine.scripted import ScriptedEngine
from aios.errors import AccessDenied, AiosError
from aios.kernel.access import requests
from aios.kernel.access.manager import BY_PATH
from aios.kernel.access.policy import Policies, Source
from aios.kernel.access.policyfiles import PROFILES, profile_source
from aios.kernel.kernel import Kernel, open_kernel
from aios.kernel.process import Run
from aios.kernel.syscall import TABLE, Entry
from aios.sdk.client import Client

A = TypeVar("A", bound=Answer)

N_RUNS = 12


def test_what_is_asked_is_what_the_table_of_system_calls_asks() -> None:
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for call, entry in TABLE.items():
        for kind in _types(call, entry):
            found[entry.right.value][kind].add(_effect(entry))
    found["tool.run"]["Tool"] = set(requests.EFFECTS)
    told = {
        action: {kind: set(effects) for kind, effects in types.items()}
        for action, types in requests.ASKED.items()
    }
    assert told == found
    for types in requests.ASKED.values():
        for effects in types.values():
            assert list(effects) == sorted(effects, key=requests.EFFECTS.index)


def _types(call: type, entry: Entry) -> tuple[str, ...]:
    if entry.right in BY_PATH:
        return ("Path",)
    if entry.resource_of is not None:
        return ("Process",)
    if not entry.has_target:
        return ("Kernel",)
    (pid,) = (field for field in msgspec.structs.fields(call) if field.name == "pid")
    return ("Process",) if pid.required else ("Process", "Kernel")


def _effect(entry: Entry) -> str:
    if entry.right in BY_PATH and entry.resource_of is None:
        return "pure" if entry.right.value == "file.read" else "reversible"
    return "pure" if entry.judges_itself else entry.effect.value


# --- the same policies, asked and obeyed ---------------------------------------------------------------------------

ACTIONS = ("process.self", "process.see", "process.signal", "model.use", "log.write", "mail.use", "file.read", "file.write",
           "memory.read", "memory.write", "tool.use", "tool.run", "kernel.info")  # fmt: skip
WHO = ("principal", 'principal == Agent::"ann"', 'principal == Agent::"boss"', 'principal in Kind::"task"', 'principal in Kind::"guest"',
       'principal in Group::"root"')  # fmt: skip
WHAT = ("resource", 'resource == Process::"bob"', 'resource in Path::"/shared/vault"', 'resource == Tool::"base/fire"', 'resource is Path')  # fmt: skip
WHEN = ("", 'when { context.effect == "irreversible" }', 'when { context.effect != "pure" }', "when { context.is_own }",
        "unless { context.is_own }", "when { context.is_tainted }", 'when { principal.kind == "guest" }',
        'unless { principal.kind == "task" }')  # fmt: skip


def made_up(dice: random.Random) -> str:
    """Some policies about what the calls below do."""
    lines = []
    for number in range(dice.randint(1, 5)):
        action = f'action == Action::"{dice.choice(ACTIONS)}"' if dice.random() < 0.8 else "action"
        effect = dice.choice(("forbid", "forbid", "permit", '@decide("ask") permit'))
        head = f"{dice.choice(WHO)}, {action}, {dice.choice(WHAT)}"
        lines.append(f'@id("p{number}") {effect}({head}) {dice.choice(WHEN)};')
    return "\n".join(lines)


def calls(bob: Pid, child: Pid) -> list[tuple[str, Resource, str, Call[Answer]]]:
    """What processes do: the request that stands for it, and the call."""
    kernel, path = Resource(), Resource("Path", "/shared/vault/key")
    fire, look = (Resource("Tool", f"base/{name}") for name in ("fire", "look"))
    own = Resource("Process", "child")
    put = FileEdit(edits=(Put(path="/shared/vault/key", data=b"x"),))
    found: list[tuple[str, Resource, str, Call[Answer]]] = [
        ("process.self", kernel, "pure", GetPid()),
        ("process.see", kernel, "pure", Ps()),
        ("process.see", own, "pure", Logs(pid=child)),
        ("process.signal", own, "reversible", Stop(pid=child)),
        ("process.signal", own, "reversible", Nice(pid=child, nice=1)),
        ("model.use", kernel, "pure", Embed(texts=("x",))),
        ("log.write", kernel, "compensable", Log(text="x")),
        ("mail.use", kernel, "compensable", Receive(is_waiting=False)),
        ("mail.use", Resource("Process", "bob"), "compensable", Send(to=bob, body="x")),
        ("file.write", path, "reversible", put),
        ("file.write", path, "irreversible", FilePurge(path="/shared/vault/key", keep=1)),
        ("file.read", path, "pure", FileRead(path="/shared/vault/key")),
        ("memory.write", kernel, "reversible", Remember(text="x")),
        ("memory.read", kernel, "pure", Recall(query="x")),
        ("tool.use", kernel, "pure", ToolList()),
        ("tool.run", look, "pure", ToolRun(name="base/look", arguments={})),
        ("tool.run", fire, "irreversible", ToolRun(name="base/fire", arguments={})),
        ("kernel.info", kernel, "pure", Info()),
        ("process.signal", own, "irreversible", Kill(pid=child)),
        ("process.self", kernel, "irreversible", ExitSelf(status=0)),
    ]
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(N_RUNS))
async def test_a_kernel_does_what_is_told_without_it(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - a test's
    text, profile = made_up(dice), dice.choice(PROFILES)
    policies = Policies([profile_source(profile), Source("mine", text)])
    home = tmp_path / "home"
    (home / "policies").mkdir(parents=True)
    (home / "policies" / "mine.cedar").write_text(text)
    config = Config(access=msgspec.convert({"profile": profile}, AccessConfig))
    engines = {"local": ScriptedEngine()}
    async with open_kernel(config, Home(home), engines=engines) as kernel:
        traits = Traits(effect="irreversible"), Traits(effect="pure")
        tools = (declared("fire", traits[0]), declared("look", traits[1]))
        kernel.spawn_task("idle", idle)
        decide, kernel.access.policies = kernel.access.policies, Policies([profile_source("full")])
        await offer(kernel, "base", echo, *tools)
        for data in (b"1", b"2"):
            await Client(kernel.init_gate()).files.write("/shared/vault/key", data)
        kernel.access.policies = decide
        for kind in (Kind.TASK, Kind.GUEST):
            await _compare(kernel, policies, kind, text)


async def _compare(kernel: Kernel, policies: Policies, kind: Kind, text: str) -> None:
    above: tuple[str, ...] = ()
    bob, boss = kernel.spawn_task("bob", idle), kernel.spawn_task("boss", idle)
    if kind is Kind.GUEST:
        ann = kernel.admit("ann")[0].pid
    else:
        ann, above = kernel.spawn_task("ann", idle, ppid=boss), ("boss",)
    child = kernel.spawn_task("child", idle, ppid=ann)
    process, asked = kernel.table.get(ann), list[str]()

    async def no(_: Run, request: Request, __: Decision) -> None:
        asked.append(request.action)
        raise AccessDenied("asked")

    kernel.access.on_ask = no
    for action, resource, effect, call in calls(bob, child):
        if not process.is_alive:
            break
        owner = process.owner
        names = (*((each, kernel.init.owner, "task") for each in above), ("ann", owner, kind.value))
        principals = tuple(Principal(*each) for each in names)
        is_own = requests.is_own(action, resource)
        request = Request(action, resource, effect, process.taint is not None, is_own)
        if action == "process.signal" and isinstance(call, Kill):
            request = msgspec.structs.replace(request, is_tainted=False)
        if isinstance(call, ExitSelf):
            request = msgspec.structs.replace(request, is_tainted=False)
        if action == "tool.run" and kind is Kind.GUEST:
            continue  # those of another owner are not there for it
        if action == "tool.run":
            if isinstance(call, ToolRun) and call.name not in await _offered(kernel):
                continue  # the policies keep its own process from carrying it out
            use = Request("tool.use", Resource(), "pure", request.is_tainted)
            if (
                requests.decide(policies, principals, use, can_ask=True).verdict
                is not Verdict.ALLOW
            ):
                continue
        told = requests.decide(policies, principals, request, can_ask=True)
        n_asked = len(asked)
        with anyio.fail_after(30):
            done = await _done(kernel, ann, call)
        if len(asked) > n_asked:
            done = Verdict.ASK
        where = f"{done} {kind.value} {request} {told}\n{text}"
        assert done is told.verdict, where
    for pid in (bob, boss):
        await unbound(kernel, Kill(pid=pid))


async def _offered(kernel: Kernel) -> set[str]:
    return {each.name for each in (await unbound(kernel, ToolList())).tools}


async def unbound(kernel: Kernel, call: Call[A]) -> A:
    """What the owner asks beside the policies."""
    policies, kernel.access.policies = kernel.access.policies, Policies([profile_source("full")])
    try:
        return (await kernel.init_gate().call(call)).value
    finally:
        kernel.access.policies = policies


async def _done(kernel: Kernel, pid: Pid, call: Call[Answer]) -> Verdict:
    try:
        await kernel.gate(pid).call(call)
    except AccessDenied as error:
        known = ("may not write to", "another owner", "cannot be found")
        return Verdict.ALLOW if any(each in error.message for each in known) else Verdict.DENY
    except AiosError:
        return (
            Verdict.ALLOW
        )  # nothing was there, or it may be done no more: the policies were not in the way
    return Verdict.ALLOW


def test_effects_are_named_as_tools_name_them() -> None:
    assert set(requests.EFFECTS) == set(EffectName.__args__)  # type: ignore[attr-defined]  # a Literal
