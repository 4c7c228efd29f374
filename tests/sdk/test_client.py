import enum
from dataclasses import dataclass
from pathlib import Path

import anyio
import msgspec
import pytest
from tests.sdk.serving import booted, calling, own_client, scripted, served

from aios.abi.types import (
    Finish,
    ImagePart,
    JsonSchema,
    Message,
    Regex,
    Role,
    Sampling,
    State,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolSpec,
)
from aios.engine.base import ChatPrompt, Job
from aios.engine.script import Script
from aios.errors import (
    DeadlineExceeded,
    EngineFailed,
    InvalidCall,
    KernelUnreachable,
    NotFound,
    Unauthenticated,
)
from aios.sdk.client import Client, connect

pytestmark = pytest.mark.anyio


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Verdict(msgspec.Struct):
    mood: Mood
    points: int


@dataclass
class Place:
    name: str


async def test_a_text_is_one_user_message() -> None:
    jobs: list[Job] = []

    def answer(job: Job) -> str:
        jobs.append(job)
        return "hello"

    async with own_client(Script(answer=answer)) as client:
        reply = await client.chat(
            "hi", temperature=0.5, seed=7, stop="END", max_tokens=9, sampling=Sampling(top_k=3)
        )
    assert (reply.text, reply.finish, reply.model) == ("hello", Finish.STOP, "scripted")
    assert reply.usage.completion_tokens > 0
    assert reply.ran_s > 0
    assert reply.cached_tokens == 0
    job = jobs[0]
    assert isinstance(job.prompt, ChatPrompt)
    assert job.prompt.messages == (Message(Role.USER, "hi"),)
    assert job.sampling == Sampling(temperature=0.5, top_k=3, seed=7)
    assert (job.stop, job.max_tokens) == (("END",), 9)


async def test_messages_may_have_the_shape_of_the_openai_api() -> None:
    seen: list[tuple[Message, ...]] = []

    def answer(job: Job) -> str:
        assert isinstance(job.prompt, ChatPrompt)
        seen.append(job.prompt.messages)
        return "ok"

    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    async with own_client(Script(answer=answer)) as client:
        await client.chat(
            [
                {"role": "system", "content": "be brief"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "what is this?"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                    ],
                },
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "a", "content": "42"},
                Message(Role.USER, "well?"),
            ]
        )
    image = ImagePart("data:image/png;base64,AA==")
    assert seen[0] == (
        Message(Role.SYSTEM, "be brief"),
        Message(Role.USER, (TextPart("what is this?"), image)),
        Message(Role.ASSISTANT, "", (ToolCall("a", "f", "{}"),)),
        Message(Role.TOOL, "42", tool_call_id="a"),
        Message(Role.USER, "well?"),
    )


async def test_a_schema_from_a_type_gives_a_value_of_that_type() -> None:
    jobs: list[Job] = []

    def answer(job: Job) -> str:
        jobs.append(job)
        return '{"mood":"bad","points":3}'

    async with own_client(Script(answer=answer)) as client:
        reply = await client.chat("judge", schema=Verdict)
    assert reply.parsed == Verdict(Mood.BAD, 3)
    constraint = jobs[0].constraint
    assert isinstance(constraint, JsonSchema)
    assert constraint.name == "Verdict"
    assert constraint.schema["additionalProperties"] is False
    assert constraint.schema["properties"] == {
        "mood": {"title": "Mood", "enum": ["bad", "good"]},
        "points": {"type": "integer"},
    }


async def test_schemas_of_dataclasses_and_dicts_are_followed_by_the_engine() -> None:
    async with own_client() as client:
        place = (await client.chat("where?", schema=Place)).parsed
        raw = (await client.chat("n?", schema={"type": "integer", "minimum": 5})).parsed
    assert isinstance(place, Place)
    assert raw == 5


async def test_a_reply_that_was_cut_is_no_value_and_says_so() -> None:
    async with own_client(scripted('{"mood":"good","points":12}')) as client:
        reply = await client.chat("judge", schema=Verdict, max_tokens=2)
    with pytest.raises(EngineFailed, match="cut at max_tokens"):
        _ = reply.parsed


async def test_a_reply_that_is_nested_too_deep_is_no_value_and_says_so() -> None:
    async with own_client(scripted("[" * 2_000 + "]" * 2_000)) as client:
        reply = await client.chat("judge", max_tokens=None)
    with pytest.raises(EngineFailed, match="recursion"):
        _ = msgspec.structs.replace(reply, schema=list[object]).parsed


async def test_parsed_without_a_schema_is_the_callers_mistake() -> None:
    async with own_client() as client:
        reply = await client.chat("hi")
    with pytest.raises(InvalidCall, match="no schema"):
        _ = reply.parsed


async def test_regex_tools_and_choice_reach_the_engine() -> None:
    jobs: list[Job] = []

    def answer(job: Job) -> str:
        jobs.append(job)
        return "ab"

    spec = ToolSpec("look", "looks", {"type": "object", "properties": {}})
    async with own_client(Script(answer=answer)) as client:
        await client.chat("x", regex="[ab]+")
        await client.chat("x", tools=[spec], tool_choice="look")
        await client.chat("x", tools=[spec], tool_choice="required")
    assert jobs[0].constraint == Regex("[ab]+")
    prompts = [job.prompt for job in jobs[1:]]
    assert isinstance(prompts[0], ChatPrompt)
    assert isinstance(prompts[1], ChatPrompt)
    assert prompts[0].tools == (spec,)
    assert prompts[0].tool_choice == ToolChoice("tool", "look")
    assert prompts[1].tool_choice == ToolChoice("required")


async def test_a_reply_hands_tool_calls_out_whole() -> None:
    async with own_client(scripted(calling(("look", '{"a":1}')))) as client:
        spec = ToolSpec("look", parameters={"type": "object"})
        reply = await client.chat("x", tools=[spec])
    assert reply.tool_calls == (ToolCall("c0", "look", '{"a":1}'),)
    assert reply.finish is Finish.TOOL_CALLS


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1}, "`temperature`: expected a number >= 0"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ""}, "stop"),
        ({"deadline_s": -3}, "deadline_s"),
        ({"regex": ""}, "regex"),
        ({"regex": "a", "schema": {}}, "both"),
        ({"tool_choice": "nobody"}, "nobody"),
        ({"tools": ["x"]}, "not a tool"),
        ({"schema": complex}, "complex"),
        ({"sampling": {"top_k": 1}}, "Sampling"),
        ({"temprature": 1}, "temprature"),
    ],
)
async def test_a_wrong_option_is_named(options: dict[str, object], words: str) -> None:
    async with own_client() as client:
        with pytest.raises(InvalidCall, match=words):
            await client.chat("x", **options)  # type: ignore[call-overload]  # the point of the test


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "king", "content": "x"}],
        [{"content": "x"}],
        [42],
        [{"role": "user", "content": [{"type": "sound"}]}],
        [{"role": "user", "content": 7}],
    ],
)
async def test_a_wrong_message_is_the_callers_mistake(messages: list[object]) -> None:
    async with own_client() as client:
        with pytest.raises(InvalidCall):
            await client.chat(messages)  # type: ignore[arg-type]  # the point of the test


async def test_a_stream_brings_the_pieces_and_then_the_reply() -> None:
    script = Script(answer_tokens=100, token_delay_s=0.01)  # pieces that are late come as one
    with anyio.fail_after(30):
        async with own_client(script) as client, client.stream_chat("tell") as stream:
            pieces = [piece async for piece in stream]
            reply = await stream.reply()
    assert len(pieces) > 1
    assert "".join(pieces) == reply.text
    assert reply.usage.completion_tokens == 100


async def test_leaving_a_stream_early_cancels_the_call() -> None:
    script = Script(answer_tokens=5000, token_delay_s=0.01)
    with anyio.fail_after(30):
        async with own_client(script) as client:
            async with client.stream_chat("tell") as stream:
                async for _ in stream:
                    break
            info = await client.info()
    assert info.engines[0].n_running == 0


async def test_a_stream_of_a_schema_gives_the_value_at_its_end() -> None:
    async with own_client() as client, client.stream_chat("x", schema=Place) as stream:
        reply = await stream.reply()
    assert reply.parsed == Place("text")


async def test_completions_go_on_with_a_text() -> None:
    async with own_client(scripted(" there was a ship", " whole")) as client:
        reply = await client.complete("Once", max_tokens=20)
        async with client.stream_complete("The") as stream:
            pieces = [piece async for piece in stream]
            last = await stream.reply()
    assert reply.text == " there was a ship"
    assert "".join(pieces) == last.text == " whole"
    assert reply.finish is Finish.STOP
    assert reply.ran_s > 0


async def test_a_deadline_ends_a_call() -> None:
    script = Script(answer_tokens=5000, token_delay_s=0.01)
    with anyio.fail_after(30):
        async with own_client(script) as client:
            with pytest.raises(DeadlineExceeded):
                await client.chat("x", deadline_s=0.05)


async def test_vectors_and_tokens() -> None:
    async with own_client() as client:
        one = await client.embed("a text")
        two = await client.embed(["a text", "another"])
        tokens = await client.tokenize("a b c")
        counted = await client.count_tokens("a b c")
    assert one.vectors[0] == two.vectors[0] != two.vectors[1]
    assert sum(x * x for x in one.vectors[0]) == pytest.approx(1.0)
    assert len(tokens.tokens) > 1
    assert counted.n_tokens > len(tokens.tokens)
    assert counted.window_tokens == 8192


async def test_an_unknown_model_is_not_found() -> None:
    async with own_client() as client:
        with pytest.raises(NotFound, match="gpt"):
            await client.chat("x", model="gpt-nonsense")


async def test_processes_can_be_seen_held_and_ended() -> None:
    with anyio.fail_after(30):
        async with booted() as kernel:
            owner = Client(kernel.init_gate())
            guest = await owner.admit("visitor")
            me = Client(kernel.gate(guest.pid))
            assert (await me.getpid()).name == "visitor"
            assert guest.token.startswith("aios_")
            assert guest.pid in {row.pid for row in await owner.ps()}
            assert await owner.stop(guest.pid) == (guest.pid,)
            assert await owner.cont(guest.pid) == (guest.pid,)
            assert await owner.nice(guest.pid, 5) == 5
            await me.log("one\ntwo")
            await me.exit(3, "done")
            ended = await owner.wait(guest.pid)
            assert (ended.exit.status, ended.exit.result) == (3, "done")
            rows = await owner.ps(include_ended=True)
            assert {row.state for row in rows if row.pid == guest.pid} == {State.EXITED}
            assert guest.pid not in {row.pid for row in await owner.ps()}
            async with owner.logs(guest.pid) as lines:
                texts = [line.text async for line in lines if line.stream == "log"]
                end = await lines.end()
            assert texts == ["one", "two"]
            assert lines.n_missed == end.n_dropped == 0


async def test_kill_names_whom_it_reached() -> None:
    async with booted() as kernel:
        owner = Client(kernel.init_gate())
        guest = await owner.admit("victim")
        assert await owner.kill(guest.pid, "because") == (guest.pid,)
        assert "because" in (await owner.wait(guest.pid)).exit.reason


async def test_waiting_has_a_deadline() -> None:
    with anyio.fail_after(30):
        async with booted() as kernel:
            owner = Client(kernel.init_gate())
            guest = await owner.admit("sleeper")
            with pytest.raises(DeadlineExceeded):
                await owner.wait(guest.pid, deadline_s=0.01)


async def test_shutdown_asks_the_kernel_to_end() -> None:
    async with booted() as kernel:
        await Client(kernel.init_gate()).shutdown()
        assert kernel.stopping.is_set()


async def test_a_program_is_started_from_the_callers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "prog"
    folder.mkdir()
    (folder / "agent.toml").write_text('name = "prog"\n')
    (folder / "main.py").write_text(
        "import os, sys; print(os.getcwd(), os.environ['X'], *sys.argv[1:])"
    )
    monkeypatch.chdir(tmp_path)
    with anyio.fail_after(30):
        async with served() as kernel, connect(kernel.urls[0], kernel.owner_token) as client:
            child = await client.spawn("prog", "a", "b c", name="kid", nice=3, env={"X": "y"})
            assert child.name == "kid"
            assert (await client.wait(child.pid)).exit.status == 0
            async with client.logs(child.pid) as lines:
                assert [line.text async for line in lines] == [f"{tmp_path} y a b c"]


async def test_connecting_finds_the_kernel_in_the_environment_and_in_its_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with anyio.fail_after(30):
        async with served(http=True) as kernel:
            for name in ("AIOS_URL", "AIOS_TOKEN", "AIOS_CONFIG"):
                monkeypatch.delenv(name, raising=False)
            monkeypatch.setenv("AIOS_HOME", str(kernel.home.root))
            async with connect() as client:
                assert (await client.getpid()).name == "init"
            guest = Client(kernel.init_gate())
            token = (await guest.admit("visitor")).token
            monkeypatch.setenv("AIOS_TOKEN", token)
            async with connect() as client:
                assert (await client.getpid()).name == "visitor"
            monkeypatch.setenv("AIOS_URL", kernel.urls[1])
            assert kernel.urls[1].startswith("http://")
            async with connect() as client, client.stream_chat("hi") as stream:
                assert (await stream.reply()).text
            async with connect(kernel.urls[0], kernel.owner_token) as client:
                assert (await client.getpid()).name == "init"


async def test_without_a_kernel_the_error_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AIOS_URL", "AIOS_TOKEN", "AIOS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIOS_HOME", str(tmp_path))
    with pytest.raises(KernelUnreachable) as caught:
        async with connect():
            pass
    assert "aios serve" in caught.value.hint
    with pytest.raises(KernelUnreachable) as caught:
        async with connect(f"unix://{tmp_path}/no.sock", "aios_x"):
            pass
    assert "aios serve" in caught.value.hint


async def test_an_address_of_no_kind_is_refused_and_the_token_stays_out_of_it() -> None:
    with pytest.raises(KernelUnreachable, match="gopher") as caught:
        async with connect("gopher://x", "aios_secret"):
            pass
    assert "secret" not in str(caught.value)


async def test_a_wrong_token_is_refused() -> None:
    async with served() as kernel:
        with pytest.raises(Unauthenticated):
            async with connect(kernel.urls[0], "aios_wrong") as client:
                await client.getpid()
