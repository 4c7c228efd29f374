import json
import time

import anyio
import anyio.to_thread
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.errors import InvalidCall
from aios.server import limits
from aios.server.limits import MAX_JSON_DEPTH, check_json

SOUND = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@given(SOUND)
def test_sound_json_passes(value: object) -> None:
    check_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


@given(st.binary(max_size=60))
def test_any_bytes_either_pass_or_are_refused_politely(body: bytes) -> None:
    try:
        check_json(body)
    except InvalidCall:
        return
    json.loads(body.decode("utf-8"))


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"{} {}", "no JSON"),
        (b"\xff\xfe{}", "UTF-8"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b"\xef\xbb\xbf{}", "no JSON"),
        (b'["\\ud83d"]', "half of a surrogate pair"),
        (b'{"\\udc00\\ud83d": 1}', "udc00, half"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'[{"b": {"a": 1, "\\u0061": 2}}]', "twice"),
        (b'{"a": 9223372036854775808}', "out of range"),
        (b"1" * 5000, "range|digits"),
        (b"[" * 200 + b"]" * 200, "deep"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "deep"),
        (b"[" * 100_000, "deep"),
    ],
)
def test_json_that_means_trouble_is_refused_with_the_reason(body: bytes, word: str) -> None:
    with pytest.raises(InvalidCall, match=word):
        check_json(body)


def test_brackets_in_strings_do_not_count_as_depth() -> None:
    check_json(json.dumps({"a": "[" * 1000 + '"' + "{" * 1000}).encode())


def test_a_character_may_come_as_a_pair_of_escapes() -> None:
    check_json(json.dumps({"\U0001f30a": ["\U0001f30a"]}).encode())
    check_json(b'"\\\\ud800"')


def test_wide_is_not_deep() -> None:
    check_json(json.dumps([[[]] * 10] * 1000).encode())


@pytest.mark.parametrize(
    "value",
    [[[]] * 20_000, {str(n): n for n in range(10_000)}, {"schema": {"enum": ["ab"] * 20_000}}],
)
def test_too_many_values_are_refused_before_they_are_made(
    value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_VALUES", 10_000)
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(InvalidCall, match="values"):
        check_json(json.dumps(value).encode())


def test_marks_in_texts_are_no_values() -> None:
    assert check_json(json.dumps(["[],{}:" * 400_000, '"\\,' * 50_000]).encode()) == 2


def test_at_least_the_values_are_counted() -> None:
    assert check_json(json.dumps({"a": [[], {}, 1], "b": {"c": ["d", "e"]}}).encode()) >= 10


def test_the_deepest_that_passes_can_be_read_and_written_by_everybody() -> None:
    body = b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH
    check_json(body)
    value = msgspec.json.decode(body)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(value)) == value
    with pytest.raises(InvalidCall):
        check_json(b"[" + body + b"]")


HOSTILE = {
    "unending strings": b"[" * (MAX_JSON_DEPTH + 1) + b'"' + b'\\"' * 200_000,
    "one key twice after many": b"{%s}" % b",".join(b'"%d":1' % i for i in [*range(100_000), 99_999]),
}  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_no_body_takes_longer_to_refuse_than_its_length_deserves(body: bytes) -> None:
    begun_s = time.process_time()
    with pytest.raises(InvalidCall):
        check_json(body)
    assert time.process_time() - begun_s < 5  # quadratic, it takes minutes


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_a_long_number_is_found_wherever_it_stands(before: int, digits: int, behind: int) -> None:
    body = b" " * before + b"1" * digits + b" " * behind + b"1" * 18
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "THREAD_BYTES", 8)
        assert limits._has_long_number(body) == (digits + 18 * (not behind) >= 19)


MANY_STRINGS = b'["a"' + b',""' * 5_000_000 + b"]"
ONE_STRING = b"[" * (MAX_JSON_DEPTH + 1) + b'"' + rb"\n," * 5_000_000 + b'"'


@pytest.mark.anyio
@pytest.mark.parametrize("body", [MANY_STRINGS, ONE_STRING], ids=["strings", "escapes"])
async def test_other_threads_run_while_a_large_body_is_checked(body: bytes) -> None:
    longest_s = 0.0
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            nonlocal longest_s
            while True:
                begun_s = time.perf_counter()
                await anyio.sleep(0.005)
                longest_s = max(longest_s, time.perf_counter() - begun_s)

        tasks.start_soon(watch)
        with pytest.raises(InvalidCall):
            await anyio.to_thread.run_sync(check_json, body)
        tasks.cancel_scope.cancel()
    assert longest_s < 0.4, "a second, if all is looked for at once"
