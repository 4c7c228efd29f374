"""What goes over the socket: what cannot be sent is told to who sends it, and an answer is read as that of its call."""

import msgspec
import pytest

from aios.abi.calls import GetPid, Log, Ps, Self
from aios.abi.every import AnyAnswer, AnyCall
from aios.abi.gate import Fault, Result, Token
from aios.abi.packets import HEADER_BYTES, Reply, Request, answer_of, pack, unpack_frame
from aios.abi.packets import unpack_to_client as unpack
from aios.abi.types import Pid
from aios.errors import InvalidCall

ME = Result(Self(Pid(2), Pid(1), "me"))


def raw_frame(frame: object) -> msgspec.Raw:
    packet = unpack(pack(Reply(1, frame))[HEADER_BYTES:])
    assert isinstance(packet, Reply)
    return packet.frame


@pytest.mark.parametrize("frame", [ME, Fault("denied", "no"), Token("a piece")])
def test_frames_come_back_as_they_were(frame: object) -> None:
    assert unpack_frame(raw_frame(frame), GetPid) == frame


def test_the_answer_of_another_call_is_refused() -> None:
    with pytest.raises(InvalidCall, match="malformed"):
        unpack_frame(raw_frame(ME), Ps)


def test_every_call_says_what_it_answers() -> None:
    answers = {answer_of(call) for call in AnyCall.__args__}
    assert answers == set(AnyAnswer.__args__)


def test_text_that_is_no_unicode_is_named_and_not_sent() -> None:
    text = "x" * 1000 + "\udcff"
    with pytest.raises(InvalidCall, match="is no text in UTF-8") as caught:
        pack(Request(1, Log(text=text)))
    assert len(caught.value.message) < 150


def test_a_request_names_the_call_of_a_tool_that_it_is_made_for_and_else_nothing() -> None:
    plain, made = Request(1, GetPid()), Request(1, GetPid(), job=7)
    assert b"job" not in pack(plain)
    assert msgspec.msgpack.decode(pack(made)[HEADER_BYTES:])["job"] == 7
