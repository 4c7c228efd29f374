"""What `doctor` looks at. Each check looks at one thing and tells what it found and the command that mends it."""

import os
import platform
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from aios import __version__
from aios.abi.types import EngineState
from aios.cli.connecting import connect
from aios.cli.link import find_running, names_kernel
from aios.cli.output import counted, short_size
from aios.configload import Loaded, unknown_variables
from aios.engine.models import check_model, find_model
from aios.engine.opening import LOCAL_PACKAGES, engine_kind, open_engine
from aios.errors import AiosError, ModelMissing
from aios.kernel.access.policy import Policies
from aios.kernel.access.policyfiles import load_sources
from aios.kernel.engines import thread_warnings
from aios.kernel.recovery import NO_JOURNAL
from aios.kernel.sandbox.probe import probe
from aios.kernel.tools.mcp.spec import read_specs
from aios.sdk.packets import MAX_SOCKET_PATH_BYTES

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
MIN_FREE_MEMORY_BYTES = 1_000_000_000
MIN_FREE_DISK_BYTES = 500_000_000
IMPORT_S = 60.0
COMPILERS = ("c++", "g++", "clang++")
INSTALL = "pip install 'aios-kernel[local]'"


class Level(Enum):
    """How good or bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(Struct, frozen=True):
    """One row of `doctor`; `mend` is a command, or what to do in words."""

    check: str
    level: Level
    found: str
    mend: str = ""


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, found)


def python(_: Loaded) -> Finding:
    """The interpreter's version."""
    found = f"{platform.python_version()} at {sys.executable}, aios {__version__}"
    if OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        return ok("python", found)
    return Finding("python", Level.FAIL, found, "use Python 3.11, 3.12 or 3.13")


def configuration(loaded: Loaded) -> Finding:
    """Where the configuration comes from; that it can be read is known by now."""
    n_set = sum(source != "default" for source in loaded.sources.values())
    there = "" if loaded.file.is_file() else " (not there, which is fine)"
    return ok("config", f"{loaded.file}{there}; {counted(n_set, 'knob')} not at the default")


def environment(_: Loaded) -> Finding | None:
    """Variables that somebody set for us, and that nobody reads: a misspelt one changes nothing and tells nobody."""
    unknown = unknown_variables(os.environ)
    if not unknown:
        return None
    mends = (
        f"call {name} {meant}" if meant else f"unset {name}" for name, meant in unknown.items()
    )
    found = f"nobody reads {', '.join(unknown)}"
    return Finding("env", Level.WARN, found, f"{'; '.join(mends)}; `aios config` names all")


def home(loaded: Loaded) -> Finding:
    """Whether AIOS_HOME can be written to."""
    root = loaded.home.root
    # `Path.exists` raises where a folder on the way may not be entered.
    nearest = next(folder for folder in (root, *root.parents) if os.path.exists(folder))  # noqa: PTH110
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        return Finding(
            "home", Level.FAIL, f"{root} cannot be written to", "set AIOS_HOME to a folder of yours"
        )
    free = shutil.disk_usage(nearest).free
    if free < MIN_FREE_DISK_BYTES:
        return Finding(
            "home", Level.WARN, f"{root} has only {short_size(free)} of room", "make room there"
        )
    return ok("home", f"{root}, {short_size(free)} free")


def token(loaded: Loaded) -> Finding:
    """Whether the owner's token is the owner's alone."""
    file = loaded.home.token_file
    try:
        status = file.stat()
    except OSError:
        return ok("token", f"{file} is made at the first start")
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.getuid():
        return Finding("token", Level.FAIL, f"{file} belongs to somebody else", f"rm {file}")
    if mode & 0o077:
        return Finding("token", Level.FAIL, f"{file} has mode {mode:o}", f"chmod 600 {file}")
    return ok("token", f"{file}, mode {mode:o}")


def socket_path(loaded: Loaded) -> Finding:
    """Whether the socket's path fits into what the system allows."""
    path = loaded.home.run / "kernel.sock"
    n_bytes = len(os.fsencode(path))
    if n_bytes <= MAX_SOCKET_PATH_BYTES:
        return ok("socket", f"{path}, {n_bytes} of {MAX_SOCKET_PATH_BYTES} bytes")
    found = f"{path} is longer than {MAX_SOCKET_PATH_BYTES} bytes: the socket goes elsewhere"
    return Finding("socket", Level.WARN, found, "set AIOS_HOME to a shorter path")


def port(loaded: Loaded) -> Finding:
    """Whether the TCP port is free, or taken by our own kernel."""
    server = loaded.config.server
    where = f"{server.host}:{server.port}"
    if server.port == 0:
        return ok("port", f"{server.host}, any free port")
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
        except OSError as error:
            if find_running(loaded.home) is not None:
                return ok("port", f"{where} is in use, and a kernel is running")
            return Finding("port", Level.WARN, f"{where}: {error.strerror}", "aios serve --port 0")
    return ok("port", f"{where} is free")


def memory(_: Loaded) -> Finding:
    """Whether there is memory for a model."""
    free = _available_memory_bytes()
    if free is None:
        return ok("memory", "not known on this system")
    if free < MIN_FREE_MEMORY_BYTES:
        found = f"{short_size(free)} available"
        return Finding("memory", Level.WARN, found, "end other programs, or use a remote engine")
    return ok("memory", f"{short_size(free)} available, {os.cpu_count()} cores")


def engine(loaded: Loaded) -> Finding:
    """Whether the packages of the engine can be imported; in another interpreter, for a broken build may crash it."""
    config = loaded.config.engine
    kind = engine_kind(config)
    if kind != "llama":
        return _other_engine(loaded, kind)
    code = f"import {', '.join(LOCAL_PACKAGES)}"
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and a fixed line
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=IMPORT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding("engine", Level.FAIL, f"`{code}` takes over {IMPORT_S:g} s", INSTALL)
    if done.returncode == 0:
        return ok("engine", "llama, embedded")
    last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
    return Finding("engine", Level.FAIL, f"the embedded engine is not there: {last}", INSTALL)


def _other_engine(loaded: Loaded, kind: str) -> Finding:
    config = loaded.config.engine
    if kind == "none":
        return Finding("engine", Level.WARN, "none: model calls will fail", "unset engine.kind")
    if kind == "scripted":
        return Finding("engine", Level.WARN, "scripted: answers are made up", "unset engine.kind")
    if not config.base_url:
        mend = "set engine.base_url, such as http://localhost:8080/v1"
        return Finding("engine", Level.FAIL, "openai, and no engine.base_url", mend)
    key = config.api_key_env
    if key and not os.environ.get(key):
        found = f"openai at {config.base_url}; {key} is not set"
        return Finding(
            "engine", Level.WARN, found, f"export {key}=..., if the endpoint wants a key"
        )
    return ok("engine", f"openai at {config.base_url}, key from {key or 'nowhere'}")


def compiler(loaded: Loaded) -> Finding | None:
    """Whether the embedded engine could be built; only asked when it is not there."""
    if engine_kind(loaded.config.engine) != "llama" or find_spec(LOCAL_PACKAGES[0]) is not None:
        return None
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if found is not None:
        return ok("compiler", f"{found}, to build the embedded engine with")
    mend = "install one (Debian: apt-get install g++; Fedora: dnf install gcc-c++)"
    return Finding(
        "compiler", Level.FAIL, "no C++ compiler to build the embedded engine with", mend
    )


def model(loaded: Loaded) -> Finding | None:
    """Whether the embedded engine's model is there and whole."""
    config = loaded.config.engine
    if engine_kind(config) != "llama":
        return None
    try:
        file = check_model(find_model(config.model, loaded.home), checksum=True)
    except ModelMissing as error:
        return Finding("model", Level.FAIL, error.message, error.hint)
    checked = "checksum good" if file.sha256 else "no checksum known"
    return ok("model", f"{file.name}, {short_size(file.size_bytes)}, {checked}")


def engines(loaded: Loaded) -> Finding | None:
    """Whether the engines beside `local` have what they need, and all embedded ones enough cores."""
    others = loaded.config.engines
    for name, config in others.items():
        try:
            if engine_kind(config) != "none":
                open_engine(name, config, loaded.home)
        except AiosError as error:
            return Finding("engines", Level.FAIL, f"{name}: {error.message}", error.hint)
    for warning in thread_warnings(loaded.config):
        return Finding("engines", Level.WARN, warning, "set engine.n_threads and those of the rest")
    told = ", ".join(f"{name} ({engine_kind(config)})" for name, config in others.items())
    return ok("engines", f"besides local: {told}") if told else None


def mcp(loaded: Loaded) -> Finding | None:
    """Whether the MCP servers that are named can be used; none is started."""
    specs, complaints = read_specs(loaded.config.mcp, os.environ)
    if not specs and not complaints:
        return None
    bad = [f"{each.name}: {each.problem}" for each in specs.values() if each.problem]
    if find_spec("mcp") is None:
        bad.append("the SDK is not installed")
        return Finding("mcp", Level.WARN, "; ".join(bad), "pip install 'aios-kernel[mcp]'")
    if complaints or bad:
        return Finding("mcp", Level.WARN, "; ".join([*complaints, *bad]), "see docs/guides/mcp.md")
    return ok("mcp", f"{counted(len(specs), 'server')}: {', '.join(sorted(specs))}")


def kernel(loaded: Loaded) -> Finding:
    """Whether a kernel runs and answers, and its engines with it."""
    if find_running(loaded.home) is None:
        return ok("kernel", "none is running; `aios run` and `aios chat` bring their own")
    try:
        with connect() as client:
            about = client.info()
    except AiosError as error:
        mend = error.hint or ("check AIOS_URL" if names_kernel() else "aios serve --detach")
        return Finding("kernel", Level.FAIL, error.message, mend)
    found = (
        f"{about.version}, pid {about.os_pid}, {counted(about.n_processes, 'process', 'processes')}"
    )
    if about.version != __version__:
        mend = "aios shutdown, then start it again"
        return Finding("kernel", Level.WARN, f"{found}; this command is {__version__}", mend)
    for each in about.engines:
        if each.state is EngineState.DOWN:
            mend = f"mend engine {each.name}; `aios info` shows whether it is up again"
            return Finding("kernel", Level.WARN, f"{found}; {each.name} is down: {each.note}", mend)
    return ok("kernel", found)


def walls(loaded: Loaded) -> Finding:
    """What stands between programs and the machine."""
    found = probe(loaded.config.sandbox.mode)
    if not found.missing:
        return ok("sandbox", f"{found.wall.value}, with control groups")
    return Finding("sandbox", Level.WARN, found.wall.value, "; ".join(found.missing))


def policies(loaded: Loaded) -> Finding:
    """Whether the policies can be read: no kernel starts without a rule that its owner wrote."""
    names = Policies(load_sources(loaded.config.access.profile, loaded.home.policies)).names
    return ok("policies", f"{len(names)}, profile {loaded.config.access.profile}")


def journal(loaded: Loaded) -> Finding | None:
    """Whether a daemon goes on where the last one ended."""
    if loaded.config.journal.is_on:
        return None
    return Finding("journal", Level.WARN, NO_JOURNAL, "set journal.is_on to true")


CHECKS: tuple[Callable[[Loaded], Finding | None], ...] = (
    python,
    configuration,
    environment,
    home,
    token,
    socket_path,
    port,
    memory,
    engine,
    compiler,
    walls,
    model,
    engines,
    mcp,
    policies,
    journal,
    kernel,
)


def _available_memory_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024
