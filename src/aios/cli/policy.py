"""The verb `policy`: read the policies of this home, ask them something, and test what they answer. No kernel is needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import click
import msgspec
from msgspec import Meta, Struct

from aios.abi.access import Decision, Principal, Request, Resource, Verdict
from aios.cli.exits import ExitCode
from aios.cli.options import examples, json_option
from aios.cli.output import write_json
from aios.configload import load
from aios.errors import AiosError, ConfigError, InvalidCall
from aios.kernel.access import requests
from aios.kernel.access.grants import Grants
from aios.kernel.access.naming import RESOURCES
from aios.kernel.access.policy import ACTIONS, TOOL_RUN, Policies
from aios.kernel.access.policyfiles import PROFILES, file_source, load_sources, profile_source
from aios.kernel.storage.paths import parse
from aios.malformed import named
from aios.readers import convert, from_toml

EXIT_OF = {
    Verdict.ALLOW: ExitCode.OK,
    Verdict.ASK: ExitCode.FAILED,
    Verdict.DENY: ExitCode.DENIED,
}
KINDS = ("program", "task", "guest", "init")
MAX_TEST_BYTES = 1 << 20
ShortName = Annotated[str, Meta(min_length=1, max_length=256)]


class Case(Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[case]]` of a test file: a request, and what is to be decided."""

    expect: Verdict
    action: ShortName
    resource: str = ""
    """As `Path::/shared/x` or `Tool::shell`; empty is the kernel."""
    agent: tuple[ShortName, ...] | ShortName = "agent"
    """The agent, or several of which each started the next."""
    kind: Literal["program", "task", "guest", "init"] = "program"
    owner: ShortName = "owner"
    program: str = ""
    effect: Literal["", "pure", "reversible", "compensable", "irreversible"] = ""
    """Empty: the mildest that a call of this kind has."""
    is_own: bool = False
    is_tainted: bool = False
    is_installed: bool = False

    def principals(self, grants: Grants) -> tuple[Principal, ...]:
        """Who asks, outermost first, with what is granted to its program."""
        names = (self.agent,) if isinstance(self.agent, str) else self.agent
        program = str(Path(self.program).resolve()) if self.program else ""
        found = [Principal(name, self.owner, self.kind, program) for name in names]
        if program:
            found[-1] = msgspec.structs.replace(found[-1], granted=grants.rights_of(program))
        return tuple(found)

    def request(self) -> Request:
        """What is asked.

        Raises:
            ConfigError: No process ever asks that.
            InvalidCall: The path is none.
        """
        if self.action not in ACTIONS:
            raise ConfigError(
                f"{self.action!r} is no action", hint=f"the actions are {', '.join(ACTIONS)}"
            )
        resource = resource_of(self.resource)
        types = requests.ASKED[self.action]
        if resource.type not in types:
            raise ConfigError(
                f"`{self.action}` is never asked about {resource.type}::{resource.id}",
                hint=f"say a resource of type {' or '.join(types)}",
            )
        effects = types[resource.type]
        if self.effect and self.effect not in effects:
            raise ConfigError(
                f"`{self.action}` on a {resource.type} is never {self.effect}",
                hint=f"it is {' or '.join(effects)}",
            )
        if self.action != TOOL_RUN and (self.is_own or self.is_installed):
            raise ConfigError(
                f"`{self.action}` is about no tool, so about none that is its own or installed",
                hint=f"leave that out, or ask about `{TOOL_RUN}`",
            )
        effect = self.effect or effects[0]
        is_own = self.is_own or requests.is_own(self.action, resource)
        return Request(self.action, resource, effect, self.is_tainted, is_own, self.is_installed)


class Cases(Struct, frozen=True, forbid_unknown_fields=True):
    """A test file."""

    case: tuple[Case, ...]


@click.group(
    epilog=examples(
        "aios policy check",
        "aios policy explain file.read Path::/shared/vault/key --as ann",
        "aios policy test cases.toml",
    )
)
def policy() -> None:
    """Read the policies of this home, ask them something, and test what they answer."""


@policy.command(epilog=examples("aios policy check", "aios policy check draft.cedar"))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@json_option
def check(*, files: Sequence[Path], as_json: bool) -> None:
    """Read the profile and all policies of this home, or FILES instead of these; a running kernel keeps those that it began with.

    Exit codes: 0 they can be read, 2 one cannot.
    """
    loaded = load()
    profile = loaded.config.access.profile
    if files:
        policies = Policies([profile_source(profile), *(file_source(file) for file in files)])
    else:
        policies = _policies(None)
    if as_json:
        write_json({"profile": profile, "policies": policies.names})
    else:
        for name in policies.names:
            click.echo(name)


@policy.command(
    epilog=examples(
        "aios policy explain file.write Path::/shared/report.md --as ann",
        "aios policy explain tool.run Tool::base/launch --effect irreversible --as boss --as ann",
    )
)
@click.argument("action", type=click.Choice(ACTIONS), metavar="ACTION")
@click.argument("resource", default="", metavar="[RESOURCE]")
@click.option("--as", "agent", multiple=True, help="Its name; several: each started the next.")
@click.option("--kind", type=click.Choice(KINDS), default="program", show_default=True)
@click.option("--owner", default="owner", show_default=True, help="Whose it is.")
@click.option("--program", default="", help="The folder of its program.")
@click.option("--effect", type=click.Choice(("pure", "reversible", "compensable", "irreversible")))
@click.option("--own", "is_own", is_flag=True, help="It is its own, or its children's.")
@click.option("--tainted", "is_tainted", is_flag=True, help="The arguments came from outside.")
@click.option("--installed", "is_installed", is_flag=True, help="The owner installed the tool.")
@click.option("--profile", type=click.Choice(PROFILES), help="Instead of `access.profile`.")
@json_option
def explain(
    *, profile: str | None, agent: Sequence[str], effect: str | None, as_json: bool, **asked: object
) -> int:
    """Say what would be decided, by which policies and why; RESOURCE is such as Path::/shared/x or Tool::shell.

    Exit codes: 0 allow, 1 ask, 5 deny.
    """
    fields = {**asked, "expect": "allow", "effect": effect or "", "agent": agent or ("agent",)}
    try:
        case = convert(fields, Case)
    except msgspec.ValidationError as error:
        raise InvalidCall(named(error), hint="say it otherwise") from error
    request = case.request()
    principals, decision = _decided(case, request, _policies(profile))
    if as_json:
        write_json({"decision": decision, "request": request, "principals": principals})
    else:
        click.echo(decision.verdict.value)
        for reason in decision.reasons:
            click.echo(f"  {reason}")
    return EXIT_OF[decision.verdict]


@policy.command(epilog=examples("aios policy test cases.toml", "aios policy test --json t.toml"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--profile", type=click.Choice(PROFILES), help="Instead of `access.profile`.")
@json_option
def test(*, file: Path, profile: str | None, as_json: bool) -> int:
    """Compare what the policies decide with what the [[case]]s of a TOML file expect.

    Exit codes: 0 all as expected, 1 some are not, 2 the file cannot be read.
    """
    policies = _policies(profile)
    n_failed = 0
    for number, case in enumerate(read_cases(file), 1):
        try:
            request = case.request()
        except AiosError as error:
            raise ConfigError(f"case {number}: {error.message}", hint=error.hint) from error
        _, decision = _decided(case, request, policies)
        is_expected = decision.verdict is case.expect
        n_failed += not is_expected
        if as_json:
            write_json({"case": number, "ok": is_expected, "decision": decision})
        else:
            click.echo(_line(number, case, decision))
    return ExitCode.FAILED if n_failed else ExitCode.OK


def read_cases(file: Path) -> tuple[Case, ...]:
    """The cases of a test file.

    Raises:
        ConfigError: It is none; the message names the case and the field.
    """
    with file.open("rb") as stream:
        data = stream.read(MAX_TEST_BYTES)
    try:
        return from_toml(data, Cases).case
    except (ValueError, UnicodeDecodeError) as error:  # msgspec's and tomllib's are ValueErrors
        raise ConfigError(
            f"{file} is no file of cases: {named(error)}", hint="see docs/concepts/access.md"
        ) from error


def resource_of(text: str) -> Resource:
    """A resource as people write it: `Path::/shared/x`, quotes around the id or not; empty is the kernel.

    Raises:
        ConfigError: Its type is none of ours.
        InvalidCall: It is a path that no file can have.
    """
    if not text:
        return Resource()
    kind, separator, name = text.partition("::")
    name = name.removeprefix('"').removesuffix('"')
    if kind not in RESOURCES or not separator or not name:
        raise ConfigError(
            f"{text!r} is no resource", hint=f"TYPE::ID with a type of {', '.join(RESOURCES)}"
        )
    if kind == "Path":
        if not name.startswith("/"):
            raise ConfigError(f"{text!r} is no whole path", hint="it begins with /")
        name = parse(name, "/")
    return Resource(kind, name)


def _policies(profile: str | None) -> Policies:
    loaded = load()
    return Policies(load_sources(profile or loaded.config.access.profile, loaded.home.policies))


def _decided(
    case: Case, request: Request, policies: Policies
) -> tuple[tuple[Principal, ...], Decision]:
    """Who asks, and what a kernel of this home would do."""
    loaded = load()
    principals = case.principals(Grants(loaded.home.grants))
    can_ask = loaded.config.approvals.timeout_s > 0
    return principals, requests.decide(policies, principals, request, can_ask=can_ask)


def _line(number: int, case: Case, decision: Decision) -> str:
    mark = "ok" if decision.verdict is case.expect else "FAILED"
    told = f"{number} {mark}: {case.action} {case.resource}".rstrip()
    if decision.verdict is case.expect:
        return f"{told} is {decision.verdict.value}"
    why = "; ".join(decision.reasons)
    return f"{told} is {decision.verdict.value}, not {case.expect.value}: {why}"
