from hypothesis import given
from hypothesis import strategies as st

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


def test_no_secret_is_written() -> None:
    spawn = Spawn(program="p", env={"API_KEY": "s3cret"})
    assert b"s3cret" not in write_call(spawn).head
    assert b"API_KEY" in write_call(spawn).head
    guest = write_answer(Guest(Pid(3), "g", "aios_s3cret"), write_call(GetPid()))
    assert b"s3cret" not in guest.head
