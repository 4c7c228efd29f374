import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aios.abi.types import Alternative, Finish, TokenLogprob, ToolCall, Usage
from aios.engine.base import Delta, Suspended
from aios.engine.llama.keeping import Kept
from aios.engine.llama.saved import Saved, dump, load
from aios.engine.llama.template import ToolMode
from aios.errors import SnapshotIncompatible

UNREAD = Delta(
    "naïve",
    2,
    (TokenLogprob("na", -0.5, b"na", (Alternative("no", -1.5, b"no"),)),),
    (ToolCall("call_1", "light", "{}"),),
    Finish.TOOL_CALLS,
    Usage(3, 1, 2),
)

saved = st.builds(
    Saved,
    tool_mode=st.sampled_from(ToolMode),
    n_reached=st.integers(0, 1 << 20),
    n_prompt_computed=st.integers(0, 1 << 20),
    kept=st.builds(Kept, st.text(max_size=50), st.integers(0, 1 << 20)),
    unread=st.sampled_from([None, Delta(), UNREAD]),
)
suspended = st.builds(
    Suspended,
    fingerprint=st.just("model"),
    n_generated=st.integers(0, 1 << 20),
    tokens=st.lists(st.integers(0, (1 << 31) - 1)).map(tuple),
    emitted=st.text(),
    state=saved,
)


@given(suspended)
def test_what_is_loaded_is_what_was_dumped(generation: Suspended) -> None:
    assert load(dump(generation), "model") == generation


@given(suspended, st.integers(0), st.integers(1, 255))
def test_altered_bytes_are_refused(generation: Suspended, where: int, flip: int) -> None:
    data = bytearray(dump(generation))
    data[where % len(data)] ^= flip
    with pytest.raises(SnapshotIncompatible):
        load(bytes(data), "model")


def test_another_model_is_refused_by_name() -> None:
    data = dump(Suspended("llama:a:kv-f16", 0, (1,), "", Saved()))
    with pytest.raises(SnapshotIncompatible, match="suspended by `llama:a:kv-f16`"):
        load(data, "llama:a:kv-q8_0")


def test_another_version_is_refused() -> None:
    data = dump(Suspended("model", 0, (1,), "", Saved()))
    with pytest.raises(SnapshotIncompatible, match="this version"):
        load(data.replace(b"AIOSGEN1", b"AIOSGEN2"), "model")


def test_a_generation_that_was_altered_in_memory_differs() -> None:
    generation = Suspended("model", 0, (1,), "", Saved())
    assert load(dump(replace(generation, emitted="x")), "model") != generation
