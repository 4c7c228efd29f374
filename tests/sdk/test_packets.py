import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi.gate import Fault
from aios.abi.packets import Cancel, Hello, Refusal, Welcome, pack
from aios.abi.types import Pid
from aios.abi.wire import unpack_to_server
from aios.errors import InvalidCall, TooLarge, Unauthenticated
from aios.sdk.packets import PacketBuffer, read_greeting


@given(st.lists(st.integers(0, 2**40), max_size=20), st.lists(st.integers(1, 50), max_size=50))
def test_packets_come_out_whole_however_the_bytes_arrive(
    numbers: list[int], sizes: list[int]
) -> None:
    data = b"".join(pack(Cancel(number)) for number in numbers)
    buffer, bodies = PacketBuffer(), list[bytes]()
    for size in [*sizes, len(data)]:
        bodies += buffer.feed(data[:size])
        data = data[size:]
    assert [unpack_to_server(body) for body in bodies] == [Cancel(number) for number in numbers]


def test_packets_come_so_many_at_once_as_are_asked_for() -> None:
    buffer, data = PacketBuffer(), b"".join(pack(Cancel(number)) for number in range(10))
    taken = [buffer.feed(data + b"\0", at_most=4), *(buffer.feed(b"", at_most=4) for _ in range(3))]
    assert [len(bodies) for bodies in taken] == [4, 4, 2, 0]
    assert [unpack_to_server(body) for bodies in taken for body in bodies] == [
        Cancel(number) for number in range(10)
    ]
    assert buffer.n_held == 1


def test_a_header_over_the_limit_is_refused_before_its_body_comes() -> None:
    with pytest.raises(TooLarge):
        PacketBuffer().feed(b"\xff\xff\xff\xff")


def test_a_welcome_names_the_process() -> None:
    assert read_greeting(pack(Welcome(Pid(7)))[4:]) == 7


def test_a_refusal_is_raised_as_its_error() -> None:
    refusal = Refusal(Fault(Unauthenticated.code, "no such token"))
    with pytest.raises(Unauthenticated, match="no such token"):
        read_greeting(pack(refusal)[4:])


def test_something_else_than_a_greeting_is_refused() -> None:
    with pytest.raises(InvalidCall):
        read_greeting(pack(Hello("t"))[4:])
