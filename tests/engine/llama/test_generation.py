import math
from collections.abc import Mapping

import numpy as np
import pytest
from tests.engine.llama.vocabulary import END as VOCABULARY_END
from tests.engine.llama.vocabulary import make_vocabulary

from aios.abi.types import Finish, Message, Regex, Role, Sampling, ToolSpec, Usage
from aios.engine.base import ChatPrompt, Delta
from aios.engine.llama.generation import Carried, Generation, Speech
from aios.engine.llama.grammar import Matcher
from aios.engine.llama.sampling import Logits, Sampler
from aios.engine.llama.template import ToolMode
from aios.engine.llama.toolcalls import ToolParser
from aios.engine.text import TextAssembler
from aios.errors import AiosError, EngineFailed, InvalidCall

PIECES = [b"<end>", b"Hello", b" world", b"\xe2\x82", b"\xac", b"!", b"<tool_call>", b""]
END = 0
GREEDY = Sampling(temperature=0, seed=1)
TOOL = ToolSpec("light", "Switches the light.", {"type": "object"})


class Listener:
    """Hears what is sent to a reader."""

    def __init__(self) -> None:
        self.heard: list[Delta | AiosError] = []

    def receive(self, delta: Delta) -> None:
        self.heard.append(delta)

    def fail(self, error: AiosError) -> None:
        self.heard.append(error)


def generation(
    *,
    n_prompt: int = 3,
    start: tuple[int, ...] = (),
    n_max: int = 20,
    sampling: Sampling = GREEDY,
    stop: tuple[str, ...] = (),
    top_logprobs: int | None = None,
    parser: ToolParser | None = None,
    shown: Mapping[int, bytes] | None = None,
) -> Generation:
    return Generation(
        start=np.array(start or range(n_prompt), np.int32),
        n_prompt=n_prompt,
        n_max=n_max,
        sampler=Sampler(sampling),
        speech=Speech(PIECES.__getitem__, frozenset({END}), shown or {}),
        carried=Carried(TextAssembler(stop), parser.mode if parser else ToolMode.NONE, parser),
        reader=Listener(),
        top_logprobs=top_logprobs,
    )


def logits(likeliest: int) -> Logits:
    row = np.zeros(len(PIECES), np.float32)
    row[likeliest] = 5
    return row


def test_each_token_brings_its_text_and_counts() -> None:
    running = generation()
    assert running.advance(logits(1)) == Delta("Hello", 1, tokens=(1,))
    assert running.advance(logits(2)) == Delta(" world", 1, tokens=(2,))
    assert running.tokens.tolist() == [0, 1, 2, 1, 2]


def test_a_character_is_handed_out_when_it_is_whole() -> None:
    running = generation()
    assert running.advance(logits(3)) == Delta("", 1, tokens=(3,))
    assert running.advance(logits(4)) == Delta("€", 1, tokens=(4,))


def test_an_end_token_ends_it_and_counts_but_is_no_text() -> None:
    running = generation()
    running.advance(logits(1))
    assert running.advance(logits(END)) == Delta("", 1, finish=Finish.STOP, usage=Usage(3, 3, 2))


def test_the_last_token_that_fits_ends_it() -> None:
    running = generation(n_max=5)
    assert running.advance(logits(1)).finish is None
    last = running.advance(logits(2))
    assert (last.text, last.finish, last.n_tokens) == (" world", Finish.LENGTH, 1)
    assert running.n_tokens == 5


def test_half_a_character_at_the_end_is_left_out() -> None:
    assert generation(n_max=4).advance(logits(3)).text == ""


def test_a_stop_string_ends_it_and_is_not_handed_out() -> None:
    running = generation(stop=("o w",))
    first = running.advance(logits(1))
    last = running.advance(logits(2))
    assert first.text + last.text == "Hell"
    assert last.finish is Finish.STOP
    assert last.usage == Usage(3, 3, 2)


def test_cached_tokens_are_those_of_the_prompt_that_were_not_computed() -> None:
    running = generation(n_prompt=10)
    assert running.note_computed(4, 8) == 4
    assert running.note_computed(8, 10) == 2
    running.advance(logits(1))
    assert running.note_computed(10, 11) == 0
    assert running.usage == Usage(10, 4, 1)


def test_of_a_prompt_that_is_cut_off_the_step_that_still_runs_counts() -> None:
    running = generation(n_prompt=10)
    assert running.usage_so_far == Usage()
    running.computing = (4, 8)
    assert running.usage_so_far == Usage(8, 4, 0)
    running.note_computed(4, 8)
    assert running.usage_so_far == Usage(8, 4, 0)
    running.computing = (8, 10)
    assert running.usage_so_far == Usage(10, 4, 0)


def test_what_is_computed_again_after_a_suspension_is_no_new_work() -> None:
    running = generation(n_prompt=10)
    running.note_computed(4, 10)
    assert running.note_computed(0, 10) == 0
    assert running.usage.cached_tokens == 4


def test_log_probabilities_are_the_models_own_before_bias_and_penalties() -> None:
    biased = Sampling(temperature=0, seed=1, logit_bias={1: -100.0}, presence_penalty=1.5)
    running = generation(sampling=biased, top_logprobs=2)
    row = logits(1)
    row[2] = 4
    expected = row.astype(np.float64) - math.log(np.exp(row.astype(np.float64)).sum())
    (told,) = running.advance(row).logprobs
    assert (told.token, told.token_bytes) == (" world", b" world")  # the likeliest was banned
    assert told.logprob == pytest.approx(expected[2], abs=1e-5)
    assert [other.token for other in told.top] == ["Hello", " world"]
    assert [other.logprob for other in told.top] == pytest.approx(expected[[1, 2]], abs=1e-5)


def test_no_alternatives_are_told_when_none_are_asked_for() -> None:
    (told,) = generation(top_logprobs=0).advance(logits(1)).logprobs
    assert told.top == ()
    assert generation().advance(logits(1)).logprobs == ()


def test_a_row_without_any_token_fails_this_generation() -> None:
    with pytest.raises(EngineFailed, match="no token may follow after 0"):
        generation().advance(np.full(len(PIECES), -np.inf, np.float32))


def test_a_constraint_that_allows_no_token_is_the_callers_to_mend() -> None:
    running = generation()
    running.matcher = make_vocabulary().compile(Regex("~"))
    row = np.full(VOCABULARY_END + 1, -np.inf, np.float32)
    row[1] = 0  # what the model would say
    with pytest.raises(InvalidCall, match="no token may follow after 0"):
        running.advance(row)


def test_a_constraint_that_refuses_what_it_allowed_is_the_callers_to_mend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = generation()
    running.matcher = make_vocabulary().compile(Regex("[\\x01\\x02]"))
    monkeypatch.setattr(Matcher, "accept", lambda _self, _token: False)  # it became too complex
    with pytest.raises(InvalidCall, match="allowed token 1 and then refused it"):
        running.advance(np.zeros(VOCABULARY_END + 1, np.float32))


def test_a_tool_call_is_taken_out_of_the_text_and_changes_the_finish() -> None:
    prompt = ChatPrompt((Message(Role.USER, "Light!"),), (TOOL,))
    parser = ToolParser.for_prompt(prompt, ToolMode.HERMES, seed=1)
    call = b'{"name": "light", "arguments": {}}</tool_call>'
    shown = {6: b"<tool_call>", 7: call}
    running = generation(parser=parser, shown=shown)
    assert running.advance(logits(6)).text == ""
    deltas = [running.advance(logits(7)), running.advance(logits(END))]
    calls = [call for delta in deltas for call in delta.tool_calls]
    assert [(call.name, call.arguments) for call in calls] == [("light", "{}")]
    assert "".join(delta.text for delta in deltas) == ""
    assert deltas[-1].finish is Finish.TOOL_CALLS


def test_the_output_given_again_brings_back_text_and_tool_calls() -> None:
    prompt = ChatPrompt((Message(Role.USER, "Light!"),), (TOOL,))
    shown = {6: b"<tool_call>", 7: b'{"name": "light", "arguments": {}}</tool_call>'}
    output = (3, 4, 6, 7, 2, 6, 7, 1, 3, 4, 5)
    for n_before in range(len(output)):
        whole, first, again = (
            generation(
                stop=("world!",),
                parser=ToolParser.for_prompt(prompt, ToolMode.HERMES, seed=1),
                shown=shown,
                start=(0, 1, 2, *output[:n]),
            )
            for n in (0, 0, n_before)
        )
        expected = [whole.advance(logits(token)) for token in output]
        deltas = [first.advance(logits(token)) for token in output[:n_before]]
        again.replay()
        deltas += [again.advance(logits(token)) for token in output[n_before:]]
        assert deltas == expected
