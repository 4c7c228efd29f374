from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.errors import InvalidCall
from aios.sdk.arguments import bind, usage

if TYPE_CHECKING:
    from aios.sdk.blocking import Client


def plain(client: "Client", name: str, n: int = 1, *rest: float) -> None: ...
def words(client: object, name: str = "", *rest: str) -> None: ...
def raw(client: object, *args: str) -> None: ...
def options(  # type: ignore[no-untyped-def]  # the point of the test
    client: object,
    *files: str,
    out: Path = Path("x"),
    max_bytes: int | None = None,
    compare: bool = True,
    kind: Literal["a", "b"] = "a",
    untyped="",
) -> None: ...
def needs(client: object, *, task: str) -> None: ...
def lonely(client: object) -> None: ...


@pytest.mark.parametrize(
    ("function", "line", "args", "kwargs"),
    [
        (plain, "ann", ("ann",), {}),
        (plain, "ann 3 1.5 2", ("ann", 3, 1.5, 2.0), {}),
        (plain, "--name ann", (), {"name": "ann"}),
        (plain, "ann --n=3", ("ann",), {"n": 3}),
        (words, "--else -- --name", ("--else", "--", "--name"), {}),
        (raw, "--task x -- -y", ("--task", "x", "--", "-y"), {}),
        (options, "a b --out /srv/y", ("a", "b"), {"out": Path("/srv/y")}),
        (options, "--max-bytes 9 --no-compare", (), {"max_bytes": 9, "compare": False}),
        (options, "--max_bytes=9 --compare", (), {"max_bytes": 9, "compare": True}),
        (options, "--compare=false --kind=b", (), {"compare": False, "kind": "b"}),
        (options, "--untyped=a=b c", ("c",), {"untyped": "a=b"}),
        (options, "a -- --out b", ("a", "--out", "b"), {}),
        (options, "--untyped --out", (), {"untyped": "--out"}),
        (needs, "--task go", (), {"task": "go"}),
        (lonely, "", (), {}),
    ],
)
def test_a_command_line_becomes_arguments(
    function: Callable[..., object], line: str, args: tuple[object], kwargs: dict[str, object]
) -> None:
    assert bind(function, line.split()) == (args, kwargs)


@pytest.mark.parametrize(
    ("function", "line", "words"),
    [
        (plain, "", "'name'"),
        (plain, "ann three", "n: expected a whole number"),
        (plain, "ann --name bob", "multiple values for argument 'name'"),
        (plain, "--name", "--name needs a value"),
        (options, "--outt x", "no such option: --outt"),
        (options, "--out", "--out needs a value"),
        (options, "--max-bytes many", "max_bytes: expected a whole number"),
        (options, "--kind c", "kind: invalid enum value 'c'"),
        (options, "--no-out", "no such option: --no-out"),
        (needs, "", "'task'"),
        (needs, "go --task x", "too many positional"),
        (lonely, "x", "too many positional"),
    ],
)
def test_a_command_line_that_does_not_fit_says_why(
    function: Callable[..., object], line: str, words: str
) -> None:
    with pytest.raises(InvalidCall, match=words) as caught:
        bind(function, line.split())
    assert caught.value.hint == usage(function)


@given(st.lists(st.text(max_size=8)))
def test_no_command_line_breaks_it(argv: list[str]) -> None:
    with suppress(InvalidCall):
        assert set(bind(options, argv)[1]) <= {"out", "max_bytes", "compare", "kind", "untyped"}


def test_usage_shows_what_may_be_given() -> None:
    assert usage(plain) == "usage: NAME [N] [REST...]"
    assert usage(needs) == "usage: --task TASK"
    assert usage(lonely) == "usage: no arguments"
    assert usage(options).startswith(
        "usage: [FILES...] [--out OUT] [--max-bytes MAX-BYTES] [--compare]"
    )
