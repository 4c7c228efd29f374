"""The call that starts a program. What it does is `kernel/programs.py`."""

from typing import Annotated

from msgspec import Meta

from aios.abi.budget import Limits
from aios.abi.call import Answer, Call
from aios.abi.recovery import Restart
from aios.abi.types import BlockBytes, Name, Pid, ShortText


class Spawned(Answer, frozen=True):
    """A new process."""

    pid: Pid
    name: str


class Spawn(Call[Spawned], frozen=True):
    """Start a program folder (with `agent.toml`) as a child process.

    `program` is the folder's path, `cwd` the working directory of the child (both absolute or relative to the
    kernel's), `env` is added to the scrubbed environment. `budget` bounds what the child and all that it starts may spend, `restart`
    says whether it is started again; without them the manifest's hold. `block_bytes` is the size of its memory
    block for interactions; without it the manifest's or the configuration's holds. `nice` 0 says nothing: the manifest's holds. A
    child is never less nice than its parent, and its block never larger than its parent's, unless the owner starts it. The child
    sees the program's folder and may change its working directory; `read` and `write` name more of the host, within what the
    caller has itself; without both a program's child sees what the program sees.
    """

    program: Annotated[str, Meta(min_length=1, max_length=4096)]
    args: Annotated[tuple[Annotated[str, Meta(max_length=131072)], ...], Meta(max_length=1024)] = ()
    name: Name | None = None
    nice: Annotated[int, Meta(ge=-20, le=19)] = 0
    budget: Limits | None = None
    restart: Restart | None = None
    block_bytes: BlockBytes | None = None
    cwd: ShortText = ""
    read: Annotated[tuple[ShortText, ...], Meta(max_length=64)] | None = None
    write: Annotated[tuple[ShortText, ...], Meta(max_length=64)] | None = None
    env: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=256)], ShortText], Meta(max_length=256)
    ] = {}  # noqa: RUF012 - msgspec copies it
