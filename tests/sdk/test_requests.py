"""What the SDK says of arguments that do not fit."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from aios.abi.budget import Limits, SetBudget
from aios.abi.calls import Spawn
from aios.abi.every import AnyCall
from aios.abi.mail import Receive
from aios.abi.memory import MemoryGet, Recall, Remember
from aios.abi.storage import Delete, Move, Put
from aios.errors import InvalidCall
from aios.sdk import requests
from aios.sdk.approvals import Approvals, BlockingApprovals
from aios.sdk.branches import start_call
from aios.sdk.files import Files
from aios.sdk.files_blocking import BlockingFiles
from aios.sdk.requests import ARGUMENTS, build, chat_call, checked, spawn_call

SDK = Path(requests.__file__).parent
NOBODY: Any = None
"""A gate that is never asked."""
INNER = {"_all_in", "_hits", "_one_source"}
"""Functions of which no argument is a caller's."""


def spawned(**folders: Any) -> Spawn:
    places: dict[str, Any] = {"read": None, "write": None, **folders}
    return spawn_call("x", (), name=None, nice=0, cwd=None, env=None, budget=None, **places)


def methods() -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for file in SDK.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in INNER:
                yield node


def renamed(method: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, str, str]]:
    """The class, field and argument of each field of a call that is filled from an argument of another name."""
    taken = {each.arg for each in (*method.args.args, *method.args.kwonlyargs)}
    for call in ast.walk(method):
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != "build":
            continue
        for keyword in call.keywords:
            value = keyword.value
            if not (keyword.arg and isinstance(value, ast.Name)):
                continue
            if value.id in taken - {keyword.arg}:
                yield ast.unparse(call.args[0]), keyword.arg, value.id


def test_each_field_that_a_client_calls_otherwise_is_told_by_its_argument() -> None:
    tags = {call.__name__: str(call.__struct_config__.tag) for call in get_args(AnyCall)}
    found: dict[str, dict[str, str]] = {}
    for method in methods():
        for name, field, argument in renamed(method):
            found.setdefault(tags[name], {})[field] = argument
    assert found == ARGUMENTS


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build(MemoryGet, id=0), "`note`: expected a whole number >= 1"),
        (lambda: build(Remember, text="x", importance=2), "`importance`: expected a number <= 1.0"),
        (lambda: build(Remember, text=" \n\t"), "`text`: expected text that is not only blanks"),
        (lambda: build(Remember, text=""), "`text`: expected text that is not only blanks"),
        (
            lambda: build(Remember, text="x", tags=[" "]),
            "`tags[0]`: expected text that is not only blanks",
        ),
        (lambda: build(Recall, query=" "), "`query`: expected text that is not only blanks"),
        (lambda: build(Receive, limit=0), "`limit`: expected a whole number >= 1"),
        (lambda: chat_call("x", temperature=-1), "`temperature`: expected a number >= 0.0"),
        (lambda: build(Remember, text="x", colour="red"), "unknown field `colour`"),
        (lambda: build(SetBudget, pid=2, limits=Limits(calls=-1)), "`limits.calls`: expected a"),
        (lambda: checked(Put(path="x", data=5)), "`data`: expected bytes, got a whole number"),  # type: ignore[arg-type]  # the mistake
        (lambda: chat_call("x", max_tokens=0), "`max_tokens`: expected a whole number >= 1"),
        (lambda: chat_call([{"role": "wizard"}]), "message 0: `role`: invalid enum value 'wizard'"),
        (
            lambda: chat_call("x", regex=3),  # type: ignore[arg-type]  # that is the mistake
            "`regex`: expected text, got a whole number",
        ),
    ],
)
def test_the_argument_is_named_and_not_the_field_on_the_wire(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(InvalidCall) as raised:
        make()
    assert raised.value.message.startswith(message)
    assert "$" not in raised.value.message + raised.value.hint


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: BlockingFiles(NOBODY).retrieve(keywords="invoice"), "keywords"),
        (lambda: BlockingFiles(NOBODY).group_by("topic", keywords="invoice"), "keywords"),
        (lambda: Files(NOBODY).retrieve(keywords="invoice").send(None), "keywords"),
        (lambda: Files(NOBODY).group_by("topic", keywords="invoice").send(None), "keywords"),
        (lambda: BlockingApprovals(NOBODY).ask("more?", choices="yes"), "choices"),
        (lambda: Approvals(NOBODY).ask("more?", choices="yes").send(None), "choices"),
        (
            lambda: start_call(2, None, None, instructions="be brief", budget=None, may_act=False),
            "instructions",
        ),
        (lambda: spawned(read="/data"), "read"),
        (lambda: spawned(write="/data"), "write"),
    ],
)
def test_a_text_where_several_are_meant_is_refused_and_not_taken_letter_by_letter(
    make: Callable[[], object], argument: str
) -> None:
    with pytest.raises(InvalidCall, match=f"`{argument}`: expected a list.*, got text"):
        make()


def test_the_hint_names_what_help_understands() -> None:
    with pytest.raises(InvalidCall) as raised:
        build(Remember, text="")
    assert raised.value.hint == "see `help('aios.abi.memory.Remember')`"


def test_what_is_right_is_taken_as_it_is() -> None:
    for edit in (Put(path="a", data=b"1", if_version=2), Move(source="a", target="b"), Delete("c")):
        assert checked(edit) == edit
    assert checked(5) == 5, "no edit at all: the call says so"
