import base64

import pytest
from starlette.datastructures import Headers

from aios.errors import AccessDenied, InvalidCall
from aios.server.auth import check_host, token_in


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer aios_x", "aios_x"),
        ("bearer   aios_x ", "aios_x"),
        (basic("anybody:aios_x"), "aios_x"),
        (basic(":aios_x"), "aios_x"),
        ("aios_x", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("", None),
        ("Digest aios_x", None),
        ("Basic !!!", None),
        (basic("aios_x"), None),
        ("Basic " + base64.b64encode(b"\xff:\xfe").decode(), None),
    ],
)
def test_a_token_is_found_where_clients_put_it(value: str, token: str | None) -> None:
    assert token_in(Headers({"Authorization": value})) == token


def test_two_tokens_are_none() -> None:
    headers = Headers(raw=[(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")])
    assert token_in(headers) is None
    assert token_in(Headers({})) is None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8411",
        "localhost",
        "LOCALHOST:1",
        "[::1]:80",
        "[::1]",
        "x.localhost",
        "127.9.9.9",
        "me",
    ],
)
def test_names_of_this_machine_are_answered(host: str) -> None:
    check_host(Headers({"Host": host}), "me")


@pytest.mark.parametrize(
    "host",
    ["evil.com", "evil.com:8411", "127.0.0.1.evil.com", "localhost.evil.com", "192.0.2.1", "", "[", "10.0.0.1", "xlocalhost"],
)  # fmt: skip
def test_names_that_a_web_page_could_have_made_up_are_refused(host: str) -> None:
    with pytest.raises(AccessDenied):
        check_host(Headers({"Host": host}), "127.0.0.1")


def test_two_names_are_refused_and_none_is_not() -> None:
    check_host(Headers({}), "127.0.0.1")
    with pytest.raises(InvalidCall):
        check_host(Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.com")]), "127.0.0.1")
