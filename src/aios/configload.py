"""Reading the configuration: from flags, the environment and the file into `Config`, and where each value came from.

A value comes from the first of these that sets it: a flag of the command, `AIOS_<SECTION>_<KNOB>`, the file, the default.
The file is TOML, at `AIOS_CONFIG` or `$XDG_CONFIG_HOME/aios/config.toml`. `aios config` shows each value and its source.
"""

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import cast, get_type_hints

import msgspec
from msgspec import Meta, Struct

from aios.config import DEFAULT_ENGINE, Config, EngineConfig
from aios.configfile import file_path, home_named, read_toml
from aios.errors import ConfigError
from aios.home import Home
from aios.malformed import named
from aios.readers import convert, from_json
from aios.sizes import parse_size

PREFIX, TESTS = "AIOS_", "AIOS_TEST_"
OTHER_VARIABLES = frozenset(
    {"AIOS_CONFIG", "AIOS_DEBUG", "AIOS_LLAMA_TOOLS", "AIOS_TOKEN", "AIOS_URL"}
)
"""What is read from the environment and is no knob."""
ENGINES = "engines"
GUIDE = "docs/guides/configuration.md"
LISTS = frozenset(
    {
        "aliases",
        "fallback",
        "tools.fetch_hosts",
        "tools.fetch_private_hosts",
        "egress.hosts",
        "egress.private_hosts",
        "mcp.files",
    }
)
"""Knobs that hold names; in the environment these are separated by commas."""
TABLES = frozenset({"scheduler.weights", "mcp.servers"})
"""Knobs that hold tables; in the environment these are JSON."""
ENGINE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
SECTIONS = tuple(name for name in Config.__struct_fields__ if name not in {ENGINES, "home"})


class Setting(Struct, frozen=True):
    """One knob as `aios config` shows it."""

    name: str
    value: object
    source: str
    description: str
    env: str


class Loaded(Struct, frozen=True):
    """A configuration, and where each of its values came from."""

    config: Config
    home: Home
    file: Path
    sources: Mapping[str, str] = msgspec.field(default_factory=dict)

    def settings(self) -> list[Setting]:
        """Every knob with its value and source, in the order of this file."""
        rows = [
            Setting(
                "home",
                str(self.home.root),
                self.sources.get("home", "default"),
                _description(Config, "home"),
                "AIOS_HOME",
            )
        ]
        for section in SECTIONS:
            rows += self._section(section, getattr(self.config, section))
            if section == "engine":
                for name, part in self.config.engines.items():
                    rows += self._section(f"{ENGINES}.{name}", part)
        return rows

    def _section(self, section: str, part: Struct) -> list[Setting]:
        return [
            Setting(
                f"{section}.{knob}",
                getattr(part, knob),
                self.sources.get(f"{section}.{knob}", "default"),
                _description(type(part), knob),
                "" if section.startswith(f"{ENGINES}.") else _env(f"{section}.{knob}"),
            )
            for knob in part.__struct_fields__
        ]


def load(
    *,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    file: Path | None = None,
) -> Loaded:
    """Read the configuration.

    Args:
        env: The environment; the process's own when None.
        flags: Values by dotted name (`engine.n_slots`) from the command line; None values are skipped.
        file: The TOML file; `AIOS_CONFIG` or the default place when None. The default place may be absent.

    Raises:
        ConfigError: A file that is not there or no TOML, an unknown knob, or a value out of range; names the source.
    """
    env = os.environ if env is None else env
    path = file or file_path(env)
    must_exist = file is not None or "AIOS_CONFIG" in env
    merged: dict[str, tuple[object, str]] = {}
    for name, value in _flatten(read_toml(path, must_exist=must_exist), path):
        merged[name] = (value, f"file {path}")
    for name in _knobs():
        if _env(name) in env:
            merged[name] = (env[_env(name)], f"environment {_env(name)}")
    for name, flag in (flags or {}).items():
        if flag is not None:
            merged[name] = (flag, "flag")
    config = _build(merged)
    home = Home(home_named(config.home, env))
    return Loaded(config, home, path, {name: source for name, (_, source) in merged.items()})


def unknown_variables(env: Mapping[str, str]) -> dict[str, str]:
    """Variables that look like ours and that nobody reads, each with the one that was meant; an empty text where none is like it."""
    from difflib import get_close_matches  # noqa: PLC0415 - start-up time

    known = {*map(_env, _knobs()), *OTHER_VARIABLES}
    ours = {name for name in env if name.startswith(PREFIX) and not name.startswith(TESTS)}
    meant = {name.removeprefix(PREFIX): name for name in known}  # with the prefix all are alike
    found = {}
    for name in sorted(ours - known):
        near = get_close_matches(name.removeprefix(PREFIX), meant, n=1)
        found[name] = meant[near[0]] if near else ""
    return found


def _build(merged: Mapping[str, tuple[object, str]]) -> Config:
    tree: dict[str, object] = {}
    for name, (value, source) in merged.items():
        parsed = _convert(name, value, source)
        *sections, knob = name.split(".")
        part = tree
        for section in sections:
            inner = part.setdefault(section, {})
            assert isinstance(inner, dict)
            part = inner
        part[knob] = parsed
    config = convert(tree, Config)
    _check_engines(config)
    return config


def _check_engines(config: Config) -> None:
    """Refuse names that are taken or that nobody has."""
    known = config.all_engines()
    hint = f"see {GUIDE}"
    for name, engine in known.items():
        table = "engine" if name == DEFAULT_ENGINE else f"{ENGINES}.{name}"
        for other in engine.fallback:
            if other not in known or other == name:
                raise ConfigError(f"`{table}.fallback` names no other engine: {other!r}", hint=hint)
        for alias in engine.aliases:
            if alias in known and alias != name:
                raise ConfigError(f"`{table}.aliases` has the engine {alias!r}", hint=hint)


def _convert(name: str, value: object, source: str) -> object:
    knobs = _knobs()
    section, _, rest = name.partition(".")
    known = f"engine.{rest.partition('.')[2]}" if section == ENGINES else name
    if known not in knobs:
        from difflib import get_close_matches  # noqa: PLC0415 - start-up time

        near = " or ".join(f"`{knob}`" for knob in get_close_matches(known, knobs, n=2))
        raise ConfigError(
            f"unknown knob `{name}` in {source}",
            hint=f"did you mean {near}?" if near else f"{GUIDE} lists the knobs",
        )
    is_text = source.startswith("environment")
    if is_text and known.removeprefix("engine.") in LISTS:
        value = [part.strip() for part in str(value).split(",") if part.strip()]
    try:
        str(value).encode()  # else it can be in no answer and no message
        if isinstance(value, str) and known.endswith("_bytes"):
            value = parse_size(value)
        kind = cast("type[object]", knobs[known])
        if is_text and known in TABLES:
            return from_json(str(value), kind)
        return convert(value, kind, strict=not is_text)
    except ValueError as error:  # those of msgspec are, too
        raise ConfigError(
            f"`{name}` from {source}: {named(error)}",
            hint=_meaning(knobs[known]) or f"see {GUIDE}",
        ) from error


@cache
def _knobs() -> Mapping[str, object]:
    """The type of every knob by its dotted name."""
    found: dict[str, object] = {"home": str}
    parts = get_type_hints(Config, include_extras=True)
    for section in SECTIONS:
        for knob, kind in get_type_hints(parts[section], include_extras=True).items():
            found[f"{section}.{knob}"] = kind
    return found


def _description(cls: type, knob: str) -> str:
    return _meaning(get_type_hints(cls, include_extras=True)[knob])


def _meaning(kind: object) -> str:
    """What a knob of that type is for."""
    notes = (
        meta.description for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, Meta)
    )
    return next((note for note in notes if note), "")


def _env(name: str) -> str:
    return PREFIX + name.replace(".", "_").upper()


def _flatten(tree: Mapping[str, object], path: Path) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for key, value in tree.items():
        if key == ENGINES and isinstance(value, dict):
            rows.extend(_flatten_engines(value, path))
        elif isinstance(value, dict):
            rows.extend((f"{key}.{knob}", inner) for knob, inner in value.items())
        elif key == "home":
            rows.append((key, value))
        else:
            raise ConfigError(
                f"`{key}` in {path} stands outside a section",
                hint=f"sections are {', '.join(SECTIONS)}",
            )
    return rows


def _flatten_engines(tables: Mapping[str, object], path: Path) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, table in tables.items():
        if not isinstance(table, dict) or not ENGINE_NAME.fullmatch(name) or name == DEFAULT_ENGINE:
            raise ConfigError(
                f"`{ENGINES}.{name}` in {path} is no table of an engine",
                hint=f"write [{ENGINES}.NAME] with a name of letters, digits, `-` and `_`; `{DEFAULT_ENGINE}` is [engine]",
            )
        knobs = table or {"kind": EngineConfig().kind}  # an empty table is an engine too
        rows.extend((f"{ENGINES}.{name}.{knob}", value) for knob, value in knobs.items())
    return rows
