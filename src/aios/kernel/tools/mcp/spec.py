"""What is known of a server before it starts: from `.mcp.json` files, as other clients write them, and from the configuration.

`${VAR}` and `${VAR:-default}` stand for variables of the kernel's environment. What such a variable, `env` or `headers` holds is taken
for a secret: it goes to the server alone, and `ServerSpec.hide` takes it out of whatever is shown.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from aios.abi.types import JsonObject
from aios.errors import ConfigError
from aios.malformed import named
from aios.mcpconfig import McpConfig, McpServer
from aios.plainfile import read_anything
from aios.readers import from_json

MAX_FILE_BYTES = 1 << 20
MIN_SECRET_CHARS = 6
"""What is shorter is no secret, and would blot out words by chance."""
HIDDEN = "***"
CONFIG = "config"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HTTP_TYPES = frozenset({"http", "streamable-http", "streamableHttp", "streamable_http"})
LEADS_ELSEWHERE = re.compile(r"(LD|DYLD)_\w+|\w*(PATH|HOME|OPTIONS|PRELOAD|STARTUP)|BASH_ENV")
"""Variables that say which code a program loads. What they hold is shown: it is no secret, and a yes is for it."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

PLAIN = McpServer()
"""What a server may do of which the configuration says nothing."""

Word = Annotated[str, Meta(max_length=64 << 10)]


class Entry(Struct, frozen=True):
    """A server in a `.mcp.json`. Fields that only other clients know are passed over."""

    type: str = ""
    command: Word = ""
    args: tuple[Word, ...] = ()
    env: dict[str, Word] = {}
    url: Word = ""
    headers: dict[str, Word] = {}
    disabled: bool = False


class McpFile(Struct, frozen=True):
    """A `.mcp.json`."""

    servers: dict[str, Entry] = msgspec.field(default_factory=dict, name="mcpServers")


class Written(Struct, frozen=True):
    """A server as it is written, variables not filled in: what its digest is of. What may be padded comes last."""

    command: str
    url: str
    env: Mapping[str, str]
    headers: Mapping[str, str]
    folder: str = ""
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServerSpec:
    """One server.

    Attributes:
        name: The first part of its tools' names.
        source: The file that it is from, or `config`.
        command: Its words; none for one over HTTP.
        url: Its endpoint.
        env: What it gets beside a plain environment.
        headers: What each request to it carries.
        folder: Where it starts and may read; None: a folder of its own.
        options: What it may do, and how it is used.
        problem: Why it cannot be used.
        digest: Another one whenever what is started or reached is another.
        written: What the digest is of.
        secrets: What is never shown.
    """

    name: str
    source: str
    command: tuple[str, ...] = field(default=(), repr=False)
    url: str = field(default="", repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: Path | None = None
    options: McpServer = PLAIN
    problem: str = ""
    digest: str = ""
    written: Written | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def where(self) -> str:
        """What it is, in a word: its program, or the host of its endpoint. Arguments may be secret, so they are not shown."""
        if self.command:
            return Path(self.command[0]).name
        if not self.url:  # a variable of it is not set
            return "-"
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"

    @property
    def shown(self) -> JsonObject:
        """All that a yes to it is for; of what `env` and `headers` hold, only the variables and, first, what says which code is loaded.

        The rest is not hidden by what they hold: whoever wrote it there could hide a command so.
        """
        if self.written is None:
            return {}
        found: JsonObject = msgspec.to_builtins(self.written)
        found["args"] = list(self.written.args)
        env = sorted(self.written.env.items(), key=lambda item: not _leads_elsewhere(item[0]))
        found["env"] = {name: _shown(name, value) for name, value in env}
        found["headers"] = {name: _shown("", value) for name, value in self.written.headers.items()}
        return found

    def hide(self, text: str) -> str:
        """A text without the server's secrets."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return text


def read_specs(
    config: McpConfig, env: Mapping[str, str]
) -> tuple[dict[str, ServerSpec], list[str]]:
    """All servers by name, and what was wrong with the files.

    A table of the configuration with neither a command nor an endpoint says what the server of that name in a file may do besides.
    Of two servers with one name the first stays.
    """
    found: dict[str, ServerSpec] = {}
    complaints: list[str] = []
    for name, table in config.servers.items():
        if table.command or table.url:
            found[name] = _of_table(name, table, env)
    for file in map(_path, config.files):
        try:
            entries = read_file(file)
        except ConfigError as error:
            complaints.append(error.message)
            continue
        for name, entry in entries.items():
            if name in found:
                complaints.append(f"{file} has a server {name!r}, which is in {found[name].source}")
                continue
            options = config.servers.get(name, PLAIN)
            found[name] = _of_entry(name, entry, file, options, env=env)
    complaints += [
        f"[mcp.servers.{name}] has neither `command` nor `url`, and no file has it"
        for name in config.servers
        if name not in found
    ]
    return {name: spec for name, spec in found.items() if spec.options.is_on}, complaints


def sources(config: McpConfig) -> set[str]:
    """The sources of all files of the configuration, whatever is in them and whether or not they are there."""
    return {str(_path(text)) for text in config.files}


def read_file(file: Path) -> dict[str, Entry]:
    """The servers of a `.mcp.json`, but for those that are switched off. A program may have made the file, whatever it is.

    Raises:
        ConfigError: It is not there, or no such file.
    """
    try:
        data = read_anything(file, MAX_FILE_BYTES + 1)
        if data is None:
            raise ConfigError(f"{file} is no regular file", hint="see `mcp.files`")
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"{file} is over {MAX_FILE_BYTES} bytes", hint="check the path")
        found = from_json(data, McpFile)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}", hint="see `mcp.files`"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{file} is no .mcp.json: {named(error)}", hint="see `mcp.files`"
        ) from error
    return {name: entry for name, entry in found.servers.items() if not entry.disabled}


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


class _Unset(Exception):
    """A variable without a value."""


class _Expansion:
    """Puts variables in, and remembers what they held."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.held: list[str] = []

    def fill(self, text: str) -> str:
        """The text with its variables filled in.

        Raises:
            _Unset: One of them is not set and has no default.
        """
        return _VARIABLE.sub(self._value, text)

    def _value(self, found: re.Match[str]) -> str:
        value = self._env.get(found[1], found[2])
        if value is None:
            raise _Unset(found[1])
        if found[1] in self._env:
            self.held.append(value)
        return value


def _of_entry(
    name: str, entry: Entry, file: Path, options: McpServer, *, env: Mapping[str, str]
) -> ServerSpec:
    """The server that an entry of a file describes."""
    folder = file.parent.resolve()
    raw = (entry.command, entry.args, entry.url, entry.env, entry.headers, str(folder))
    spec = ServerSpec(
        name,
        str(file),
        folder=folder,
        options=options,
        problem=_problem(name, entry),
        digest=_digest(raw),
        written=Written(
            entry.command, entry.url, entry.env, entry.headers, str(folder), entry.args
        ),
    )
    variables = _Expansion(env)
    try:
        words = tuple(map(variables.fill, (entry.command, *entry.args))) if entry.command else ()
        url = variables.fill(entry.url)
        extra = {key: variables.fill(value) for key, value in entry.env.items()}
        headers = {key: variables.fill(value) for key, value in entry.headers.items()}
    except _Unset as error:
        return replace(spec, problem=spec.problem or f"the variable {error} is not set")
    filled = replace(
        spec,
        command=words,
        url="" if words else url,
        env=extra,
        headers=headers,
    )
    return _with_secrets(filled, variables.held)


def _of_table(name: str, table: McpServer, env: Mapping[str, str]) -> ServerSpec:
    """The server that a table of the configuration describes."""
    raw = (table.command, table.args, table.url, table.env, table.headers)
    given = {key: f"${{{key}}}" for key in table.env}
    headers = {key: f"${{{value}}}" for key, value in table.headers.items()}
    written = Written(table.command, table.url, given, headers, args=table.args)
    spec = ServerSpec(name, CONFIG, options=table, digest=_digest(raw), written=written)
    missing = [key for key in (*table.env, *table.headers.values()) if key not in env]
    if missing:
        return replace(spec, problem=f"the variable {missing[0]} is not set")
    problem = "it has both `command` and `url`" if table.command and table.url else ""
    filled = replace(
        spec,
        command=(table.command, *table.args) if table.command else (),
        url="" if table.command else table.url,
        env={key: env[key] for key in table.env},
        headers={key: env[value] for key, value in table.headers.items()},
        problem=problem,
    )
    return _with_secrets(filled, ())


def _problem(name: str, entry: Entry) -> str:
    if not NAME.fullmatch(name):
        return "tools cannot be called by such a name: use letters, digits, `.`, `_` and `-`"
    if entry.type == "sse":
        return "it speaks HTTP+SSE, which the protocol gave up in 2025; use its Streamable HTTP endpoint"
    if entry.type not in {"", "stdio", *HTTP_TYPES}:
        return f"its type {entry.type[:40]!r} is not known"
    if not entry.command and not entry.url:
        return "it has neither `command` nor `url`"
    return ""


def _leads_elsewhere(name: str) -> bool:
    return LEADS_ELSEWHERE.fullmatch(name) is not None


def _shown(name: str, value: str) -> str:
    """What a variable or a header holds, as far as it is no secret: which variables are put in, not what is written around or instead of them."""
    if _leads_elsewhere(name):
        return value
    said, end = "", 0
    for found in _VARIABLE.finditer(value):
        default = "" if found[2] is None else f":-{HIDDEN if found[2] else ''}"
        said += (HIDDEN if found.start() > end else "") + f"${{{found[1]}{default}}}"
        end = found.end()
    return said + (HIDDEN if end < len(value) else "")


def _with_secrets(spec: ServerSpec, held: Iterable[str]) -> ServerSpec:
    """The longest first, so that no part of one is left when another is in it."""
    known = {*held, *spec.env.values(), *spec.headers.values()}
    known |= {value.partition(" ")[2] for value in spec.headers.values()}  # `Bearer TOKEN`
    secrets = sorted((each for each in known if len(each) >= MIN_SECRET_CHARS), key=len)
    return replace(spec, secrets=tuple(reversed(secrets)))


def _digest(raw: object) -> str:
    return blake2b(msgspec.json.encode(raw, order="deterministic"), digest_size=16).hexdigest()
