"""The command `aios`: the table of verbs, and the one place where errors become exit codes.

A verb's module is imported only when that verb runs, so `aios ps` pays for nothing that `aios chat` needs.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, cast

import click
from msgspec import Struct

from aios import __version__
from aios.cli.exits import ExitCode, report, tell, wants_color
from aios.cli.hints import options_of
from aios.errors import AiosError, InvalidCall
from aios.server.collector import settle_collector

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Verb(Struct, frozen=True):
    """Where a verb is, and what `aios --help` says of it."""

    target: str
    help: str

    def load(self) -> click.Command:
        """Import it."""
        module, _, name = self.target.partition(":")
        return cast("click.Command", getattr(import_module(module), name))


SECTIONS: Mapping[str, Mapping[str, Verb]] = MappingProxyType(
    {
        "Processes": {
            "run": Verb("aios.cli.run:run", "Run a program as a process."),
            "ps": Verb("aios.cli.processes:ps", "List processes."),
            "top": Verb("aios.cli.top:top", "Watch processes and engines."),
            "logs": Verb("aios.cli.logs:logs", "Show what a process wrote."),
            "journal": Verb("aios.cli.journal:journal", "Show what a process asked of the kernel."),
            "replay": Verb("aios.cli.replay:replay", "Go through a run again, and compare runs."),
            "fork": Verb("aios.cli.fork:fork", "Branch programs off at a call of their past."),
            "checkpoint": Verb(
                "aios.cli.checkpoint:checkpoint", "Put processes away, to come back to."
            ),
            "restore": Verb(
                "aios.cli.checkpoint:restore", "Bring a process back from a checkpoint."
            ),
            "branch": Verb("aios.cli.branch:branch", "Try branches side by side, and commit one."),
            "inspect": Verb("aios.cli.journal:inspect", "Show all that is known of a process."),
            "events": Verb("aios.cli.journal:events", "Watch calls end and processes come and go."),
            "timer": Verb("aios.cli.timer:timer", "List and remove timers."),
            "approvals": Verb(
                "aios.cli.approvals:approvals", "Answer what agents ask before they act."
            ),
            "recover": Verb(
                "aios.cli.recover:recover", "Decide about processes cut off by a crash."
            ),
            "wait": Verb("aios.cli.processes:wait", "Wait until processes have ended."),
            "kill": Verb("aios.cli.processes:kill", "End processes and all their children."),
            "stop": Verb("aios.cli.processes:stop", "Hold processes and all their children."),
            "cont": Verb("aios.cli.processes:cont", "Let stopped processes go on."),
            "budget": Verb("aios.cli.budget:budget", "Show and set what a process may spend."),
            "mail": Verb("aios.cli.mail:mail", "Read and write letters as the owner."),
            "mem": Verb("aios.cli.mem:mem", "Look into what agents remember."),
            "nice": Verb("aios.cli.processes:nice", "Set how willing processes are to wait."),
        },
        "Files": {
            "fs": Verb("aios.cli.fs:fs", "Look at, change and bring back files of agents."),
            "undo": Verb("aios.cli.undo:undo", "Take back what a process did to files."),
            "export": Verb("aios.cli.archive:export", "Write all notes and files to one file."),
            "import": Verb("aios.cli.archive:import_", "Take in what `export` wrote."),
            "fsck": Verb("aios.cli.fsck:fsck", "Check all that is stored of files."),
        },
        "Tools": {
            "tool": Verb("aios.cli.tool:tool", "List, look at and run tools."),
            "mcp": Verb("aios.cli.mcp:mcp", "List, check and trust MCP servers."),
        },
        "Models": {
            "chat": Verb("aios.cli.chat:chat", "Talk with a model."),
            "ctx": Verb("aios.cli.ctx:ctx", "List, save and shorten the contexts of processes."),
            "pull": Verb("aios.cli.models:pull", "Fetch a model."),
            "models": Verb("aios.cli.models:models", "List, check and remove models."),
        },
        "Kernel": {
            "serve": Verb("aios.cli.serve:serve", "Run the kernel."),
            "shutdown": Verb("aios.cli.control:shutdown", "End the running kernel."),
            "info": Verb("aios.cli.control:info", "Show the running kernel and its engines."),
            "pages": Verb("aios.cli.pages:pages", "Show the stores of KV pages."),
            "guest": Verb("aios.cli.control:guest", "Make a token for a third-party client."),
            "sched": Verb("aios.cli.sched:sched", "Show and set how turns at engines are given."),
            "audit": Verb("aios.cli.audit:audit", "Show and check the log of what was done."),
            "secret": Verb(
                "aios.cli.secret:secret", "Keep secrets that programs use and never see."
            ),
            "policy": Verb("aios.cli.policy:policy", "Read, ask and test what agents may do."),
            "grant": Verb("aios.cli.grant:grant", "Give a program what its manifest asks for."),
            "revoke": Verb("aios.cli.grant:revoke", "Take back what a program was granted."),
            "config": Verb("aios.cli.settings:config", "Show each knob and where it came from."),
            "doctor": Verb("aios.cli.doctor:doctor", "Say what is missing and how to mend it."),
            "bench": Verb("aios.cli.bench:bench", "Measure this machine against the bars."),
            "completion": Verb("aios.cli.completion:completion", "Print a shell's completion."),
        },
    }
)

VERBS: Mapping[str, Verb] = MappingProxyType(
    {name: verb for section in SECTIONS.values() for name, verb in section.items()}
)

N_STANDARD_FILES = 3

QUOTED = re.compile(r"(?<!\w)'([^'\n]*)'(?!\w)")
"""What click puts between single quotes; an apostrophe is none."""

NUMBERS: Mapping[str, str] = MappingProxyType(
    {
        "integer range": "whole number",
        "integer": "whole number",
        "float range": "number",
        "float": "number",
    }
)
"""What click calls numbers, and what they are called."""

EPILOG = """\b
Examples:
  aios pull                             fetch the default model, once
  aios run examples/hello               run a program; starts a kernel for it
  aios chat "Name three seas."          ask a model
  aios serve --detach                   keep a kernel running
  aios run -n 4 --detach examples/hello
  aios top

Exit codes: 0 ok, 1 failed, 2 usage, 3 no kernel, 4 not found, 5 denied, 6 conflict, 7 no model or engine, 8 busy or
timed out, 130 Ctrl-C. AIOS_DEBUG=1 shows tracebacks, NO_COLOR=1 takes colours away.
"""


class VerbGroup(click.Group):
    """The root command; it knows its verbs from the table and imports the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        verb = VERBS.get(cmd_name)
        return None if verb is None else verb.load()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in VERBS and not name.startswith("-") and not ctx.resilient_parsing:
            # click compares with the commands that were loaded, and none is
            from difflib import get_close_matches  # noqa: PLC0415 - start-up time

            near = " or ".join(f"`{verb}`" for verb in get_close_matches(name, VERBS))
            hint = f" Did you mean {near}?" if near else ""
            raise click.UsageError(f"No such command `{name}`.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, verb.help) for name, verb in verbs.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":  # noqa: ARG002 - click's signature
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - start-up time

        return [
            CompletionItem(name, help=verb.help)
            for name, verb in VERBS.items()
            if name.startswith(incomplete)
        ]


@click.group(
    cls=VerbGroup,
    invoke_without_command=True,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="aios", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """AIOS: an operating system for LLM agents."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: The command line without the command's name; the process's own when None.

    Returns: The exit code.
    """
    argv = sys.argv[1:] if args is None else list(args)
    if args is None:
        sys.excepthook = report_bug
        _open_standard_files()
        settle_collector()  # else it looks through all modules several times while those of a verb are imported
    as_json = "--json" in argv[: argv.index("--")] if "--" in argv else "--json" in argv
    try:
        code = cli.main(argv, prog_name="aios", standalone_mode=False, color=wants_color())
    except click.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        return _refuse(error, as_json=as_json)
    except AiosError as error:
        return report(error, as_json=as_json, options=options_of(_command(argv)))
    except BaseExceptionGroup as group:
        if group.split(BrokenPipeError)[1] is None:
            return _end_unheard()
        return report(_only_error(group), as_json=as_json, options=options_of(_command(argv)))
    except UnicodeDecodeError as error:
        refused = InvalidCall("the input is not text in UTF-8")
        refused.__cause__ = error
        return report(refused, as_json=as_json)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return report(AiosError(message), as_json=as_json)
    return code if isinstance(code, int) else ExitCode.OK


def _open_standard_files() -> None:
    """Stand in for those of the three that whoever started us has closed (`aios ps >&-`).

    Else there is nothing to write to, and the next file that is opened gets their number: a library's warnings went into it.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (number := os.open(os.devnull, os.O_RDWR)) < N_STANDARD_FILES:
        pass
    os.close(number)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")


def _command(argv: Sequence[str]) -> click.Command:
    """The command that a line names: the last of those that its words lead to."""
    found: click.Command = cli
    for word in argv:
        if isinstance(found, click.Group):
            found = found.get_command(click.Context(found), word) or found
    return found


def _refuse(error: click.ClickException, *, as_json: bool) -> int:
    """Tell what is wrong with the command line."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"`{context.command_path} --help` shows how" if context is not None else ""
    message = error.format_message()
    if (
        message.startswith("Usage: ") and not as_json
    ):  # a group alone: its help is all there is to say
        click.echo(message, err=True, color=wants_color())
        return ExitCode.USAGE
    message = QUOTED.sub(r"`\1`", message.rstrip("."))
    for range_, words in NUMBERS.items():
        message = message.replace(f"is not a valid {range_}", f"is no {words}")
    tell(message, hint=hint, code="usage", exit_code=ExitCode.USAGE, as_json=as_json)
    return ExitCode.USAGE


def _end_unheard() -> int:
    """Whoever read the output has gone, as in `aios run ... | head -1`: end as click does where no task group is around it."""
    os.dup2(
        os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
    )  # what is left is not written at exit
    return ExitCode.FAILED


def _only_error(group: BaseExceptionGroup[BaseException]) -> AiosError:
    """The first of our errors in a group of a task group; anything else is raised again, as a bug."""
    found: BaseException = group.subgroup(AiosError) or group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    if not isinstance(found, AiosError):
        raise group
    return found


def report_bug(cls: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell an error that nobody foresaw, in a line; the traceback only for those who ask."""
    if os.environ.get("AIOS_DEBUG"):
        sys.__excepthook__(cls, error, trace)
    tell(
        f"a bug in aios: {cls.__name__}: {error}",
        hint="AIOS_DEBUG=1 shows where; please report it",
        code="bug",
        exit_code=ExitCode.FAILED,
        as_json="--json" in sys.argv,
    )


if __name__ == "__main__":
    sys.exit(main())
