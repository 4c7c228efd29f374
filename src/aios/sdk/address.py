"""Where the kernel is that a program is to speak to, and who the program is there."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from aios.errors import KernelUnreachable

UNIX_PREFIX = "unix://"
HTTP_PREFIXES = ("http://", "https://")
HINT = "start one with `aios serve`, or run the program with `aios run`, which brings its own"


class Address(NamedTuple):
    """A kernel's URL and the token that one shows there."""

    url: str
    token: str

    @property
    def unix_path(self) -> str | None:
        """The path of its socket, when it is a Unix socket."""
        return self.url.removeprefix(UNIX_PREFIX) if self.url.startswith(UNIX_PREFIX) else None

    def __repr__(self) -> str:
        return f"Address({self.url!r}, token=...)"


def find_address(
    url: str | None = None, token: str | None = None, *, env: Mapping[str, str] | None = None
) -> Address:
    """The address from the arguments, else the environment, else the running kernel of AIOS_HOME.

    Raises:
        KernelUnreachable: None of them names a kernel.
    """
    env = os.environ if env is None else env
    url = url or env.get("AIOS_URL") or None
    token = token or env.get("AIOS_TOKEN") or None
    if url is None or token is None:
        url, token = _from_home(url, token, env)
    if not url.startswith((UNIX_PREFIX, *HTTP_PREFIXES)):
        raise KernelUnreachable(
            f"{url!r} is no kernel's address",
            hint="use unix:///path/kernel.sock or http://127.0.0.1:8411",
        )
    return Address(url, token)


def _from_home(url: str | None, token: str | None, env: Mapping[str, str]) -> tuple[str, str]:
    """Fill in what is missing from AIOS_HOME."""
    from aios.configfile import home_root  # noqa: PLC0415 - start-up time: a child program never comes here
    from aios.sdk.discovery import find_kernel, read_token  # noqa: PLC0415 - the same

    home = home_root(env)
    if url is None:
        found = find_kernel(home)
        if found is None or not found.urls:
            raise KernelUnreachable(f"no kernel is running for {home}", hint=HINT)
        url = found.urls[0]
    return url, token or read_token(home)
