"""The verb `run`: a program becomes one or more processes.

With a kernel running, the processes are started before anything else is imported: they load while the command gets ready
to follow them. Without one, the command becomes the kernel for as long as they run.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from time import monotonic

import click
import msgspec

from aios.abi.budget import Limits
from aios.abi.calls import Spawn
from aios.abi.recovery import Restart, RestartPolicy
from aios.abi.types import Pid
from aios.cli.connecting import connect
from aios.cli.ending import Ending, ending_in_order
from aios.cli.exits import ExitCode
from aios.cli.limits import parse_limits
from aios.cli.link import find_running, names_kernel
from aios.cli.options import Size, examples, json_option
from aios.cli.orders import Order
from aios.cli.when import When, when_options
from aios.configfile import home_root
from aios.errors import (
    AiosError,
    Conflict,
    InvalidCall,
    KernelStopping,
    KernelUnreachable,
    NotFound,
)
from aios.home import Home
from aios.kernel.clock import SystemClock
from aios.readers import from_toml
from aios.sdk.address import Address
from aios.sdk.blocking import Client
from aios.sdk.requests import build

MANIFEST = "agent.toml"
MAX_COPIES = 10_000
RETRY_S = 0.1
STARTING_S = 3.0
"""How long to look for the kernel of another command that was quicker to start one."""
SETTLE_S = 15.0
"""How long to look again when the kernel that was found is just ending, or is not up yet."""


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        'aios run examples/hello --task "Say hi in French."',
        "aios run -n 4 --detach examples/hello",
        "aios run examples/digest --top -- --dir docs --json",
    ),
)
@click.argument("program")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--task",
    metavar="TEXT",
    help="The same as the arguments `--task TEXT`, the custom for an agent's task.",
)
@click.option(
    "-n",
    "--copies",
    "n_copies",
    type=click.IntRange(1, MAX_COPIES),
    default=1,
    help="So many processes.",
)
@click.option("--name", help="Name of the process; copies are NAME-1, NAME-2...")
@click.option("--nice", type=click.IntRange(-20, 19), default=0, help="-20 comes first, 19 last.")
@click.option(
    "--env",
    "pairs",
    multiple=True,
    metavar="K=V",
    help="A variable for the program; K alone takes ours.",
)
@click.option(
    "--cwd",
    type=click.Path(exists=True, file_okay=False),
    help="Its working directory; default: ours.",
)
@click.option(
    "--budget",
    "limits",
    multiple=True,
    metavar="WHAT=N",
    help=f"What it and all below it may spend: {', '.join(Limits.__struct_fields__)}.",
)
@click.option(
    "--read",
    "readable",
    multiple=True,
    metavar="PATH",
    help="A folder or file that it may read, beside its working directory and what ARGS name.",
)
@click.option(
    "--write", "writable", multiple=True, metavar="PATH", help="The same, to read and change."
)
@click.option(
    "--block-bytes",
    type=Size(4096, 1 << 30),
    help="Memory for its interactions, such as 4MB; default: what its agent.toml or the configuration says.",
)
@click.option(
    "--restart",
    "policy",
    type=click.Choice(("with-parent", "never", "on-failure", "always")),
    help="When it is started again; default: what its agent.toml says, else with the program that starts it.",
)
@click.option(
    "--detach", is_flag=True, help="Print the pids and leave; starts `aios serve` if need be."
)
@click.option(
    "--top",
    "shows_top",
    is_flag=True,
    help="Watch the process table meanwhile; the output comes after.",
)
@json_option
@when_options
def run(
    when: When | None,
    *,
    program: str,
    args: Sequence[str],
    task: str | None,
    n_copies: int,
    name: str | None,
    nice: int,
    pairs: Sequence[str],
    cwd: str | None,
    limits: Sequence[str],
    readable: Sequence[str],
    writable: Sequence[str],
    block_bytes: int | None,
    policy: RestartPolicy | None,
    detach: bool,
    shows_top: bool,
    as_json: bool,
) -> int:
    """Run PROGRAM, a folder with an agent.toml, as a process, and show what it writes.

    ARGS go to the program, and so do options that `run` does not know and everything after `--`. At its end the program's
    result is printed, and its status is the exit code: the first that is not 0 when there are copies. The program sees its
    own folder, its working directory, which it may change, and can read the files and folders that ARGS name. Ctrl-C ends
    the processes, a second one leaves at once. When no kernel runs, this command is the kernel meanwhile.
    """
    folder = _folder(program)
    spawn = build(
        Spawn,
        program=str(folder),
        args=(*args, *(("--task", task) if task is not None else ())),
        name=name,
        nice=nice,
        cwd=str(Path(cwd or ".").absolute()),
        read=(*map(_absolute, readable), *_named(args, Path(cwd or "."))),
        write=tuple(map(_absolute, writable)),
        env=environment(pairs),
        budget=parse_limits(limits) if limits else None,
        block_bytes=block_bytes,
        restart=None if policy is None else _restart(folder, policy),
    )
    order = Order(spawn, n_copies, shows_top=shows_top, as_json=as_json)
    if when is not None:
        return _set_timers(order, when)
    return _carry_out(order, detach=detach)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _named(args: Sequence[str], cwd: Path) -> list[str]:
    """The files and folders that arguments name, also as `--option=PATH`: whoever types a name means the program to read it.

    What lies in the program's working directory is not among them: it sees that anyway, and there may be thousands.
    """
    found = dict[str, None]()
    seen = cwd.resolve()
    for arg in args:
        path = Path(arg.partition("=")[2] if arg.startswith("--") else arg).absolute()
        with suppress(OSError, ValueError):  # a text too long for a file's name is none
            is_named = path.exists() and path not in (Path("/"), Path.cwd())
            if is_named and not path.resolve().is_relative_to(seen):
                found[str(path)] = None
    return list(found)


def _folder(program: str) -> Path:
    """The program's folder, looked at before a kernel is started for it."""
    if program.startswith("-"):
        raise click.UsageError(f"no such option: {program}", click.get_current_context())
    folder = Path(program).expanduser().absolute()
    if not (folder / MANIFEST).is_file():
        raise NotFound(
            f"no program at {folder}: {MANIFEST} is not there",
            hint="a program is a folder with an agent.toml; see docs/tutorial/first-agent.md",
        )
    return folder


def _restart(folder: Path, policy: RestartPolicy) -> Restart:
    """A policy with the delays and limits of the program's manifest. The kernel says what is wrong with a manifest."""
    restart = Restart(policy)
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        found = from_toml((folder / MANIFEST).read_bytes(), _WithRestart)
        restart = msgspec.structs.replace(found.restart, policy=policy)
    return restart


class _WithRestart(msgspec.Struct):
    """What `--restart` uses of a manifest."""

    restart: Restart = Restart()


def environment(pairs: Sequence[str]) -> dict[str, str]:
    """The variables of `--env`: K=V, or K for ours.

    Raises:
        InvalidCall: There is none of that name here.
    """
    found = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator and key not in os.environ:
            raise InvalidCall(f"--env {key}: there is no such variable", hint="say --env KEY=VALUE")
        found[key] = value if separator else os.environ[key]
    return found


def _carry_out(order: Order, *, detach: bool) -> int:
    """Run on the kernel that runs, else on one of our own."""
    home = Home(home_root(os.environ))
    give_up_s = monotonic() + SETTLE_S
    while True:
        address = find_running(home)
        if address is None and detach:
            address = _start_daemon(order)
        if address is None:
            # Start-up time: with a kernel running, its configuration is its own.
            from aios.cli.embedded import run_embedded  # noqa: PLC0415
            from aios.configload import load  # noqa: PLC0415

            code = run_embedded(order, load())
        else:
            code = _run_on(address, order, detach=detach, is_last_try=monotonic() > give_up_s)
        if code is not None:
            return code
        if monotonic() > give_up_s and find_running(home) is None:
            raise Conflict(
                f"{home.root} is held by a kernel that is starting or ending, or that cannot be found",
                hint="wait for it; if it stays so, end the `aios serve` that holds run/kernel.lock",
            )
        Event().wait(RETRY_S)


def _set_timers(order: Order, when: When) -> int:
    """Have the copies started when it is time, by a kernel that stays."""
    at_unix_s = when.at_unix_s(SystemClock().unix_s())
    if find_running(Home(home_root(os.environ))) is None:
        _start_daemon(order)
    with connect() as client:
        for call in order.calls():
            timer = client.timers.add(
                call, at_unix_s=at_unix_s, cron=when.every or "", zone=when.zone, missed=when.missed
            )
            order.tell_timer(timer)
    return ExitCode.OK


def _start_daemon(order: Order) -> Address:
    """Start a kernel that stays; say so.

    Raises:
        Conflict: It cannot: its port is taken, say.
    """
    # Start-up time: only who needs a daemon pays for starting one.
    from aios.cli.background import start_daemon  # noqa: PLC0415
    from aios.cli.readiness import check_engine  # noqa: PLC0415
    from aios.configload import load  # noqa: PLC0415

    loaded = load()
    check_engine(loaded, may_ask=not order.as_json)
    refused: Conflict | None = None
    try:
        log = start_daemon(loaded.home)
        order.note(f"no kernel was running: started `aios serve` in the background, log in {log}")
    except Conflict as error:  # another command was quicker, or nothing can run here
        refused = error
    give_up_s = monotonic() + STARTING_S
    while (address := find_running(loaded.home)) is None:
        if monotonic() > give_up_s:
            raise refused or KernelUnreachable("the kernel that was started has ended")
        Event().wait(RETRY_S)
    return address


def _run_on(address: Address, order: Order, *, detach: bool, is_last_try: bool) -> int | None:
    """Run on a kernel; None when it turned out to be ending before anything was started."""
    names: dict[Pid, str] = {}
    try:
        with connect(address.url, address.token) as client:
            try:
                with ending_in_order() as ending:
                    _spawn_all(client, order, names, ending)
                    if not detach:
                        return _stay(address, order, names)
            except (AiosError, KeyboardInterrupt, SystemExit, BrokenPipeError, BaseExceptionGroup):
                _kill_all(client, names)
                raise
            return _print_started(order, names)
    except (KernelStopping, KernelUnreachable):
        if names or names_kernel() or is_last_try:
            raise
        return None


def _spawn_all(client: Client, order: Order, names: dict[Pid, str], ending: Ending) -> None:
    """Start the copies; those that run are in `names` also when the next one fails."""
    for call in order.calls():
        with ending.held():  # else nobody would know of it
            spawned = client.gate.call(call).value
            names[spawned.pid] = spawned.name
        order.tell_started(spawned.pid, spawned.name)


def _kill_all(client: Client, names: Mapping[Pid, str]) -> None:
    for pid in names:
        with suppress(AiosError):
            client.kill(pid, "interrupted")


def _print_started(order: Order, names: Mapping[Pid, str]) -> int:
    if not order.as_json:
        for pid, name in names.items():
            click.echo(f"{pid}  {name}")
    return ExitCode.OK


def _stay(address: Address, order: Order, names: Mapping[Pid, str]) -> int:
    # Start-up time: the event loop is imported while the program that was just started loads.
    import anyio  # noqa: PLC0415

    from aios.cli.foreground import stay_on  # noqa: PLC0415

    try:
        return anyio.run(stay_on, address, order, names)
    except* (KernelUnreachable, KernelStopping):
        ids = " ".join(names.values())
        order.note(f"those with a restart policy go on under the next kernel: `aios logs -f {ids}`")
        raise
