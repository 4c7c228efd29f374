import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.errors import InvalidCall
from aios.kernel.tools.repair import (
    MAX_DEPTH,
    MAX_REPAIRED_CHARS,
    MAX_TEXT_VALUES,
    NotReadable,
    read_object,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(st.text(), json_values, max_size=4)
plain_text = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]))
plain_objects = st.dictionaries(plain_text, plain_text | st.none() | st.booleans(), max_size=4)


@given(objects)
def test_json_is_read_as_it_is_and_nothing_is_said(value: dict[str, object]) -> None:
    assert read_object(json.dumps(value)) == (value, ())


@given(plain_objects)
def test_python_literals_are_read_as_what_they_mean(value: dict[str, object]) -> None:
    found, _ = read_object(f"Sure, here it is: {value!r}")
    assert found == value


@given(objects, st.data())
def test_an_object_that_was_cut_off_is_closed_or_refused(
    value: dict[str, object], data: st.DataObject
) -> None:
    text = json.dumps(value)
    cut = text[: data.draw(st.integers(1, len(text)))]
    try:
        found, repairs = read_object(cut)
    except NotReadable:
        return
    assert found.keys() <= value.keys()
    assert repairs or cut == text


@given(st.text(alphabet="{}[]'\":,\\ntu0x1eE+-. /*#`=TruFalseNone", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found, _ = read_object(text)
    except NotReadable:
        return
    assert isinstance(found, dict)


@pytest.mark.parametrize(
    ("text", "value", "said"),
    [
        ("", {}, ""),
        ("  ", {}, ""),
        ('```json\n{"a": 1}\n```', {"a": 1}, "fence"),
        ('I will call it with {"a": 1} now.', {"a": 1}, "words"),
        ("{'a': 'it\\'s'}", {"a": "it's"}, "quotes"),
        ('{"a": 1,}', {"a": 1}, "commas too many"),
        ('{"a": [1, 2,,], }', {"a": [1, 2]}, "commas too many"),
        ('{"a": 1 "b": 2}', {"a": 1, "b": 2}, "missing commas"),
        ("{a: True, b: None}", {"a": True, "b": None}, "True, False"),
        ('{"a": [1, {"b": 2', {"a": [1, {"b": 2}]}, "closed"),
        ('{"a": [1, 2}', {"a": [1, 2]}, "closed"),
        ('"{\\"a\\": 1}"', {"a": 1}, "wrapped"),
        ('{"a": 1 /* one */, // two\n "b": 2}', {"a": 1, "b": 2}, "comments"),
        ('{"a": .5, "b": +3, "c": 1_000}', {"a": 0.5, "b": 3, "c": 1000}, "numbers"),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}, "control"),
        ('{"a": "C:\\dir"}', {"a": "C:\\dir"}, "escapes"),
        ("{“a”: “b”}", {"a": "b"}, "quotes"),
        ("{'a': '\\ud83d\\ude00'}", {"a": "😀"}, "quotes"),
        ("{a = 1}", {"a": 1}, "taken for"),
    ],
)
def test_what_is_nearly_json_is_read_and_told(
    text: str, value: dict[str, object], said: str
) -> None:
    found, repairs = read_object(text)
    assert found == value
    assert said in "; ".join(repairs)


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "3",
        "no object here",
        '{"a": 1} {"b": 2}',
        '{"a": 1, "a": 2,}',
        '{"a": hello}',
        "{'a': 1, 'b'}",
        '{"a": "never ends}',
        "{'a': '\\u12'}",
        "{'a': -}",
        "{a: [1 2]}",
        "{" + "'a': {" * (MAX_DEPTH + 1),
        "{" + "x" * MAX_REPAIRED_CHARS,
        "[" * 10_000,
    ],
)
def test_what_is_unclear_is_refused(text: str) -> None:
    with pytest.raises(NotReadable):
        read_object(text)


@pytest.mark.parametrize("value", ["[]", "{}", '""', '{"a": 1}'])
def test_a_text_holds_so_many_values_and_no_more(value: str) -> None:
    enough = f'{{"a": [{", ".join([value] * (MAX_TEXT_VALUES // 4 - 1))}]}}'
    assert len(read_object(enough)[0]) == 1
    too_many = f'{{"a": [{", ".join([value] * MAX_TEXT_VALUES)}]}}'
    for text in (too_many, json.dumps(too_many)):
        with pytest.raises(InvalidCall, match="over 16,384 values"):
            read_object(text)
