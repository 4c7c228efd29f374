from pathlib import Path

import anyio
import anyio.to_thread
import numpy as np
import pytest
from llama_cpp import llama_cpp as lib

from aios.engine.llama.binding import Batch, Context, Model, Tokens
from aios.errors import EngineFailed, EngineUnavailable, ModelMissing

pytestmark = pytest.mark.model

TEXT = "The lighthouse keeper climbed the stairs, lit the lamp and wrote in his book: 1815."


def fill(context: Context, slot: int, tokens: Tokens, *, position: int = 0) -> int:
    """Compute tokens in pieces that fit a batch. Returns: the likeliest token after them."""
    row = -1
    for start in range(0, len(tokens), 64):
        batch = Batch(64)
        row = batch.add(slot, position + start, tokens[start : start + 64])
        assert context.decode(batch)
    return int(context.logits(row).argmax())


def go_on(context: Context, slot: int, position: int, *, token: int, n: int = 8) -> list[int]:
    """The next `n` tokens, greedily."""
    found = [token]
    for i in range(n):
        found.append(fill(context, slot, np.array(found[-1:], np.int32), position=position + i))
    return found


def test_text_becomes_tokens_and_their_pieces_are_the_text(model: Model) -> None:
    for text in (TEXT, "naïve 👩‍👩‍👧 漢字\n\tend", " ", "a\0b"):
        tokens = model.tokenize(text, special=False)
        assert b"".join(model.piece(token) for token in tokens.tolist()) == text.encode()
    assert len(model.tokenize("", special=False)) == 0


def test_control_tokens_are_read_only_when_asked_for_and_stand_for_no_text(model: Model) -> None:
    (token,) = model.tokenize("<|im_end|>", special=True).tolist()
    assert len(model.tokenize("<|im_end|>", special=False)) > 1
    assert model.is_eog(token)
    assert token in model.eog_tokens
    assert model.piece(token) == b""
    assert model.token_text(token) == "<|im_end|>"
    assert "<|im_start|>" in model.control_tokens
    assert model.token_text(-1) == ""


def test_a_text_has_at_least_the_tokens_that_its_bytes_say(model: Model) -> None:
    for text in (TEXT, " " * 1000, "aaaa" * 100):
        n_tokens = len(model.tokenize(text, special=False))
        assert n_tokens >= len(text.encode()) // model.longest_piece_bytes
    longest = max(len(model.piece(token)) for token in range(model.n_vocab))
    assert model.longest_piece_bytes == longest


def test_the_model_says_what_it_is(model: Model) -> None:
    assert model.find_meta("general.architecture") == "llama"
    assert model.find_meta("no.such.key") is None
    assert "im_start" in model.chat_template
    assert model.n_vocab == 49_152
    assert model.n_params > 100_000_000
    assert model.size_bytes > 90_000_000
    assert model.description


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "cannot read"), (b"", "not a GGUF"), (b"GIF89a..", "not a GGUF")]
)
def test_what_is_no_model_file_is_refused(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelMissing, match=reason) as caught:
        Model(path)
    assert "aios pull" in caught.value.hint


def test_a_truncated_model_is_refused_with_llama_cpps_reason(
    tmp_path: Path, model_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    with model_path.open("rb") as whole:
        path.write_bytes(whole.read(4_000_000))
    with pytest.raises(ModelMissing, match=r"cannot load .*: \w+") as caught:
        Model(path)
    assert "no reason" not in caught.value.message


def test_a_context_that_does_not_fit_is_refused(model: Model) -> None:
    with pytest.raises(EngineUnavailable, match="no room for 300 slots"):
        Context(model, n_slots=300, window_tokens=64, n_batch=16, n_threads=1)


def test_logits_are_a_view_that_can_be_written_to(model: Model, context: Context) -> None:
    batch = Batch(64)
    row = batch.add(0, 0, model.tokenize(TEXT, special=False))
    assert context.decode(batch)
    logits = context.logits(row)
    assert logits.shape == (model.n_vocab,)
    assert logits.dtype == np.float32
    logits[5] = 1000
    assert context.logits(row).argmax() == 5
    with pytest.raises(EngineFailed):
        context.logits(0)  # only the last token's were asked for


def test_slots_do_not_see_each_other(model: Model, context: Context) -> None:
    tokens = model.tokenize(TEXT, special=False)
    alone = fill(context, 0, tokens)
    batch = Batch(64)
    rows = [batch.add(1, 0, tokens), batch.add(2, 0, tokens[::-1])]
    assert context.decode(batch)
    assert int(context.logits(rows[0]).argmax()) == alone
    assert not np.allclose(context.logits(rows[0]), context.logits(rows[1]))


def test_cells_that_were_cut_off_can_be_computed_again(model: Model, context: Context) -> None:
    tokens = model.tokenize(TEXT, special=False)
    expected = go_on(context, 0, len(tokens), token=fill(context, 0, tokens))
    assert context.keep(0, 10)
    assert context.n_cells(0) == 10
    again = fill(context, 0, tokens[10:], position=10)
    assert go_on(context, 0, len(tokens), token=again) == expected
    assert context.keep(0, 0)
    assert context.n_cells(0) == 0


def test_a_saved_state_goes_on_the_same_in_another_slot(model: Model, context: Context) -> None:
    tokens = model.tokenize(TEXT, special=False)
    token = fill(context, 0, tokens)
    state = np.zeros(context.state_size_bytes(0), np.uint8)
    assert context.save(0, state) == len(state)
    expected = go_on(context, 0, len(tokens), token=token)
    assert context.load(2, state)
    assert context.n_cells(2) == len(tokens)
    assert go_on(context, 2, len(tokens), token=token) == expected


def test_a_state_that_is_nonsense_is_refused(context: Context) -> None:
    assert not context.load(1, np.full(100, 7, np.uint8))


def test_an_abort_stops_a_batch_and_what_was_before_it_stays(
    model: Model, context: Context
) -> None:
    tokens = model.tokenize(TEXT, special=False)
    fill(context, 0, tokens[:10])
    batch = Batch(64)
    batch.add(0, 10, tokens[10:])
    context.abort(on=True)
    assert not context.decode(batch)
    context.abort(on=False)
    assert context.keep(0, 10)
    assert context.n_cells(0) == 10
    assert context.decode(batch)


@pytest.mark.anyio
async def test_an_abort_from_another_thread_stops_a_batch_that_runs(model: Model) -> None:
    context = Context(model, n_slots=1, window_tokens=2048, n_batch=2048, n_threads=1)
    batch = Batch(2048)
    batch.add(0, 0, np.arange(2048, dtype=np.int32))
    outcomes: list[bool] = []
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                lambda: anyio.to_thread.run_sync(lambda: outcomes.append(context.decode(batch)))
            )
            await anyio.sleep(0.05)  # so that it runs; if it does not yet, the flag still stops it
            context.abort(on=True)
    context.close()
    assert outcomes == [False]


def test_a_batch_that_llama_cpp_refuses_is_an_error(model: Model, context: Context) -> None:
    batch = Batch(1)
    batch.add(0, 0, np.array([model.n_vocab], np.int32))
    with pytest.raises(EngineFailed, match=r"llama_decode returned -1: .*invalid token"):
        context.decode(batch)


def test_closing_twice_is_nothing(model: Model) -> None:
    context = Context(model, n_slots=1, window_tokens=256, n_batch=16, n_threads=1)
    context.close()
    context.close()
    assert model.pointer


def test_a_sliding_window_is_cut_only_where_its_cells_are_there(context: Context) -> None:
    context._sliding_tokens = 16
    fill(context, 0, np.arange(1000, 1040, dtype=np.int32))
    assert context.keep(0, 39)
    lib.llama_memory_seq_rm(context._memory, 0, 0, 20)  # as in a state that was loaded
    assert context.keep(0, 36)
    assert not context.keep(0, 34)
    assert context.n_cells(0) == 0
