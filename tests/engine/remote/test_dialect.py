"""How a request is put for one endpoint."""

import pytest
from tests.engine.jobs import ADD, chat

from aios.abi.types import JsonSchema, Message, Regex, Role, Sampling, ToolCall, ToolChoice
from aios.engine.base import ChatPrompt, Job, TextPrompt
from aios.engine.remote.dialect import Dialect, Flavour, GoingOn, flavour_of
from aios.engine.remote.problems import Problem
from aios.errors import Unsupported

SAMPLING = Sampling(
    temperature=0.7, top_k=0, top_p=1, min_p=0.1, repeat_penalty=1.1, seed=2**62 + 5
)


def body_of(job: Job, dialect: Dialect) -> dict[str, object]:
    assert isinstance(job.prompt, ChatPrompt)
    return dialect.chat_body(job, job.prompt, model="m")


# --- fields ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flavour", "there", "absent"),
    [
        (Flavour.OPENAI, {"top_p": 1, "prompt_cache_key": None}, {"top_k", "min_p", "repeat_penalty"}),
        (Flavour.VLLM, {"top_k": -1, "min_p": 0.1, "repetition_penalty": 1.1}, {"repeat_penalty", "prompt_cache_key"}),
        (Flavour.LLAMA_SERVER, {"top_k": 0, "min_p": 0.1, "repeat_penalty": 1.1}, {"repetition_penalty"}),
        (Flavour.AIOS, {"top_k": 0, "seed": 2**62 + 5}, {"prompt_cache_key"}),
    ],
)  # fmt: skip
def test_each_kind_of_server_gets_the_fields_that_it_knows(
    flavour: Flavour, there: dict[str, object], absent: set[str]
) -> None:
    body = body_of(chat(sampling=SAMPLING), Dialect(flavour))
    for name, value in there.items():
        assert name in body
        assert value in (None, body[name])
    assert not absent & body.keys()


def test_what_is_off_is_said_because_servers_have_defaults_of_their_own() -> None:
    greedy = Sampling(temperature=0, top_k=0, top_p=1, min_p=0)
    body = body_of(chat(sampling=greedy), Dialect(Flavour.LLAMA_SERVER))
    assert [body[name] for name in ("temperature", "top_k", "top_p", "min_p")] == [0, 0, 1, 0]


def test_llama_server_is_asked_for_one_alternative_at_least() -> None:
    asked = [
        body_of(chat(top_logprobs=0), Dialect(kind))["top_logprobs"]
        for kind in (Flavour.LLAMA_SERVER, Flavour.VLLM)
    ]
    assert asked == [1, 0]


def test_a_conversation_keeps_its_calls_and_results() -> None:
    said = (
        Message(Role.ASSISTANT, "", (ToolCall("c1", "add", '{"a": 1}'),)),
        Message(Role.TOOL, "2", tool_call_id="c1"),
    )
    body = body_of(chat(prompt=ChatPrompt(said, (ADD,), ToolChoice("required"))), Dialect())
    assert body["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]  # fmt: skip
    assert body["tool_choice"] == "required"


def test_going_on_from_a_text_makes_it_part_of_the_prompt() -> None:
    prompt = TextPrompt("Once ")
    body = Dialect().text_body(Job(prompt), prompt, model="m", said="upon")
    assert body["prompt"] == "Once upon"


def test_a_text_without_a_limit_gets_one() -> None:
    job = Job(TextPrompt("a"))
    assert isinstance(job.prompt, TextPrompt)
    assert Dialect().text_body(job, job.prompt, model="m")["max_tokens"] == 1024
    assert "max_tokens" not in body_of(chat(max_tokens=None), Dialect())


# --- constraints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regex_field", "value"),
    [("structured_outputs", {"regex": "a+"}), ("guided_regex", "a+"), ("regex", "a+")],
)
def test_a_pattern_goes_where_the_server_takes_it(regex_field: str, value: object) -> None:
    body = body_of(chat(constraint=Regex("a+")), Dialect(regex_field=regex_field))
    assert body[regex_field] == value


def test_a_pattern_that_no_field_carries_is_refused() -> None:
    with pytest.raises(Unsupported):
        body_of(chat(constraint=Regex("a+")), Dialect())


def test_a_schema_is_a_response_format_in_chats() -> None:
    body = body_of(chat(constraint=JsonSchema({"type": "null"}, "my schema!")), Dialect())
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "my_schema_", "schema": {"type": "null"}, "strict": True},
    }
    assert body_of(chat(constraint=JsonSchema({})), Dialect())["response_format"] == {
        "type": "json_object"
    }


def test_a_schema_for_a_text_goes_where_the_server_takes_it() -> None:
    prompt = TextPrompt("a")
    job = Job(prompt, constraint=JsonSchema({"type": "null"}))
    body = Dialect(Flavour.VLLM, "structured_outputs").text_body(job, prompt, model="m")
    assert body["structured_outputs"] == {"json": {"type": "null"}}
    assert Dialect(Flavour.VLLM, "guided_regex").text_body(job, prompt, model="m")[
        "guided_json"
    ] == {"type": "null"}
    with pytest.raises(Unsupported):
        Dialect().text_body(job, prompt, model="m")


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("top_k", "Unrecognized request argument supplied: top_k"),
        ("min_p", "body.min_p: Extra inputs are not permitted"),
        ("stream_options", "unknown field `stream_options`"),
        ("seed", "'seed' is not supported by this model"),
        (
            "temperature",
            "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1)",
        ),
    ],
)
def test_a_field_that_is_refused_by_name_is_dropped_once(name: str, message: str) -> None:
    dialect = Dialect()
    body = body_of(chat(sampling=SAMPLING), dialect)
    assert name in body
    assert dialect.mend(Problem(400, message), body)
    assert dialect.dropped == {name}
    after = body_of(chat(sampling=SAMPLING), dialect)
    assert name not in after
    assert not dialect.mend(Problem(400, message), after)


@pytest.mark.parametrize(
    "problem",
    [
        Problem(400, "temperature must be below 2"),
        Problem(400, "'logit_bias' is not supported"),
        Problem(400, "'tools' is not supported"),
        Problem(500, "top_k is not supported"),
        Problem(400, "the top_kittens are not supported"),
    ],
)
def test_other_refusals_change_nothing(problem: Problem) -> None:
    dialect = Dialect()
    body = body_of(chat(sampling=SAMPLING), dialect)
    assert not dialect.mend(problem, body)
    assert dialect == Dialect()


def test_the_limit_is_renamed_both_ways() -> None:
    dialect = Dialect()
    body = body_of(chat(), dialect)
    assert dialect.mend(Problem(400, "use max_completion_tokens instead", param="max_tokens"), body)
    body = body_of(chat(), dialect)
    assert "max_tokens" not in body
    assert dialect.mend(Problem(422, "max_completion_tokens: Extra inputs are not permitted"), body)
    assert "max_tokens" in body_of(chat(), dialect)


# --- flavours --------------------------------------------------------------------------------------------------------


def test_servers_are_known_by_the_owner_of_their_models() -> None:
    assert flavour_of("vllm") is Flavour.VLLM
    assert flavour_of("llamacpp") is Flavour.LLAMA_SERVER
    assert flavour_of("somebody") is Flavour.UNKNOWN


@pytest.mark.parametrize("going_on", list(GoingOn))
def test_a_begun_answer_is_the_last_message_and_fields_say_so_where_they_must(
    going_on: GoingOn,
) -> None:
    dialect = Dialect(going_on=going_on)
    job = chat()
    assert isinstance(job.prompt, ChatPrompt)
    body = dialect.chat_body(job, job.prompt, model="m", said="One, ")
    messages = body["messages"]
    assert isinstance(messages, list)
    assert messages[-1] == {"role": "assistant", "content": "One, "}
    assert ("continue_final_message" in body) is (going_on is GoingOn.FIELDS)
