"""Every knob of AIOS, once: its name, unit, default and reason.

`configload.py` reads them from flags, the environment and the file.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aios.accessconfig import AccessConfig as AccessConfig
from aios.accessconfig import ApprovalsConfig as ApprovalsConfig
from aios.home import Home as Home
from aios.mcpconfig import McpConfig as McpConfig

DEFAULT_MODEL = "smollm2-135m"
DEFAULT_ENGINE = "local"
"""The name of the engine that `[engine]` describes."""

PositiveInt = Annotated[int, Meta(ge=1)]
NonNegativeInt = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Names = tuple[Annotated[str, Meta(min_length=1, max_length=512)], ...]
Weight = Annotated[float, Meta(ge=0.001, le=1000)]


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[engine]`: where tokens come from. This engine is called `local`; each table `[engines.NAME]` with the same knobs is one more."""

    kind: Annotated[
        str,
        Meta(
            pattern="^(auto|llama|openai|scripted|none)(?!\\n)$",
            description="auto: openai when base_url is set, else llama; scripted: no model, for tests; none: no engine",
        ),
    ] = "auto"
    model: Annotated[
        str,
        Meta(
            description="a name of `aios models`, a path to a GGUF, or the name that the endpoint uses"
        ),
    ] = ""
    base_url: Annotated[
        str, Meta(description="an OpenAI-compatible endpoint, such as http://localhost:8080/v1")
    ] = ""
    api_key_env: Annotated[
        str,
        Meta(
            description="the environment variable with the endpoint's key; the key itself is never in a file"
        ),
    ] = "OPENAI_API_KEY"
    n_slots: Annotated[
        PositiveInt, Meta(le=256, description="generations at once; two cores are saturated by 8")
    ] = 8
    window_tokens: Annotated[
        NonNegativeInt,
        Meta(
            description="prompt and output of one generation; 0: 4096, or the model's own if smaller"
        ),
    ] = 0
    n_threads: Annotated[
        NonNegativeInt, Meta(description="threads of the embedded engine; 0: one per core")
    ] = 0
    prefill_chunk_tokens: Annotated[
        PositiveInt,
        Meta(
            le=8192,
            description="prompt tokens between two decode steps; fewer hold others up less, 64 prefill 5 % slower",
        ),
    ] = 256
    kv_type: Annotated[
        str,
        Meta(
            pattern="^(f16|q8_0)(?!\\n)$",
            description="numbers of the KV cache; q8_0 halves its memory, and prefill takes a quarter longer",
        ),
    ] = "f16"
    states_bytes: Annotated[
        NonNegativeInt,
        Meta(
            description="memory for whole states of sequences, for models whose KV cache cannot be paged"
        ),
    ] = 256 << 20
    timeout_s: Annotated[
        Positive, Meta(description="longest silence of a remote endpoint before the call fails")
    ] = 120.0
    n_retries: Annotated[
        NonNegativeInt,
        Meta(le=10, description="tries again at a remote endpoint before the first token"),
    ] = 2
    going_on: Annotated[
        str,
        Meta(
            pattern="^(auto|fields|trailing|no)(?!\\n)$",
            description="how a remote endpoint goes on from a begun answer: `continue_final_message`, a trailing assistant message, or not",
        ),
    ] = "auto"
    aliases: Annotated[
        Names,
        Meta(description="further model names that it serves; several engines may share one"),
    ] = ()
    fallback: Annotated[
        Names,
        Meta(description="engines that take its calls while it is down, the first that can"),
    ] = ()
    prompt_price: Annotated[
        float, Meta(ge=0, description="of a million prompt tokens, for budgets of money")
    ] = 0.0
    completion_price: Annotated[
        float, Meta(ge=0, description="of a million completion tokens, in the same currency")
    ] = 0.0
    requests_per_minute: Annotated[
        NonNegativeInt, Meta(description="that begin with its key, shared by owners; 0: no limit")
    ] = 0
    tokens_per_minute: Annotated[
        NonNegativeInt, Meta(description="of prompts and outputs together, the same")
    ] = 0
    priority: Annotated[
        int,
        Meta(
            ge=-100,
            le=100,
            description="of several engines that serve a name, those with more come first; load decides among equals",
        ),
    ] = 0
    start_timeout_s: Annotated[
        Positive,
        Meta(description="longest start; a large model from a slow disk takes minutes"),
    ] = 600.0
    max_restarts: Annotated[
        NonNegativeInt,
        Meta(
            le=1000,
            description="starts in a row that may fail before a broken engine is given up; 20 take about an hour",
        ),
    ] = 20


class KernelConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[kernel]`: limits that keep one process from harming the others."""

    max_processes: Annotated[PositiveInt, Meta(description="processes alive at once")] = 20_000
    max_children: Annotated[PositiveInt, Meta(description="programs alive below one process")] = 256
    max_exited: Annotated[
        NonNegativeInt, Meta(description="ended processes that `ps --all` remembers")
    ] = 1_000
    max_calls_per_process: Annotated[
        PositiveInt, Meta(description="calls of one process in flight")
    ] = 256
    max_queue: Annotated[
        PositiveInt,
        Meta(description="calls that wait for one engine before a process may have only one"),
    ] = 20_000
    max_log_bytes: Annotated[
        PositiveInt, Meta(description="log kept for each process, in memory and on disk")
    ] = 1 << 20
    max_journal_records: Annotated[
        PositiveInt, Meta(description="journal records kept in memory")
    ] = 100_000
    max_mailbox_letters: Annotated[
        PositiveInt, Meta(description="letters that may wait in the mailbox of one process")
    ] = 1_000
    max_mailbox_bytes: Annotated[
        PositiveInt, Meta(description="memory for the letters that wait in one mailbox")
    ] = 4 << 20
    max_repeats: Annotated[
        NonNegativeInt,
        Meta(
            description="a process that asks a model or a tool the same so often in a row, and is told the same, is in a loop; 0: never"
        ),
    ] = 100
    on_repeat: Annotated[
        Literal["pause", "fail"],
        Meta(
            description="pause: such a process is stopped until the owner lets it go on; fail: its call fails"
        ),
    ] = "pause"
    max_timers: Annotated[PositiveInt, Meta(description="timers that wait for their time")] = 1_000
    timer_grace_s: Annotated[
        Positive, Meta(description="a timed run that comes later than this was missed")
    ] = 60.0
    max_missed_runs: Annotated[
        PositiveInt,
        Meta(description="missed runs of a timer with `missed = all` that are made; older are not"),
    ] = 100
    stop_grace_s: Annotated[
        Positive, Meta(description="time that calls have to end when the kernel stops")
    ] = 5.0


class SchedulerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[scheduler]`: who gets a turn at an engine next; see docs/concepts/scheduling.md."""

    policy: Annotated[
        str,
        Meta(pattern="^(fifo|rr|priority|mlfq|fair|bvt|edf)(?!\\n)$", description="in which order"),
    ] = "bvt"
    quantum_tokens: Annotated[
        PositiveInt,
        Meta(le=65_536, description="a turn ends after so many if somebody better waits"),
    ] = 32
    nice_step_s: Annotated[
        Positive, Meta(le=3600, description="a nice value of one is worth coming this much later")
    ] = 2.0
    level_step_s: Annotated[
        Positive,
        Meta(
            le=3600,
            description="the same for each of the 8 levels of mlfq; under bvt it says how much of a level a nice value is",
        ),
    ] = 15.0
    warp_tokens: Annotated[
        PositiveInt,
        Meta(
            le=65_536,
            description="bvt serves a call that is a level better as if its owner had been served so many less",
        ),
    ] = 256
    trace_calls: Annotated[
        NonNegativeInt,
        Meta(
            le=50_000,
            description="calls that can be recorded as a trace afterwards, at 300 bytes each; 0: none",
        ),
    ] = 10_000
    no_deadline_s: Annotated[
        Positive, Meta(le=86_400, description="edf takes a later deadline, or none, as so far away")
    ] = 600.0
    weights: Annotated[
        dict[str, Weight],
        Meta(description="shares of owners under fair and bvt, else 1; in the environment as JSON"),
    ] = {}


class ContextConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[context]`: memory for the contexts of agents."""

    ram_bytes: Annotated[
        NonNegativeInt,
        Meta(
            description="memory for KV pages outside the engine's slots, taken as needed; 0: no pages"
        ),
    ] = 1 << 30
    disk_bytes: Annotated[
        NonNegativeInt, Meta(description="disk for pages that memory has no room for; 0: none")
    ] = 4 << 30
    tool_gaps: Annotated[
        bool,
        Meta(
            description="keep, page out and fetch pages by when agents are expected back from their tools"
        ),
    ] = True
    window: Annotated[
        str,
        Meta(
            pattern="^(none|drop-oldest|summarise|page-to-memory)(?!\\n)$",
            description="what leaves a context that no longer fits, where its opener does not say; none: the chat is refused",
        ),
    ] = "none"
    target_share: Annotated[
        float,
        Meta(ge=0.05, le=0.95, description="share of the window that a compaction leaves filled"),
    ] = 0.5
    summary_tokens: Annotated[
        PositiveInt, Meta(description="longest summary of what leaves a window; two paragraphs")
    ] = 200
    max_contexts: Annotated[
        PositiveInt, Meta(description="contexts of one process; forks count")
    ] = 4_096
    max_snapshots: Annotated[
        PositiveInt, Meta(description="named snapshots of contexts of one owner, on disk")
    ] = 1_000
    max_messages: Annotated[PositiveInt, Meta(description="messages in one context")] = 100_000
    max_bytes: Annotated[
        PositiveInt, Meta(description="memory for the messages of one context; forks share it")
    ] = 16 << 20


class MemoryConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[memory]`: notes that agents keep."""

    embedder: Annotated[
        Literal["auto", "wordllama", "engine", "none"],
        Meta(
            description="what compares meanings; auto: wordllama if installed; engine: the `embed` of an engine or endpoint; none: only words"
        ),
    ] = "auto"
    embedder_model: Annotated[
        str,
        Meta(
            description="the model that embeds when the embedder is `engine`; empty: the default engine's"
        ),
    ] = ""
    max_notes: Annotated[
        PositiveInt, Meta(description="notes of one owner; 1 KB of disk each, 32 bytes of memory")
    ] = 1_000_000
    block_bytes: Annotated[
        PositiveInt, Meta(description="memory for the interaction records of one process")
    ] = 1 << 20
    max_interactions: Annotated[
        PositiveInt, Meta(description="interaction records of one agent on disk")
    ] = 1_000_000


class StorageConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[storage]`: the files of agents."""

    quota_bytes: Annotated[
        PositiveInt, Meta(description="disk for an agent, a group or /shared, with all versions")
    ] = 4 << 30
    max_drafts: Annotated[
        PositiveInt, Meta(description="long files that a process may write at once; 1 MiB each")
    ] = 16
    max_indexed_bytes: Annotated[
        PositiveInt,
        Meta(
            le=64 << 20,
            description="of a text so much from its beginning is found by search; a longer PDF or DOCX by its name only",
        ),
    ] = 16 << 20
    index_timeout_s: Annotated[
        Positive, Meta(description="longest time to get the text out of one file, PDF above all")
    ] = 30.0
    max_links: Annotated[
        PositiveInt, Meta(description="links of an agent to its files that have not expired")
    ] = 1_000
    undo_files: Annotated[
        PositiveInt,
        Meta(
            description="files of a workspace up to which what tools do in it can be undone; 20 us each before and after a run"
        ),
    ] = 20_000
    undo_bytes: Annotated[
        PositiveInt,
        Meta(
            description="bytes of a workspace up to which the same; read once, then only what has changed"
        ),
    ] = 128 << 20
    mount_ignore: Annotated[
        Names,
        Meta(
            description="names in mounted folders that agents neither see nor write: what is in .git can run programs"
        ),
    ] = (".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv")
    rescan_s: Annotated[
        Positive,
        Meta(description="time between scans of a mounted folder that the system cannot watch"),
    ] = 30.0


class ToolsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[tools]`: what agents do to the world; see docs/concepts/tools.md."""

    max_waiting: Annotated[
        PositiveInt,
        Meta(description="calls of tools that wait for others to end before the next is refused"),
    ] = 1_000
    max_timeout_s: Annotated[
        Positive, Meta(le=86_400, description="longest run of a tool, whatever it declares itself")
    ] = 3_600.0
    max_result_bytes: Annotated[
        PositiveInt,
        Meta(description="longer results are kept in a file of the caller's; 64 KiB fill a window"),
    ] = 64 << 10
    preview_bytes: Annotated[
        PositiveInt, Meta(description="how much of such a result the caller gets at once")
    ] = 4 << 10
    cache_bytes: Annotated[
        NonNegativeInt, Meta(description="memory for results of pure tools; 0: none is kept")
    ] = 8 << 20
    fetch_hosts: Annotated[
        Names,
        Meta(
            description="hosts that http_fetch may speak to: example.com, *.example.com, host:8080; * is all"
        ),
    ] = ()
    fetch_private_hosts: Annotated[
        Names, Meta(description="of these, hosts that may be on this machine or in its net")
    ] = ()
    max_fetch_bytes: Annotated[
        PositiveInt, Meta(le=8 << 20, description="longest answer that http_fetch reads")
    ] = 4 << 20


class EgressConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[egress]`: the network of programs in sandboxes; see docs/guides/network.md."""

    hosts: Annotated[Names, Meta(description="as a.example, *.a.example, a:8080 or *")] = ()
    private_hosts: Annotated[Names, Meta(description="those of them that may be near")] = ()
    max_connections: Annotated[PositiveInt, Meta(description="at once, of one program")] = 32
    max_bytes: Annotated[PositiveInt, Meta(description="on one connection, both ways")] = 256 << 20
    timeout_s: Annotated[Positive, Meta(description="longest life of a connection")] = 600.0


class JournalConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[journal]`: what a daemon writes down of every call; see docs/concepts/journal.md."""

    is_on: Annotated[
        bool, Meta(description="false: keep the last calls in memory only, and restart no agents")
    ] = True
    keep_s: Annotated[
        Positive, Meta(description="how long the calls of processes that have ended are kept")
    ] = 7 * 86_400.0
    max_bytes: Annotated[
        PositiveInt, Meta(description="disk for calls; those of living processes never go")
    ] = 4 << 30


class AuditConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[audit]`: the chained log of what was done; see docs/concepts/audit.md."""

    max_records: Annotated[int, Meta(ge=1_000, description="older ones are let go of")] = 500_000
    """Some 200 bytes each. The chain goes on without the older ones; `aios audit export` keeps them."""


class SandboxConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[sandbox]`: the walls around programs, and how much each may take."""

    mode: Annotated[
        str,
        Meta(
            pattern="^(auto|bubblewrap|landlock|none)(?!\\n)$",
            description="auto: bubblewrap where it works, else landlock, else none, and the kernel says what is missing; a wall by its name: that or no programs",
        ),
    ] = "auto"
    strict: Annotated[
        bool,
        Meta(
            description="start no program unless the walls are whole (bubblewrap, control groups)"
        ),
    ] = False
    memory_bytes: Annotated[
        int,
        Meta(
            ge=64 << 20,
            description="address space of each process, and memory of all together where groups can be made",
        ),
    ] = 4 << 30
    cpu_s: Annotated[
        PositiveInt, Meta(description="processor seconds of each process; agents mostly wait")
    ] = 3600
    n_processes: Annotated[
        PositiveInt,
        Meta(description="processes and threads of one program; a build needs about 100"),
    ] = 256
    file_bytes: Annotated[PositiveInt, Meta(description="the largest file that it may write")] = (
        1 << 30
    )
    tmp_bytes: Annotated[
        PositiveInt, Meta(description="its private /tmp, which lies in memory")
    ] = 256 << 20


class ServerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`: the kernel on a socket."""

    host: Annotated[
        str, Meta(description="address to listen on; anything but loopback needs allow_remote")
    ] = "127.0.0.1"
    port: Annotated[NonNegativeInt, Meta(le=65535, description="TCP port; 0 picks a free one")] = (
        8411
    )
    allow_remote: Annotated[
        bool, Meta(description="permit a host that is not loopback; there is no TLS")
    ] = False
    max_body_bytes: Annotated[PositiveInt, Meta(description="largest request body")] = 16 << 20
    max_header_bytes: Annotated[PositiveInt, Meta(description="largest request head")] = 64 << 10
    header_timeout_s: Annotated[
        Positive, Meta(description="longest time for a client to send its request")
    ] = 15.0
    max_connections: Annotated[PositiveInt, Meta(description="connections at once")] = 1_024
    drain_s: Annotated[Positive, Meta(description="time that calls have to end after SIGTERM")] = (
        10.0
    )


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """All of it."""

    engine: EngineConfig = EngineConfig()
    engines: dict[str, EngineConfig] = {}
    kernel: KernelConfig = KernelConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    context: ContextConfig = ContextConfig()
    memory: MemoryConfig = MemoryConfig()
    storage: StorageConfig = StorageConfig()
    tools: ToolsConfig = ToolsConfig()
    egress: EgressConfig = EgressConfig()
    mcp: McpConfig = McpConfig()
    journal: JournalConfig = JournalConfig()
    audit: AuditConfig = AuditConfig()
    sandbox: SandboxConfig = SandboxConfig()
    access: AccessConfig = AccessConfig()
    approvals: ApprovalsConfig = ApprovalsConfig()
    server: ServerConfig = ServerConfig()
    home: Annotated[str, Meta(description="state of AIOS: models, sockets, tokens; AIOS_HOME")] = ""

    def all_engines(self) -> dict[str, EngineConfig]:
        """Every engine by its name: `local` first, the others in the order of the file."""
        return {DEFAULT_ENGINE: self.engine, **self.engines}
