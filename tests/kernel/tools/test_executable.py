import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import msgspec
import pytest
from tests.kernel.conftest import OpenKernel
from tests.kernel.egress.hosts import host
from tests.kernel.tools.offering import idle, run_tool

from aios.abi.calls import Cont, Kill, Stop
from aios.abi.tools import ToolList, ToolRegister, ToolRun, ToolUnregister
from aios.abi.types import JsonObject
from aios.config import Config, EgressConfig, Home
from aios.errors import AccessDenied, Conflict, InvalidCall, NotFound, ProcessGone, ToolFailed
from aios.kernel.kernel import Kernel, open_kernel

pytestmark = pytest.mark.anyio
ANY: JsonObject = {"type": "object"}


async def install(
    kernel: Kernel, folder: Path, name: str, command: Sequence[str], **rest: object
) -> None:
    """Install a tool as the owner."""
    file = folder / "tool.toml"
    manifest = {"name": name, "description": "d", "command": command, "parameters": ANY, **rest}
    text = "\n".join(f"{key} = {toml(value)}" for key, value in manifest.items())
    await anyio.Path(file).write_text(text)
    await kernel.init_gate().call(ToolRegister(manifests=(str(file),)))


def toml(value: object) -> str:
    """A value as TOML writes it; its strings are those of JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def python(source: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", source]


def world(folder: Path) -> Path:
    """Where tools may write: beside the kernel's own files."""
    made = folder / "world"
    made.mkdir()
    return made


def is_running(text: str) -> bool:
    """Whether a process has this text in its command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    return True
            except OSError:
                continue
    return False


async def test_a_command_gets_its_arguments_and_brings_its_output(
    booted: OpenKernel, tmp_path: Path
) -> None:
    async with booted() as kernel:
        gate = kernel.init_gate()
        with anyio.fail_after(30):
            await install(kernel, tmp_path, "text/words", ["wc", "-w"], stdin="{text}")
            assert (await run_tool(gate, "text/words", text="a b c")).text.strip() == "3"
            await install(kernel, tmp_path, "echo", ["echo", "--", "{a}"])
            assert (await run_tool(gate, "echo", a="$(id); x")).text == "-- $(id); x\n"
            await install(kernel, tmp_path, "cat", ["cat"], stdin="json", output="json")
            result = await run_tool(gate, "cat", a=[1])
            assert (result.text, result.is_json) == ('{"a":[1]}', True)


async def test_its_environment_is_clean_and_its_folder_its_own(
    booted: OpenKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "canary")
    source = "import os, json; open('left', 'w'); print(json.dumps([dict(os.environ), os.getcwd(), os.listdir('/proc/self/fd')]))"
    async with booted() as kernel:
        with anyio.fail_after(30):
            await install(
                kernel, tmp_path, "look", python(source), output="json", env={"EXTRA": "1"}
            )
            text = (await run_tool(kernel.init_gate(), "look")).text
        env, folder, descriptors = msgspec.json.decode(text)
        assert set(env) == {"PATH", "LANG", "HOME", "TMPDIR", "EXTRA", "PWD"} - ({"PWD"} - set(env))
        assert "canary" not in text
        assert env["HOME"] == folder
        assert not await anyio.Path(folder).exists(), "it is gone with the run"
        assert len(descriptors) <= 4, "nothing of the kernel's was left open"


@pytest.mark.parametrize(
    ("source", "bounds", "words"),
    [
        ("raise SystemExit(3)", {}, "status 3"),
        ("import sys; sys.stderr.write('no such boat'); sys.exit(1)", {}, "no such boat"),
        ("import os; os.kill(os.getpid(), 9)", {}, "signal 9"),
        ("while True: print('x' * 65536)", {"output_bytes": 100_000}, "over 100000 bytes"),
        ("b = bytearray(1 << 30)", {"memory_bytes": 256 << 20}, "MemoryError"),
        ("open('f', 'wb').write(bytes(1 << 20))", {"file_bytes": 4096}, "File too large"),
        ("[open('/dev/null') for _ in range(99)]\nx = [open('/dev/null') for _ in range(99)]", {"n_files": 32}, "Too many open"),
    ],
)  # fmt: skip
async def test_a_program_that_fails_or_takes_too_much_is_a_fault(
    booted: OpenKernel, tmp_path: Path, source: str, bounds: dict[str, int], words: str
) -> None:
    async with booted() as kernel:
        with anyio.fail_after(30):
            await install(kernel, tmp_path, "bad", python(source), bounds=bounds)
            with pytest.raises(ToolFailed, match=words):
                await run_tool(kernel.init_gate(), "bad")


async def test_output_to_standard_error_without_end_harms_nobody(
    booted: OpenKernel, tmp_path: Path
) -> None:
    source = "import sys\nfor _ in range(2000): sys.stderr.write('x' * 65536)\nprint('ok')"
    async with booted() as kernel:
        with anyio.fail_after(30):
            await install(kernel, tmp_path, "loud", python(source))
            assert (await run_tool(kernel.init_gate(), "loud")).text == "ok\n"


@pytest.mark.parametrize("how", ["timeout", "cancel", "kill", "end"])
async def test_nothing_of_it_is_left_however_it_ends(
    booted: OpenKernel, tmp_path: Path, how: str
) -> None:
    """It starts a child in its session and one that leaves it; both must go."""
    mark = f"left-behind-{os.getpid()}-{how}"
    child = f"import time; time.sleep(60)  # {mark}"
    source = (
        "import subprocess, sys, time\n"
        f"start = lambda new: subprocess.Popen([sys.executable, '-I', '-S', '-c', {child!r}], start_new_session=new)\n"
        "start(False); start(True)\n"
        "open(sys.argv[1], 'w').close()\n"
        f"time.sleep({0.0 if how == 'end' else 60.0})\n"
    )
    begun = world(tmp_path) / "begun"
    async with booted() as kernel:
        pid = kernel.spawn_task("ann", idle)

        async def use() -> None:
            try:
                await run_tool(kernel.gate(pid), "spawner", path=str(begun))
            except (ToolFailed, ProcessGone):
                return

        with anyio.fail_after(30):
            await install(
                kernel,
                tmp_path,
                "spawner",
                [*python(source), "{path}"],
                write=[str(begun.parent)],
                traits={"timeout_s": 1.5 if how == "timeout" else 60.0},
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use)
                while how in {"cancel", "kill"} and not begun.exists():
                    await anyio.sleep(0.01)
                if how == "cancel":
                    tasks.cancel_scope.cancel()
                elif how == "kill":
                    await kernel.init_gate().call(Kill(pid=pid))
                    assert not is_running(mark), "when kill returns, nothing acts any more"
        assert begun.exists()
        assert not is_running(mark)


async def test_stop_freezes_it_and_cont_lets_it_go_on(booted: OpenKernel, tmp_path: Path) -> None:
    ticks = world(tmp_path) / "ticks"
    source = (
        "import sys, time\n"
        "for n in range(10_000):\n"
        "    with open(sys.argv[1], 'a') as file: file.write('.')\n"
        "    if __import__('os').path.exists(sys.argv[1] + '.end'): break\n"
        "    time.sleep(0.002)\n"
        "print('done')"
    )
    texts: list[str] = []
    async with booted() as kernel:
        pid = kernel.spawn_task("ann", idle)

        async def use() -> None:
            texts.append((await run_tool(kernel.gate(pid), "ticker", path=str(ticks))).text)

        with anyio.fail_after(30):
            command = [*python(source), "{path}"]
            await install(kernel, tmp_path, "ticker", command, write=[str(ticks.parent)])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use)
                while not ticks.exists():
                    await anyio.sleep(0.01)
                await kernel.init_gate().call(Stop(pid=pid))
                before = ticks.stat().st_size
                await anyio.sleep(0.1)
                assert ticks.stat().st_size == before, "a stopped process acts through no tool"
                await kernel.init_gate().call(Cont(pid=pid))
                while ticks.stat().st_size == before:
                    await anyio.sleep(0.01)
                (ticks.parent / "ticks.end").touch()
        assert texts == ["done\n"]


async def test_only_the_owner_installs_and_nothing_replaces_a_tool_of_the_kernel(
    booted: OpenKernel, tmp_path: Path
) -> None:
    async with booted() as kernel:
        gate = kernel.gate(kernel.spawn_task("ann", idle))
        with pytest.raises(AccessDenied):
            await gate.call(ToolRegister(manifests=("/nothing.toml",)))
        with pytest.raises(Conflict):
            await install(kernel, tmp_path, "calculator", ["true"])
        with pytest.raises(NotFound):
            await kernel.init_gate().call(ToolUnregister(names=("calculator",)))
        await install(kernel, tmp_path, "mine", ["true"])
        await install(kernel, tmp_path, "mine", ["echo", "new"])
        with anyio.fail_after(30):
            assert (await run_tool(gate, "mine")).text == "new\n"
        with pytest.raises(NotFound):
            await gate.call(ToolUnregister(names=("mine",)))
        await kernel.init_gate().call(ToolUnregister(names=("mine",)))
        assert "mine" not in [tool.name for tool in (await gate.call(ToolList())).value.tools]


async def test_a_folder_of_manifests_is_there_from_the_start(
    booted: OpenKernel, tmp_path: Path
) -> None:
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "good.toml").write_text(
        'name = "a/good"\ndescription = "d"\ncommand = ["echo", "hi"]\n'
    )
    (folder / "bad.toml").write_text("name = 3")
    async with booted() as kernel:
        assert len(kernel.warnings) == 1
        assert "bad.toml" in kernel.warnings[0]
        with anyio.fail_after(30):
            assert (await run_tool(kernel.init_gate(), "a/good")).text == "hi\n"
            with pytest.raises(InvalidCall):
                await kernel.init_gate().call(ToolRun(name="a/good", arguments={"x": 1}))


@pytest.mark.parametrize("is_allowed", [True, False])
async def test_a_tool_reaches_the_hosts_of_its_manifest_and_no_others_whoever_calls(
    tmp_path: Path, is_allowed: bool
) -> None:
    source = "import os, sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
    async with host() as web:
        named = (f"localhost:{web.port}",)
        config = Config(egress=EgressConfig(hosts=named, private_hosts=named))
        async with open_kernel(config, Home(tmp_path / "home"), engines={}) as kernel:
            process = kernel.table.get(kernel.spawn_task("ann", idle))
            async with kernel.egress.open_way(process) as way:
                if way is None:
                    pytest.skip("this machine has no bubblewrap")
            process.network = None  # it has none itself
            hosts = named if is_allowed else ("other.example",)
            with anyio.fail_after(30):
                await install(
                    kernel, tmp_path, "ask", [sys.executable, "-c", source, "{url}"], network=hosts,
                    traits={"effect": "pure"},
                )  # fmt: skip
                call = run_tool(
                    kernel.gate(process.pid), "ask", url=f"http://localhost:{web.port}/x"
                )
                if is_allowed:
                    assert (await call).text.strip()
                else:
                    with pytest.raises(ToolFailed, match="403"):
                        await call


async def test_a_manifest_that_names_no_path_is_told_and_hinders_no_other(
    booted: OpenKernel, tmp_path: Path
) -> None:
    """What it names may lie where a program works, which may put a symlink there that leads to itself."""
    loop, folder = tmp_path / "loop", tmp_path / "manifests"
    folder.mkdir()
    loop.symlink_to(loop)
    named = {"loop": [str(loop)], "nul": ["\0"], "good": [str(world(tmp_path))]}
    for name, paths in named.items():
        text = f'name = "{name}"\ndescription = "d"\ncommand = ["cat", "~1.2"]\nwrite = {toml(paths)}\n'
        (folder / f"{name}.toml").write_text(text)
    async with booted() as kernel:
        complaints = kernel.tools.install_folder(folder)
        assert ["no path" in each for each in complaints] == [True, True]
        known = {tool.name for tool in (await kernel.init_gate().call(ToolList())).value.tools}
        assert known & set(named) == {"good"}
