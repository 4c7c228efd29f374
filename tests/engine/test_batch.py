from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.engine.batch import MIN_REST_TOKENS, URGENT_WAITS, Batcher, Piece, Progress, Step


@dataclass
class Running:
    """A sequence for the simulation: prompt, cells, and tokens still to be sampled."""

    slot: int
    n_tokens: int
    n_computed: int
    n_wanted: int

    @property
    def progress(self) -> Progress:
        return Progress(self.slot, self.n_tokens, self.n_computed)


running = st.lists(
    st.tuples(st.integers(1, 400), st.integers(0, 400), st.integers(1, 12)), max_size=12
).map(
    lambda rows: [
        Running((5 * i + 3) % 12, n_tokens, min(n_computed, n_tokens - 1), n_wanted)
        for i, (n_tokens, n_computed, n_wanted) in enumerate(rows)
    ]
)
batchers = st.builds(Batcher, st.integers(1, 128), st.integers(1, 5))


def check_step(step: Step, sequences: list[Running], chunk_tokens: int) -> None:
    """No slot is lost or doubled, and every piece goes on exactly where its cells end."""
    by_slot = {sequence.slot: sequence for sequence in sequences}
    assert step.pieces
    slots = [piece.slot for piece in step.pieces]
    assert slots == sorted(set(slots))
    for piece in step.pieces:
        sequence = by_slot[piece.slot]
        assert piece.start == sequence.n_computed < piece.end <= sequence.n_tokens
    lengths = {piece.end - piece.start for piece in step.pieces}
    assert len(lengths) == 1
    if step.is_prefill:
        assert step.n_tokens <= chunk_tokens
    else:
        assert lengths == {1}
        decoding = {s.slot for s in sequences if s.progress.n_missing == 1}
        assert {piece.slot for piece in step.pieces} == decoding


def apply(step: Step, sequences: list[Running]) -> None:
    by_slot = {sequence.slot: sequence for sequence in sequences}
    for piece in step.pieces:
        sequence = by_slot[piece.slot]
        sequence.n_computed = piece.end
        if sequence.n_computed == sequence.n_tokens:
            sequence.n_tokens += 1
            sequence.n_wanted -= 1
            if not sequence.n_wanted:
                sequences.remove(sequence)


@settings(deadline=None)
@given(running, batchers)
def test_every_sequence_comes_to_its_end(sequences: list[Running], batcher: Batcher) -> None:
    n_work = sum(sequence.progress.n_missing + sequence.n_wanted for sequence in sequences)
    for _ in range(n_work):
        step = batcher.next_step([sequence.progress for sequence in sequences])
        if step is None:
            break
        check_step(step, sequences, batcher.chunk_tokens)
        apply(step, sequences)
    assert sequences == []
    assert batcher.next_step([]) is None


@settings(deadline=None)
@given(running, batchers)
def test_neither_kind_of_step_starves_the_other(sequences: list[Running], batcher: Batcher) -> None:
    n_decodes = n_prefills = 0  # in a row, while the other kind had work too
    while step := batcher.next_step([sequence.progress for sequence in sequences]):
        is_decoding = any(sequence.progress.n_missing == 1 for sequence in sequences)
        is_filling = any(sequence.progress.n_missing > 1 for sequence in sequences)
        n_prefills = n_prefills + 1 if step.is_prefill and is_decoding else 0
        n_decodes = n_decodes + 1 if not step.is_prefill and is_filling else 0
        assert n_prefills <= 1
        assert n_decodes <= batcher.n_decodes
        apply(step, sequences)
    assert sequences == []


@settings(deadline=None)
@given(running, batchers)
def test_the_oldest_sequence_in_prefill_is_in_every_prefill_step(
    sequences: list[Running], batcher: Batcher
) -> None:
    while step := batcher.next_step([sequence.progress for sequence in sequences]):
        if step.is_prefill:
            oldest = next(s for s in sequences if s.progress.n_missing > 1)
            assert oldest.slot in {piece.slot for piece in step.pieces}
        apply(step, sequences)
    assert sequences == []


@settings(deadline=None)
@given(running, batchers, st.sets(st.integers(0, 11)))
def test_a_sequence_that_is_held_is_not_prefilled(
    sequences: list[Running], batcher: Batcher, held: set[int]
) -> None:
    filling = [s.slot for s in sequences if s.progress.n_missing > 1]
    held -= set(filling[:1])
    step = batcher.next_step([s.progress for s in sequences], held)
    assert (step is None) == (not sequences)
    if step is not None and step.is_prefill:
        assert not held & {piece.slot for piece in step.pieces}


@settings(deadline=None)
@given(running, batchers)
def test_a_prefill_step_is_announced_before_it_comes(
    sequences: list[Running], batcher: Batcher
) -> None:
    while sequences:
        progress = [sequence.progress for sequence in sequences]
        is_due = batcher.is_prefill_due(progress)
        step = batcher.next_step(progress)
        assert step is not None
        assert step.is_prefill == is_due
        apply(step, sequences)


def test_young_sequences_share_a_prefill_step_in_pieces_of_the_oldest_ones_length() -> None:
    batcher = Batcher(chunk_tokens=100, n_decodes=2)
    sequences = [Progress(2, 30, 0), Progress(1, 90, 10), Progress(0, 31, 1), Progress(3, 99, 0)]
    step = batcher.next_step(sequences)
    assert step == Step((Piece(0, 1, 31), Piece(1, 10, 40), Piece(2, 0, 30)), is_prefill=True)


@pytest.mark.parametrize("rest", [1, MIN_REST_TOKENS - 1])
def test_nobody_is_left_with_a_tiny_rest_by_sharing(rest: int) -> None:
    step = Batcher(chunk_tokens=100, n_decodes=2).next_step(
        [Progress(0, 30, 0), Progress(1, 30 + rest, 0)]
    )
    assert step == Step((Piece(0, 0, 30),), is_prefill=True)


def test_decode_steps_go_between_prefill_steps_as_often_as_asked() -> None:
    batcher = Batcher(chunk_tokens=10, n_decodes=2)
    sequences = [Running(0, 5, 4, 50), Running(1, 60, 0, 1)]
    kinds = ""
    for _ in range(9):
        step = batcher.next_step([sequence.progress for sequence in sequences])
        assert step is not None
        kinds += "p" if step.is_prefill else "d"
        apply(step, sequences)
    assert kinds == "pddpddpdd"


def test_an_urgent_sequence_is_not_held_up_by_the_prompts_of_others_but_they_go_on() -> None:
    batcher = Batcher(chunk_tokens=100, n_decodes=2)
    urgent = Progress(0, 10, 9, is_urgent=True)
    long, old = Progress(1, 1000, 0), Progress(2, 50, 49)
    kinds = []
    for _ in range(2 * (URGENT_WAITS + 1)):
        step = batcher.next_step([urgent, long, old])
        assert step is not None
        kinds.append(step.is_prefill)
    assert kinds == 2 * [True, *[False] * URGENT_WAITS]


@pytest.mark.parametrize(("n_filling", "n_decodes"), [(1, 16), (2, 8), (3, 5), (7, 2), (20, 2)])
def test_the_more_are_held_up_by_an_urgent_sequence_the_sooner_they_go_on(
    n_filling: int, n_decodes: int
) -> None:
    batcher = Batcher(chunk_tokens=100, n_decodes=2)
    urgent = Progress(0, 10, 9, is_urgent=True)
    waiting = [Progress(slot, 1000, 0) for slot in range(1, n_filling + 1)]
    kinds = []
    for _ in range(2 * (n_decodes + 1)):
        step = batcher.next_step([urgent, *waiting])
        assert step is not None
        kinds.append(step.is_prefill)
    assert kinds == 2 * [True, *[False] * n_decodes]


def test_the_prompt_of_an_urgent_sequence_is_computed_first_and_as_soon_as_any() -> None:
    batcher = Batcher(chunk_tokens=100, n_decodes=2)
    sequences = [Progress(2, 40, 0, is_urgent=True), Progress(1, 10, 9, is_urgent=True)]
    sequences.append(Progress(0, 1000, 0))
    step = batcher.next_step(sequences)
    assert step is not None
    assert step.pieces[0] == Piece(0, 0, 40) or step.pieces[-1] == Piece(2, 0, 40)
    assert Piece(2, 0, 40) in step.pieces
