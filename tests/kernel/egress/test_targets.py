from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.errors import AccessDenied, InvalidCall
from aios.kernel.egress.targets import check_host, is_public, read_url


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://example.com/x?y#z", "example.com", 443),
        ("HTTP://Example.COM./", "example.com", 80),
        ("http://example.com:8080", "example.com", 8080),
        ("https://bücher.example/", "xn--bcher-kva.example", 443),
        ("http://[::1]:80/", "::1", 80),
    ],
)
def test_an_address_is_read(url: str, host: str, port: int) -> None:
    target = read_url(url)
    assert (target.host, target.port) == (host, port)


def test_a_scheme_in_capitals_asks_for_tls_all_the_same() -> None:
    target = read_url("HTTPS://Example.com/A?B")
    assert (target.url, target.port) == ("https://Example.com/A?B", 443)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "//example.com",
        "https://",
        "https://user:pass@example.com/",
        "https://example.com@evil.example/",
        "https://example.com\r\nHost: x/",
        "https://exa mple.com/",
        "http://[::1",
        "http://example.com:99999/",
        "https://" + "x" * 9_000,
        "javascript:alert(1)",
    ],
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidCall):
        read_url(url)


@pytest.mark.parametrize(
    ("url", "allowed", "is_good"),
    [
        ("https://example.com/", ["example.com"], True),
        ("https://EXAMPLE.com./", ["Example.com"], True),
        ("https://www.example.com/", ["example.com"], False),
        ("https://www.example.com/", ["*.example.com"], True),
        ("https://example.com/", ["*.example.com"], False),
        ("https://evilexample.com/", ["*.example.com", "example.com"], False),
        ("https://example.com.evil.org/", ["example.com"], False),
        ("http://example.com:8080/", ["example.com"], False),
        ("http://example.com:8080/", ["example.com:8080"], True),
        ("http://example.com/", ["example.com:8080"], False),
        ("https://anything.org/", ["*"], True),
        ("https://anything.org:22/", ["*"], False),
        ("https://example.com/", [], False),
    ],
)
def test_only_listed_hosts_may_be_spoken_to(url: str, allowed: list[str], is_good: bool) -> None:
    if is_good:
        check_host(read_url(url), [allowed, ["*", "*:8080"]])
        return
    with pytest.raises(AccessDenied):
        check_host(read_url(url), [allowed])


def test_every_list_must_have_the_host() -> None:
    target = read_url("https://example.com/")
    with pytest.raises(AccessDenied):
        check_host(target, [["*"], ["other.org"]])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", str(ip_address(0)), "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::", "2002:a00:1::1", "nonsense", "", "0x7f000001", "2130706433",
    ],
)  # fmt: skip
def test_private_and_odd_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::808:808"]
)
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_what_carries_a_private_address_is_no_more_public_than_that(address: object) -> None:
    if not is_public(str(address)):
        for carrier in (f"::ffff:{address}", f"64:ff9b::{address}", f"::{address}"):
            assert not is_public(carrier)
