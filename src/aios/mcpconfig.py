"""`[mcp]`: the servers of the Model Context Protocol whose tools agents may use."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Text = Annotated[str, Meta(max_length=4096)]
Words = tuple[Text, ...]
ServerName = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(?!\n)$")
]
VariableName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(?!\n)$", max_length=256)]
McpToolName = Annotated[str, Meta(min_length=1, max_length=128)]
EffectName = Literal["pure", "reversible", "compensable", "irreversible"]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class McpToolTraits(Struct, frozen=True, forbid_unknown_fields=True):
    """`[mcp.servers.NAME.tools.TOOL]`: what the owner says that a tool does, whatever the server says of it."""

    effect: EffectName | None = None
    is_pure: bool = False
    """Its result depends on its arguments alone, so it may be kept and given again."""
    undo: McpToolName | None = None
    """The server's tool that undoes it, with the same arguments; it does no harm where nothing had happened, and stands being run twice."""
    is_idempotent: bool | None = None
    """A second call with the same arguments does nothing more, so one that was cut off is made again."""
    key: McpToolName | None = None
    """The parameter that the kernel fills in with a text that no other call has, such as an idempotency key."""

    def __post_init__(self) -> None:
        if self.undo is not None and self.effect not in {"reversible", "compensable"}:
            raise ValueError('`undo` needs `effect = "reversible"` or `"compensable"`')
        if self.is_pure and self.effect != "pure":
            raise ValueError('`is_pure` needs `effect = "pure"`')


class McpServer(Struct, frozen=True, forbid_unknown_fields=True):
    """`[mcp.servers.NAME]`: one server, or what a server of that name in one of the files may do besides.

    No secret stands in it: `env` names variables of the kernel's environment that the server is given, and `headers` says which
    variable each header's value is in.
    """

    command: Text = ""
    """The program of a server over stdio, looked up in the kernel's `PATH`."""
    args: Words = ()
    url: Text = ""
    """The endpoint of a server over Streamable HTTP."""
    env: tuple[VariableName, ...] = ()
    headers: dict[Text, VariableName] = {}
    read: Words = ()
    """Files and folders that it reads, beside the system and what its command names."""
    write: Words = ()
    """The same, to change."""
    is_shared: bool = True
    """One server for all agents; false: one for each process that uses it, ended with it."""
    timeout_s: Seconds = 60.0
    """Longest call of one of its tools."""
    max_parallel: Annotated[int, Meta(ge=1, le=1000)] = 16
    """Calls of one of its tools at once."""
    believes_hints: bool = True
    """Take its word for what its tools do; false: every call of which nothing else is said here counts as irreversible."""
    effect: EffectName | None = None
    """What every tool of it does, whatever it says itself: pure, reversible, compensable or irreversible."""
    tools: dict[McpToolName, McpToolTraits] = {}
    """The same of single tools, which comes before that of all."""
    is_on: bool = True

    def __post_init__(self) -> None:
        for name in self.tools:
            circle = [name]
            while (told := self.tools.get(circle[-1])) is not None and told.undo is not None:
                circle.append(told.undo)
                if told.undo in circle[:-1]:
                    raise ValueError(f"`undo` leads in a circle: {' -> '.join(circle)}")


class McpConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[mcp]`: servers of the Model Context Protocol; see docs/guides/mcp.md."""

    files: Annotated[
        Words, Meta(description="files such as ~/project/.mcp.json, read when the kernel starts")
    ] = ()
    servers: Annotated[
        dict[ServerName, McpServer],
        Meta(description="servers by name, tables [mcp.servers.NAME]; in the environment as JSON"),
    ] = {}
    start_timeout_s: Annotated[
        Seconds,
        Meta(description="longest start of a server; one that is fetched first takes a minute"),
    ] = 60.0
    idle_s: Annotated[
        Seconds, Meta(description="a server that nobody called for so long is ended")
    ] = 600.0
    max_message_bytes: Annotated[
        int,
        Meta(ge=1024, le=64 << 20, description="longest message of a server; a longer one ends it"),
    ] = 8 << 20
    max_restart_s: Annotated[
        Seconds,
        Meta(
            description="longest pause before a server that keeps failing is started again; the first is 1 s"
        ),
    ] = 60.0
