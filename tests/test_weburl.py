import pytest

from aios.weburl import is_sendable


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080/v1",
        "https://example.com",
        "http://127.0.0.1:1/",
        "http://[::1]:65535/v1",
        "https://b\u00fccher.example/hook",
    ],
)
def test_what_can_be_sent_to_is_taken(url: str) -> None:
    assert is_sendable(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080",
        "ftp://example.com",
        "http://",
        "http://:80/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:port/",
        "http://[::1/",
        "http://xn--a.example/",
        "http://" + "a" * 64 + ".example/",
        "http://a..b/",
        "http://example.com/\n",
        "http://\x00/",
    ],
)
def test_what_some_reader_on_the_way_refuses_is_not(url: str) -> None:
    assert not is_sendable(url)
