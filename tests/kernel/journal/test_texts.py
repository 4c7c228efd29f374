from hypothesis import given
from hypothesis import strategies as st

from aios.abi.call import Call, Done
from aios.abi.calls import Chat, GetPid, Guest, Spawn
from aios.abi.types import Message, Pid, Role
from aios.abi.wire import decode_call
from aios.kernel.journal.texts import join_call, write_answer, write_call


@given(st.lists(st.text(), min_size=1), st.booleans())
def test_a_call_comes_back_from_its_parts(texts: list[str], logprobs: bool) -> None:
    call = Chat(messages=tuple(Message(Role.USER, text) for text in texts), logprobs=logprobs)
    written = write_call(call)
    assert written.messages is not None
    joined = join_call(written.head, [link.data for link in written.messages])
    assert decode_call(joined) == call


def test_the_digest_tells_conversations_apart_but_not_deadlines() -> None:
    def digest(*texts: str, deadline_s: float | None = None) -> bytes:
        talk = tuple(Message(Role.USER, text) for text in texts)
        return write_call(Chat(messages=talk, deadline_s=deadline_s)).digest

    assert digest("a", "b") != digest("b", "a") != digest("ab")
    assert digest("a") == digest("a", deadline_s=3.0)


def test_a_call_is_the_same_to_the_next_version_which_gives_it_a_field_more() -> None:
    class Before(Call[Done], frozen=True, tag="ask"):
        text: str
        messages: tuple[Message, ...] = ()

    class After(Call[Done], frozen=True, tag="ask"):
        text: str
        messages: tuple[Message, ...] = ()
        limit: int | None = None
        tags: tuple[str, ...] = ()

    for messages in ((), (Message(Role.USER, "hello"),)):
        before, after = write_call(Before("a", messages)), write_call(After("a", messages))
        assert (before.head, before.digest) == (after.head, after.digest)
    assert write_call(After("a")).digest != write_call(After("a", limit=3)).digest


def test_no_secret_is_written() -> None:
    spawn = Spawn(program="p", env={"API_KEY": "s3cret"})
    assert b"s3cret" not in write_call(spawn).head
    assert b"API_KEY" in write_call(spawn).head
    guest = write_answer(Guest(Pid(3), "g", "aios_s3cret"), write_call(GetPid()))
    assert b"s3cret" not in guest.head
