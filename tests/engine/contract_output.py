"""What every engine promises about what comes out of it: text, stops, seeds, constraints, tools, vectors, tokens."""

import json
import math
import re

import jsonschema_rs
import pytest
from msgspec.structs import replace
from tests.engine.jobs import (
    ADD,
    EMOJI,
    GREEDY,
    LIGHT,
    SCHEMA,
    STORY,
    assert_alive,
    chat,
    need,
    run,
    with_tools,
)

from aios.abi.types import (
    Finish,
    ImagePart,
    JsonSchema,
    Message,
    Regex,
    Role,
    Sampling,
    TextPart,
    ToolCall,
    ToolChoice,
)
from aios.engine.base import (
    Ability,
    ChatPrompt,
    Engine,
    Job,
    TextPrompt,
)
from aios.errors import (
    ContextWindowExceeded,
    InvalidCall,
    Unsupported,
)


@pytest.mark.anyio
class OutputContract:
    """Half of `EngineContract`."""

    # --- one generation ----------------------------------------------------------------------------------------

    async def test_a_chat_ends_with_exactly_one_final_delta_and_its_usage_sums_up(
        self, engine: Engine
    ) -> None:
        outcome = await run(engine, chat())
        assert outcome.text
        for delta in outcome.deltas[:-1]:
            assert delta.finish is None
            assert delta.usage is None
        assert outcome.usage.completion_tokens == outcome.n_tokens
        assert outcome.usage.prompt_tokens > 0
        assert 0 <= outcome.usage.cached_tokens <= outcome.usage.prompt_tokens

    @pytest.mark.parametrize("n", [1, 2, 7])
    async def test_max_tokens_is_kept_to_the_token(self, engine: Engine, n: int) -> None:
        outcome = await run(engine, chat(max_tokens=n))
        assert outcome.n_tokens == n
        assert outcome.usage.completion_tokens == n
        assert outcome.finish is Finish.LENGTH

    async def test_a_shorter_limit_gives_a_prefix_of_the_longer_answer(
        self, engine: Engine
    ) -> None:
        short = await run(engine, chat(max_tokens=6))
        long = await run(engine, chat(max_tokens=12))
        assert long.text.startswith(short.text)

    async def test_a_text_is_gone_on_with(self, engine: Engine) -> None:
        need(engine, Ability.COMPLETE)
        outcome = await run(engine, Job(TextPrompt("Once upon a time"), GREEDY, max_tokens=8))
        assert outcome.text
        assert outcome.usage.completion_tokens == 8

    async def test_an_empty_message_is_answered(self, engine: Engine) -> None:
        assert (await run(engine, chat("", max_tokens=4))).n_tokens >= 1

    async def test_a_whole_conversation_with_names_and_tool_results_is_accepted(
        self, engine: Engine
    ) -> None:
        need(engine, Ability.TOOLS)
        messages = (
            Message(Role.SYSTEM, "Be brief."),
            Message(Role.USER, (TextPart("What is "), TextPart("3 + 4?"))),
            Message(Role.ASSISTANT, "", (ToolCall("call_1", "add", '{"a": 3, "b": 4}'),)),
            Message(Role.TOOL, "7", tool_call_id="call_1"),
        )
        outcome = await run(engine, chat(prompt=ChatPrompt(messages, (ADD,))))
        assert outcome.n_tokens >= 1

    # --- stop strings ------------------------------------------------------------------------------------------

    async def test_a_stop_string_ends_the_text_before_it_wherever_tokens_begin(
        self, engine: Engine
    ) -> None:
        free = (await run(engine, chat())).text
        for start, end in ((3, 4), (5, 11), (10, 12)):
            stop = free[start:end]
            outcome = await run(engine, chat(stop=(stop,)))
            assert outcome.text == free[: free.index(stop)]
            assert outcome.finish is Finish.STOP
            assert outcome.usage.completion_tokens == outcome.n_tokens

    async def test_the_earliest_of_several_stop_strings_wins(self, engine: Engine) -> None:
        free = (await run(engine, chat())).text
        late, early = free[12:15], free[4:7]
        ends = {stop: free.index(stop) + len(stop) for stop in (late, early)}
        first = min(ends, key=ends.__getitem__)
        outcome = await run(engine, chat(stop=(late, early)))
        assert outcome.text == free[: free.index(first)]

    async def test_a_stop_string_that_never_comes_holds_nothing_back(self, engine: Engine) -> None:
        free = await run(engine, chat())
        almost = free.text[-3:] + "\x07"  # the text ends in a part of it
        outcome = await run(engine, chat(stop=(almost, "\x07never")))
        assert outcome.text == free.text
        assert outcome.finish is free.finish

    # --- sampling ----------------------------------------------------------------------------------------------

    async def test_the_same_seed_gives_the_same_text(self, engine: Engine) -> None:
        for seed in (0, 7, 2**63 - 1):
            job = chat(sampling=Sampling(temperature=1.2, seed=seed))
            assert (await run(engine, job)).text == (await run(engine, job)).text

    async def test_other_seeds_give_other_texts(self, engine: Engine) -> None:
        jobs = [
            chat(sampling=Sampling(temperature=1.2, seed=seed), max_tokens=32) for seed in range(4)
        ]
        assert len({(await run(engine, job)).text for job in jobs}) > 1

    async def test_greedy_does_not_depend_on_the_seed(self, engine: Engine) -> None:
        texts = {
            (await run(engine, chat(sampling=Sampling(temperature=0, seed=seed)))).text
            for seed in (1, 2, 3)
        }
        assert len(texts) == 1

    async def test_a_bias_of_minus_100_bans_a_token(self, engine: Engine) -> None:
        need(engine, Ability.LOGIT_BIAS, Ability.TOKENIZE)
        free = (await run(engine, chat(max_tokens=8))).text
        banned = (await engine.tokenize(free))[0]
        sampling = Sampling(temperature=0, seed=1, logit_bias={banned: -100.0})
        other = (await run(engine, chat(sampling=sampling, max_tokens=8))).text
        assert other != free
        assert (await engine.tokenize(other))[0] != banned

    async def test_log_probabilities_come_with_each_token(self, engine: Engine) -> None:
        need(engine, Ability.LOGPROBS)
        outcome = await run(engine, chat(max_tokens=6, top_logprobs=3))
        assert outcome.finish is Finish.LENGTH
        assert len(outcome.logprobs) == outcome.n_tokens
        assert b"".join(row.token_bytes for row in outcome.logprobs) == outcome.text.encode()
        for row in outcome.logprobs:
            assert row.logprob <= 0
            assert 1 <= len(row.top) <= 3
            assert sum(math.exp(other.logprob) for other in row.top) <= 1.001
            assert row.logprob == pytest.approx(
                max(other.logprob for other in row.top)
            )  # greedy took the likeliest

    async def test_log_probabilities_come_without_alternatives_when_none_are_asked_for(
        self, engine: Engine
    ) -> None:
        need(engine, Ability.LOGPROBS)
        outcome = await run(engine, chat(max_tokens=4, top_logprobs=0))
        assert len(outcome.logprobs) == 4
        assert all(row.top == () for row in outcome.logprobs)
        assert (await run(engine, chat(max_tokens=4))).logprobs == []

    # --- constraints and tools ---------------------------------------------------------------------------------

    async def test_output_under_a_json_schema_is_valid(self, engine: Engine) -> None:
        need(engine, Ability.JSON_SCHEMA)
        job = chat("Describe a letter.", constraint=JsonSchema(SCHEMA), max_tokens=200)
        for seed in (1, 2):
            outcome = await run(engine, replace(job, sampling=Sampling(temperature=0.7, seed=seed)))
            assert outcome.finish is Finish.STOP
            jsonschema_rs.validate(SCHEMA, json.loads(outcome.text))

    async def test_text_under_a_schema_is_never_cut_inside_a_character(
        self, engine: Engine
    ) -> None:
        need(engine, Ability.JSON_SCHEMA)
        job = chat("Go on.", constraint=JsonSchema({"enum": [EMOJI]}), max_tokens=200)
        outcome = await run(engine, job)
        assert json.loads(outcome.text) == EMOJI
        for delta in outcome.deltas:
            assert "\ufffd" not in delta.text
            delta.text.encode()  # no half of a surrogate pair

    async def test_output_under_a_pattern_matches_it(self, engine: Engine) -> None:
        need(engine, Ability.REGEX)
        pattern = r"(yes|no), [0-9]{2} times"
        outcome = await run(engine, chat("Did it rain?", constraint=Regex(pattern)))
        assert re.fullmatch(pattern, outcome.text)

    async def test_a_malformed_pattern_is_the_callers_mistake(self, engine: Engine) -> None:
        need(engine, Ability.REGEX)
        with pytest.raises(InvalidCall):
            await run(engine, chat(constraint=Regex("(unclosed")))
        await assert_alive(engine)

    async def test_a_required_tool_is_called_with_valid_arguments(self, engine: Engine) -> None:
        need(engine, Ability.TOOLS)
        outcome = await run(
            engine, with_tools("What is 3 plus 4?", ToolChoice("required"), ADD, LIGHT)
        )
        assert outcome.finish is Finish.TOOL_CALLS
        parameters = {tool.name: tool.parameters for tool in (ADD, LIGHT)}
        assert outcome.tool_calls
        for call in outcome.tool_calls:
            assert call.id
            jsonschema_rs.validate(parameters[call.name], json.loads(call.arguments))
        assert len({call.id for call in outcome.tool_calls}) == len(outcome.tool_calls)

    @pytest.mark.parametrize("name", ["add", "light"])
    async def test_a_tool_that_is_named_is_the_one_called(self, engine: Engine, name: str) -> None:
        need(engine, Ability.TOOLS)
        outcome = await run(
            engine, with_tools("Do something.", ToolChoice("tool", name), ADD, LIGHT)
        )
        assert {call.name for call in outcome.tool_calls} == {name}

    async def test_with_the_choice_none_no_tool_is_called(self, engine: Engine) -> None:
        need(engine, Ability.TOOLS)
        job = with_tools('call light {"state": "on"}', ToolChoice("none"), LIGHT)
        outcome = await run(engine, replace(job, max_tokens=8))
        assert outcome.tool_calls == []
        assert outcome.finish in {Finish.LENGTH, Finish.STOP}

    async def test_what_is_not_claimed_is_refused(self, engine: Engine) -> None:
        image = Message(
            Role.USER, (TextPart("What is this?"), ImagePart("data:image/png;base64,AAAA"))
        )
        jobs = {
            Ability.IMAGES: chat(prompt=ChatPrompt((image,))),
            Ability.REGEX: chat(constraint=Regex("a+")),
            Ability.JSON_SCHEMA: chat(constraint=JsonSchema({})),
            Ability.TOOLS: with_tools("Hi", ToolChoice(), ADD),
            Ability.LOGPROBS: chat(top_logprobs=0),
            Ability.LOGIT_BIAS: chat(sampling=Sampling(seed=1, logit_bias={1: 1.0})),
            Ability.COMPLETE: Job(TextPrompt("a")),
        }
        for ability, job in jobs.items():
            if ability not in engine.capabilities.abilities:
                with pytest.raises(Unsupported):
                    await engine.open(job)
        if Ability.EMBED not in engine.capabilities.abilities:
            with pytest.raises(Unsupported):
                await engine.embed(("a",))
        if Ability.TOKENIZE not in engine.capabilities.abilities:
            with pytest.raises(Unsupported):
                await engine.tokenize("a")
            with pytest.raises(Unsupported):
                await engine.count_tokens(ChatPrompt((Message(Role.USER, "a"),)))
        await assert_alive(engine)

    # --- embeddings and tokens ---------------------------------------------------------------------------------

    async def test_embeddings_have_length_one_and_keep_their_order(self, engine: Engine) -> None:
        need(engine, Ability.EMBED)
        texts = ("a lighthouse by the sea", "quarterly tax report", "a lighthouse by the sea")
        vectors, usage = await engine.embed(texts)
        assert len(vectors) == 3
        assert len({len(vector) for vector in vectors}) == 1
        for vector in vectors:
            assert math.sqrt(sum(value * value for value in vector)) == pytest.approx(1, abs=1e-4)
        assert vectors[0] == pytest.approx(vectors[2], abs=1e-4)
        assert vectors[0] != pytest.approx(vectors[1], abs=1e-2)
        assert usage.prompt_tokens >= 3
        assert usage.completion_tokens == 0

    async def test_a_text_over_the_window_is_not_embedded(self, engine: Engine) -> None:
        need(engine, Ability.EMBED)
        with pytest.raises(ContextWindowExceeded):
            await engine.embed(("word " * (engine.capabilities.window_tokens + 1),))
        await assert_alive(engine)

    async def test_tokens_are_the_same_each_time_and_none_for_nothing(self, engine: Engine) -> None:
        need(engine, Ability.TOKENIZE)
        assert await engine.tokenize("") == ()
        once = await engine.tokenize(EMOJI)
        assert once == await engine.tokenize(EMOJI)
        assert len(once) >= 1
        assert len(await engine.tokenize(EMOJI * 3)) > len(once)

    async def test_the_count_of_a_prompt_is_what_its_usage_says(self, engine: Engine) -> None:
        need(engine, Ability.TOKENIZE)
        prompts = [
            ChatPrompt((Message(Role.USER, STORY),)),
            ChatPrompt((Message(Role.SYSTEM, "Be kind."), Message(Role.USER, EMOJI))),
        ]
        for prompt in prompts:
            n_tokens = await engine.count_tokens(prompt)
            outcome = await run(engine, chat(prompt=prompt, max_tokens=1))
            assert outcome.usage.prompt_tokens == n_tokens
            assert n_tokens > len(await engine.tokenize(prompt.messages[-1].text()))
