"""A command line for a function: its parameters say what may be given. Pure.

Positional parameters take the arguments in order, `*rest` the remaining ones, keyword-only parameters are options
(`--max-bytes 10` or `--max-bytes=10` for `max_bytes`), a bool among them is a flag (`--compare`, `--no-compare`). As in a call in
Python, a positional one may be named, too. What has a type hint is converted to it. A function without keyword-only parameters gets
every argument as it stands that names none of its parameters.
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import cast, get_type_hints

from aios.errors import InvalidCall
from aios.malformed import named
from aios.readers import convert

Parameters = Mapping[str, inspect.Parameter]


def bind(
    function: Callable[..., object], argv: Sequence[str]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The positional and keyword arguments for a function, without its first parameter (the client).

    Raises:
        InvalidCall: They do not fit; the hint is the usage.
    """
    parameters = _parameters(function)
    try:
        words, options = _split(parameters, list(argv))
        args, kwargs = _convert(function, parameters, words, options)
        inspect.signature(function).bind(None, *args, **kwargs)
    except TypeError as error:
        raise InvalidCall(str(error), hint=usage(function)) from None
    return args, kwargs


def usage(function: Callable[..., object]) -> str:
    """One line: what may be given."""
    shown = [_shown(parameter) for parameter in _parameters(function).values()]
    return "usage: " + (" ".join(filter(None, shown)) or "no arguments")


def _parameters(function: Callable[..., object]) -> Parameters:
    """All parameters but the first."""
    return dict(list(inspect.signature(function).parameters.items())[1:])


def _split(parameters: Parameters, argv: list[str]) -> tuple[list[str], dict[str, object]]:
    """Tell words from options."""
    known = {
        name: p
        for name, p in parameters.items()
        if p.kind in {p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD}
    }
    takes_all = not any(p.kind is p.KEYWORD_ONLY for p in known.values())
    words: list[str] = []
    options: dict[str, object] = {}
    while argv:
        word = argv.pop(0)
        if word == "--":
            return words + [word] * takes_all + argv, options
        if not word.startswith("--"):
            words.append(word)
            continue
        key, has_value, value = word[2:].partition("=")
        name = key.replace("-", "_")
        parameter = known.get(name)
        if _is_flag(parameter) and not has_value:
            options[name] = True
        elif name.startswith("no_") and _is_flag(known.get(name[3:])) and not has_value:
            options[name[3:]] = False
        elif parameter is None and takes_all:
            words.append(word)
        elif parameter is None:
            raise TypeError(f"no such option: --{key}")
        elif has_value or argv:
            options[name] = value if has_value else argv.pop(0)
        else:
            raise TypeError(f"--{key} needs a value")
    return words, options


def _convert(
    function: Callable[..., object],
    parameters: Parameters,
    words: list[str],
    options: dict[str, object],
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Make the texts values of the types that the parameters have."""
    hints = _hints(function)
    slots = [p for p in parameters.values() if p.kind is not p.KEYWORD_ONLY]
    args: list[object] = []
    for i, word in enumerate(words):
        parameter = slots[min(i, len(slots) - 1)] if slots else None
        args.append(_value(word, parameter.name, hints) if parameter else word)
    return tuple(args), {name: _value(value, name, hints) for name, value in options.items()}


def _value(given: object, name: str, hints: Mapping[str, object]) -> object:
    if name not in hints:
        return given
    try:
        return convert(given, cast("type[object]", hints[name]), strict=False, hook=_construct)
    except ValueError as error:
        raise TypeError(f"{name}: {named(error)}") from error


def _construct(kind: type, given: object) -> object:
    """Types that JSON does not have, such as Path, are made from the text."""
    return kind(given)


def _hints(function: Callable[..., object]) -> Mapping[str, object]:
    """Type hints; a `main` may name its client's type under TYPE_CHECKING only, so what is unknown counts as no hint."""
    raw = dict(getattr(function, "__annotations__", {}))
    names = {**vars(sys.modules[function.__module__])}
    found: dict[str, object] = {}
    for name, hint in raw.items():
        probe = type("Probe", (), {"__annotations__": {name: hint}})
        try:
            found[name] = get_type_hints(probe, globalns=names, include_extras=True)[name]
        except (NameError, AttributeError):
            continue
    return found


def _is_flag(parameter: inspect.Parameter | None) -> bool:
    return parameter is not None and (
        parameter.annotation in (bool, "bool") or isinstance(parameter.default, bool)
    )


def _shown(parameter: inspect.Parameter) -> str:
    name = parameter.name.replace("_", "-")
    match parameter.kind:
        case parameter.VAR_KEYWORD:
            return ""
        case parameter.VAR_POSITIONAL:
            return f"[{name.upper()}...]"
        case parameter.KEYWORD_ONLY:
            shown = f"--{name}" if _is_flag(parameter) else f"--{name} {name.upper()}"
        case _:
            shown = name.upper()
    return shown if parameter.default is parameter.empty else f"[{shown}]"
