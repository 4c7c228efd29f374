import logging
import socket

import pytest
from tests.server.serving import serving

from aios.config import ServerConfig
from aios.errors import ConfigError, Conflict
from aios.server.web import listen, url_of

pytestmark = pytest.mark.anyio


def test_a_free_port_is_found_and_named() -> None:
    with listen(ServerConfig(port=0)) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_localhost_and_ipv6_loopback_are_loopback() -> None:
    with listen(ServerConfig(host="localhost", port=0)) as listener:
        assert url_of(listener).startswith("http://127.0.0.1:")
    try:
        with listen(ServerConfig(host="::1", port=0)) as listener:
            assert url_of(listener).startswith("http://[::1]:")
    except ConfigError:
        pytest.skip("this machine has no IPv6")


def test_a_port_in_use_names_itself_and_the_way_out() -> None:
    with listen(ServerConfig(port=0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(Conflict, match=f"port {port}") as taken:
            listen(ServerConfig(port=port))
        assert "--port" in taken.value.hint


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])  # noqa: S104 - to see it refused
def test_other_addresses_need_leave(host: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        listen(ServerConfig(host=host, port=0))


def test_an_address_of_another_machine_is_said_clearly() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        listen(ServerConfig(host="192.0.2.1", port=0, allow_remote=True))


def test_an_open_address_is_reached_by_loopback() -> None:
    with listen(ServerConfig(host="0.0.0.0", port=0, allow_remote=True)) as listener:  # noqa: S104 - the subject
        assert url_of(listener).startswith("http://127.0.0.1:")


async def test_no_token_is_ever_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with serving() as served, served.client() as client:
            await client.get("/v1/models")
            await client.post("/v1/chat/completions", content=b"{")
            async with served.client(f"{served.token}.guest") as guest:
                await guest.get(f"/nothing?token={served.token}")
    secret = served.token
    ours = [
        record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))
    ]
    assert not [record for record in ours if secret in record.getMessage()]


async def test_a_port_in_use_keeps_the_kernel_from_starting_and_leaves_nothing() -> None:
    with listen(ServerConfig(port=0)) as listener:
        config = ServerConfig(port=listener.getsockname()[1])
        with pytest.raises(Conflict):
            async with serving(server=config):
                pass
