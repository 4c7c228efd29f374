import json

import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from aios.kernel.tools.mcp.flow import BURST, BYTES, REQUEST
from aios.kernel.tools.mcp.wire import MAX_VALUES, TOO_RICH, TOOLS_CHANGED, Traffic, is_rich


def traffic_with(*ids: int | str) -> Traffic:
    """Traffic in which these were asked."""
    traffic = Traffic(lambda: 0.0)
    for each in ids:
        request = JSONRPCRequest(jsonrpc="2.0", id=each, method="tools/call")
        traffic.note_sent(SessionMessage(request))
    return traffic


def line(**message: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode()


def test_a_reply_passes_once_and_only_if_it_was_asked_for() -> None:
    traffic = traffic_with(1, "a")
    assert traffic.read_line(line(id=2, result={})) == []
    (reply,) = traffic.read_line(line(id=1, result={}))
    assert isinstance(reply.message, JSONRPCResponse)
    assert traffic.read_line(line(id=1, result={})) == []
    assert len(traffic.read_line(line(id="a", error={"code": 1, "message": ""}))) == 1


def test_a_reply_that_is_none_is_an_error_to_who_asked() -> None:
    (reply,) = traffic_with(1, 2).read_line(line(id=1, result=7))
    assert isinstance(reply.message, JSONRPCError)
    assert reply.message.id == 1
    broken = traffic_with(1, 2).read_line(b'{"jsonrpc": "2.0", "id": 1')
    assert [isinstance(each.message, JSONRPCError) for each in broken] == [True, True]


def test_a_reply_of_too_many_values_is_an_error_to_who_asked() -> None:
    traffic = traffic_with(1, 2)
    (reply,) = traffic.read_line(line(id=1, result={"a": [[]]}), is_rich=True)
    assert isinstance(reply.message, JSONRPCError)
    assert (reply.message.id, reply.message.error.message) == (1, TOO_RICH)
    assert traffic.read_line(line(method="ping", id=2), is_rich=True) == []
    assert len(traffic.read_line(b"[1, 2]", is_rich=True)) == 1, "it may have been the other's"


@pytest.mark.anyio
async def test_only_values_count_not_what_is_in_texts() -> None:
    assert not await is_rich(line(id=1, result={"a": "[" * 2 * MAX_VALUES}))
    assert await is_rich(line(id=1, result={"a": [[]] * MAX_VALUES}))


def test_log_lines_and_junk_are_passed_over() -> None:
    traffic = traffic_with(1)
    for junk in (b"[INFO] ready", b"\xff\x00", b"7", b"null", b"[" * 100_000, b"NaN"):
        assert traffic.read_line(junk) == []
    assert len(traffic.read_line(line(id=1, result={}))) == 1


def test_several_messages_may_be_in_a_line() -> None:
    both = [json.loads(line(id=each, result={})) for each in (1, 2)]
    assert len(traffic_with(1, 2).read_line(json.dumps([*both, 7]).encode())) == 2


def test_notifications_end_here_and_that_tools_changed_is_noted() -> None:
    traffic = traffic_with()
    assert traffic.read_line(line(method="notifications/message", params={})) == []
    assert not traffic.is_changed
    change = JSONRPCNotification(jsonrpc="2.0", method=TOOLS_CHANGED)
    assert traffic.sort(SessionMessage(change)) == []
    assert traffic.is_changed


def test_who_goes_on_saying_what_nobody_asked_for_is_ended() -> None:
    large = line(method="notifications/message", params={"data": "x" * 9 * BYTES})
    costs = {line(method="ping", id=1): REQUEST, line(id=9, result={}): 1, b"junk": 1, large: 10}
    for junk, cost in costs.items():
        traffic = traffic_with()
        for _ in range(BURST // cost):
            traffic.read_line(junk)
        assert not traffic.ended.is_set()
        traffic.read_line(junk)
        assert "floods" in traffic.why


def test_an_exception_of_the_transport_is_passed_over_and_counted() -> None:
    """Over HTTP each call has an answer of its own: what is malformed elsewhere is to none of them."""
    traffic = traffic_with(1, 2)
    for _ in range(BURST):
        assert traffic.sort(ValueError("no message")) == []
    assert not traffic.ended.is_set()
    assert len(traffic.read_line(line(id=1, result={}))) == 1
    traffic.sort(ValueError("no message"))
    assert "floods" in traffic.why
