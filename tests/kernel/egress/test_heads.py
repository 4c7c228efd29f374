from contextlib import suppress
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.errors import InvalidCall
from aios.kernel.egress.heads import CHUNKED, read_chunk_size, read_head, server_name, write_head


def test_a_request_is_said_on_in_one_way() -> None:
    head = read_head(
        b"POST http://Example.com/a?b=c HTTP/1.1\r\nHost: example.com\r\nConnection: X-Own\r\n"
        b"X-Own: 1\r\nProxy-Authorization: x\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n"
    )
    assert (head.target.host, head.target.port, head.length) == ("example.com", 80, CHUNKED)
    assert write_head(head, head.headers) == (
        b"POST /a?b=c HTTP/1.1\r\nHost: example.com\r\nA: b\r\nAccept-Encoding: identity\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )


def test_a_tunnel_names_a_host_and_a_port() -> None:
    head = read_head(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n")
    assert (head.target.host, head.target.port, head.is_tunnel) == ("2001:db8::1", 443, True)


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_refused(data: bytes) -> None:
    for read in (read_head, read_chunk_size, server_name):
        with suppress(InvalidCall):
            read(data)
    with suppress(InvalidCall):
        server_name(b"\x16\x03\x01" + len(data).to_bytes(2) + data)


@pytest.mark.parametrize(
    "lines",
    [
        b"a: " + b" " * 30_000 + b"\x01",
        b"a: " + b"\t " * 15_000 + b"\x7f",
        b"\r\n".join([b"a:"] * 8_000),
    ],
    ids=["spaces", "tabs", "many"],
)
def test_no_head_takes_long_to_read(lines: bytes) -> None:
    begun_s = process_time()
    with suppress(InvalidCall):
        read_head(b"GET http://example.com/ HTTP/1.1\r\n" + lines + b"\r\n\r\n")
    assert process_time() - begun_s < 1.0


def test_spaces_around_a_value_are_not_of_it() -> None:
    head = read_head(b"GET http://example.com/ HTTP/1.1\r\na: \t b c\t \r\nempty:\r\n\r\n")
    assert head.headers == (("a", "b c"), ("empty", ""))


@pytest.mark.parametrize(
    "line", [b"-1\r\n", b"0x4\r\n", b"4\n", b"4 \r\n", b"\r\n", b"fffffffff\r\n"]
)
def test_a_length_of_a_chunk_is_hexadecimal_and_nothing_else(line: bytes) -> None:
    with pytest.raises(InvalidCall):
        read_chunk_size(line)
