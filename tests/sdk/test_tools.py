import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from aios.errors import InvalidCall
from aios.sdk.invoke import invoke
from aios.sdk.terminated import Terminated
from aios.sdk.tools import ToolOutcome, failure, read_docstring, tool


class Order(enum.Enum):
    NEW = "newest"
    OLD = "oldest"


@dataclass
class Span:
    start: int
    end: int


class Node(msgspec.Struct):
    name: str
    children: list["Node"] = []


@tool
def search(
    query: str,
    limit: Annotated[int, Meta(ge=1, le=9)] = 5,
    *,
    order: Order = Order.NEW,
    kind: Literal["note", "mail"] = "note",
    span: Span | None = None,
    tags: list[str] = ["a"],  # noqa: B006 - the tool must not change it
) -> list[str]:
    """Find notes
    by words.

    Not for mails.

    Args:
        query: Words to
            look for.
        limit (int): The most that are returned.

    Returns:
        The notes.
    """
    return [f"{query}/{limit}/{order.value}/{kind}/{span}/{tags}"]


def test_what_a_model_is_told_comes_from_the_signature_and_the_docstring() -> None:
    spec = search.spec
    assert (spec.name, spec.description) == ("search", "Find notes by words.")
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "Words to look for."},
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": 9,
                "default": 5,
                "description": "The most that are returned.",
            },
            "order": {"title": "Order", "enum": ["newest", "oldest"], "default": "newest"},
            "kind": {"enum": ["mail", "note"], "default": "note"},
            "span": {
                "anyOf": [
                    {
                        "title": "Span",
                        "type": "object",
                        "properties": {"start": {"type": "integer"}, "end": {"type": "integer"}},
                        "required": ["start", "end"],
                        "additionalProperties": False,
                    },
                    {"type": "null"},
                ],
                "default": None,
            },
            "tags": {"type": "array", "items": {"type": "string"}, "default": ["a"]},
        },
        "required": ["query"],
        "additionalProperties": False,
    }


def test_arguments_become_values_of_their_types() -> None:
    text = '{"query":"q","limit":2,"order":"oldest","span":{"start":1,"end":2}}'
    assert search.arguments(text) == {
        "query": "q",
        "limit": 2,
        "order": Order.OLD,
        "kind": "note",
        "span": Span(1, 2),
        "tags": ["a"],
    }
    assert search.call_now(text).text == "[\"q/2/oldest/note/Span(start=1, end=2)/['a']\"]"


def test_a_tool_is_still_a_function() -> None:
    assert search("x", 1) == ["x/1/newest/note/None/['a']"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"query":1}', "`str`.*query"),
        ('{"query":"x","limit":"3"}', "`int`.*limit"),
        ('{"query":"x","limit":99}', "<= 9.*limit"),
        ('{"query":"x","kind":"song"}', "song"),
        ('{"query":"x","colour":"red"}', "colour"),
        ("{}", "query"),
        ("", "query"),
        ("[1]", "array"),
        ('{"query":', "JSON|truncated"),
        ("find me the notes", "JSON"),
        ("[" * 100_000, "."),
        ('{"query":"\ud800"}', "."),
    ],
)
def test_arguments_that_do_not_fit_tell_the_model_what_would(text: str, words: str) -> None:
    with pytest.raises(InvalidCall, match=words) as caught:
        search.arguments(text)
    assert "search(query: string, limit: integer = 5" in caught.value.message
    assert len(caught.value.message) < 1000
    outcome = search.call_now(text)
    assert outcome.is_error
    assert outcome.text.startswith("error: the arguments")
    outcome.text.encode()


@given(st.text())
def test_no_text_of_a_model_makes_a_tool_raise(text: str) -> None:
    assert isinstance(search.call_now(text), ToolOutcome)


@given(st.text(min_size=1), st.integers(1, 9), st.lists(st.text()))
def test_arguments_survive_the_way_through_json(query: str, limit: int, tags: list[str]) -> None:
    text = msgspec.json.encode({"query": query, "limit": limit, "tags": tags}).decode()
    arguments = search.arguments(text)
    assert (arguments["query"], arguments["limit"], arguments["tags"]) == (query, limit, tags)


def test_a_type_that_contains_itself_can_be_an_argument() -> None:
    @tool
    def grow(tree: Node) -> int:
        return len(tree.children)

    assert "$defs" in grow.spec.parameters
    assert grow.call_now('{"tree":{"name":"a","children":[{"name":"b"}]}}').text == "1"


def test_a_property_may_be_called_like_a_keyword_of_json_schema() -> None:
    @tool
    def odd(default: Span, properties: list[Span], enum: Order) -> str:
        return f"{default.start}{properties[0].end}{enum.value}"

    properties = odd.spec.parameters["properties"]
    assert isinstance(properties, dict)
    assert "$ref" not in str(properties)
    span = '{"start":1,"end":2}'
    text = f'{{"default":{span},"properties":[{span}],"enum":"oldest"}}'
    assert odd.call_now(text).text == "12oldest"


def test_name_and_description_can_be_given() -> None:
    @tool(name="look-up", description="Looks.", timeout_s=None)
    def f() -> str:
        """Another text."""
        return "x"

    assert (f.spec.name, f.spec.description, f.timeout_s) == ("look-up", "Looks.", None)
    assert f.usage() == "look-up()"
    assert f.call_now("").text == f.call_now("{}").text == "x"


def test_a_bound_method_can_be_a_tool() -> None:
    class Shelf:
        def find(self, title: str) -> str:
            """Find a book."""
            return title.upper()

    found = tool(Shelf().find)
    assert found.call_now('{"title":"x"}') == ToolOutcome("X")


def untyped(x) -> None:  # type: ignore[no-untyped-def]  # the point of the test
    ...


def starred(*words: str) -> None: ...
def keyworded(**options: int) -> None: ...
def positional(x: int, /) -> None: ...
def complicated(x: complex) -> None: ...
def called(x: Callable[[], int]) -> None: ...
def unknown(x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821 - the point of the test
def method(self, x: int) -> None: ...  # type: ignore[no-untyped-def]  # the point of the test


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (untyped, "`x` of tool untyped has no type hint"),
        (starred, "`words`.*no fixed name"),
        (keyworded, "`options`.*no fixed name"),
        (positional, "`x`.*no fixed name"),
        (complicated, "`x` of tool complicated: .*complex"),
        (called, "Callable"),
        (unknown, "Nowhere"),
        (method, "`self`"),
        (lambda: 1, "<lambda>"),
        (len, "len"),
    ],
)
def test_a_signature_that_no_model_could_use_is_refused_at_once(
    function: Callable[..., object], words: str
) -> None:
    with pytest.raises(InvalidCall, match=words) as caught:
        tool(function)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("plain", "plain"),
        (None, "null"),
        ([1, "a"], '[1,"a"]'),
        ({"a": Order.NEW}, '{"a":"newest"}'),
        (Span(1, 2), '{"start":1,"end":2}'),
        (True, "true"),
    ],
)
def test_a_result_is_text_or_json(result: object, text: str) -> None:
    @tool
    def f() -> object:
        return result

    assert f.call_now("{}") == ToolOutcome(text, is_json=not isinstance(result, str))


def test_a_result_that_json_cannot_hold_is_an_error_for_the_model() -> None:
    @tool
    def f() -> object:
        return object()

    assert f.call_now("{}").is_error


def test_a_long_result_is_cut_at_a_character_and_says_so() -> None:
    @tool(max_result_bytes=10)
    def f() -> str:
        return "ä" * 1000

    @tool(max_result_bytes=9)
    def g() -> str:
        return "ä" * 1000

    assert f.call_now("{}").text == "äääää\n[cut: 10 of 2000 bytes]"
    assert g.call_now("{}").text == "ääää\n[cut: 9 of 2000 bytes]"


def test_text_that_is_no_unicode_is_mended() -> None:
    @tool
    def f() -> str:
        return "a\ud800b"

    assert f.call_now("{}").text == "a?b"


@pytest.mark.anyio
async def test_a_signal_that_ends_the_program_is_no_news_for_the_model() -> None:
    @tool
    def plain() -> str:
        raise Terminated

    @tool
    async def asynchronous() -> str:
        raise Terminated

    with pytest.raises(Terminated):
        plain.call_now("{}")
    with pytest.raises(Terminated):
        await invoke(asynchronous, "{}")


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no such note"), "error: ValueError: no such note"),
        (KeyError("x"), "error: KeyError: 'x'"),
        (SystemExit(3), "error: SystemExit: 3"),
        (Rude(), "error: "),
        (ExceptionGroup("two", [ValueError("a")]), "error: ExceptionGroup: two (1 sub-exception)"),
        (InvalidCall("not so"), "error: not so"),
    ],
)
def test_an_exception_is_news_for_the_model(error: BaseException, words: str) -> None:
    @tool
    def f() -> str:
        raise error

    outcome = f.call_now("{}")
    assert outcome.is_error
    assert outcome.text.startswith(words)


def test_a_long_error_is_cut() -> None:
    assert len(failure(ValueError("x" * 100_000)).text) < 3000


def test_an_async_tool_cannot_be_called_without_an_event_loop() -> None:
    @tool
    async def f() -> str:
        return "x"

    with pytest.raises(InvalidCall, match="async"):
        f.call_now("{}")


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ("", ("", {})),
        ("One line.", ("One line.", {})),
        ("Two\nlines.\n\nMore.", ("Two lines.", {})),
        ("Args:\n    x: y", ("", {"x": "y"})),
        ("A.\n\nArgs:\n    x (int): one\n        two\n    *y: three: four\n", ("A.", {"x": "one two", "y": "three: four"})),
        ("A.\n\nArgs:\n  x: one\n\n  y: two\n\nReturns:\n  z: no", ("A.", {"x": "one", "y": "two"})),
        ("A.\n\nReturns:\n    x: no\n", ("A.", {})),
        ("A.\nArgs:\n    x:\n        later", ("A.", {"x": "later"})),
    ],
)  # fmt: skip
def test_docstrings_are_read(doc: str, expected: tuple[str, dict[str, str]]) -> None:
    assert read_docstring(doc) == expected


@given(st.text(st.characters(), max_size=200))
def test_no_docstring_breaks_the_reader(doc: str) -> None:
    summary, notes = read_docstring(doc)
    assert "\n" not in summary
    assert all(name.isidentifier() or name.isalnum() for name in notes)


@pytest.mark.anyio
async def test_a_plain_function_runs_in_a_thread_and_an_async_one_in_the_loop() -> None:
    here = threading.get_ident()

    @tool
    def plain() -> bool:
        return threading.get_ident() == here

    @tool
    async def waiting() -> bool:
        return threading.get_ident() == here

    assert (await invoke(plain, "{}")).text == "false"
    assert (await invoke(waiting, "{}")).text == "true"


@pytest.mark.anyio
async def test_a_tool_that_hangs_is_left_behind() -> None:
    has_begun, release, has_ended = threading.Event(), threading.Event(), threading.Event()

    @tool(timeout_s=0.02)
    def plain() -> None:
        has_begun.set()
        release.wait(10)
        has_ended.set()

    @tool(timeout_s=0.02)
    async def waiting() -> None:
        await anyio.sleep_forever()

    try:
        with anyio.fail_after(30):
            assert (await invoke(waiting, "{}")).text == "error: waiting did not end within 0.02 s"
            assert (await invoke(plain, "{}")).text == "error: plain did not end within 0.02 s"
            assert not has_ended.is_set()
    finally:
        release.set()
    # A thread that had no processor within its 20 ms never begins.
    assert has_ended.wait(5) or not has_begun.is_set()


@pytest.mark.anyio
async def test_errors_of_async_tools_become_outcomes_too() -> None:
    @tool
    async def f(x: int) -> str:
        raise TimeoutError(f"after {x}")

    assert await invoke(f, '{"x":3}') == ToolOutcome("error: TimeoutError: after 3", is_error=True)
    assert (await invoke(f, "nonsense")).is_error


@pytest.mark.anyio
async def test_a_cancel_passes_through_a_tool() -> None:
    seen: list[str] = []

    @tool
    async def f() -> str:
        try:
            await anyio.sleep_forever()
        finally:
            seen.append("cleaned up")
        return ""

    with anyio.move_on_after(0.01) as scope:
        await invoke(f, "{}")
    assert scope.cancelled_caught
    assert seen == ["cleaned up"]


def test_any_is_allowed_where_a_schema_can_say_it() -> None:
    @tool
    def f(x: Any, y: int | str) -> str:
        return f"{x}{y}"

    assert f.usage() == "f(x: any, y: integer | string)"
    assert f.call_now('{"x":[1],"y":"z"}').text == "[1]z"
