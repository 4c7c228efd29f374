"""Who asks, for what, and what is decided: the values of the access manager that others read, too."""

from enum import Enum

from msgspec import Struct


class Principal(Struct, frozen=True):
    """Who asks: a process as policies see it."""

    name: str
    owner: str
    kind: str
    """`init`, `program`, `task` or `guest`."""
    program: str = ""
    """The folder of its program, or empty."""
    granted: tuple[str, ...] = ()
    """Rights that the owner granted to its program: `ACTION` or `ACTION TYPE::ID`."""


class Verdict(Enum):
    """What is decided. The order of strictness is `ALLOW`, `ASK`, `DENY`."""

    ALLOW = "allow"
    ASK = "ask"  # a human decides
    DENY = "deny"


class Resource(Struct, frozen=True):
    """On what: `type` is one of Kernel, Process, Path, Tool; `id` its name or canonical path."""

    type: str = "Kernel"
    id: str = "aios"


class Request(Struct, frozen=True):
    """One question to the policies. `digest` binds an answer to the exact arguments; no policy sees it."""

    action: str
    """A right (`file.read`), or `tool.run`."""
    resource: Resource = Resource()
    effect: str = "pure"
    """What it does to the world: pure, reversible, compensable or irreversible."""
    is_tainted: bool = False
    """Something that it hands over came from outside."""
    is_own: bool = False
    """The resource is the principal's own, or belongs to one of its descendants."""
    is_installed: bool = False
    """The tool is the kernel's own, or its owner installed it; no other agent carries it out."""
    digest: str = ""


class Decision(Struct, frozen=True):
    """What the policies say to a request, and why.

    `policies` are the names of those that decided, `FILE.ID`; none: no policy permits it, and what none permits is denied.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()

    @property
    def is_allowed(self) -> bool:
        """Nobody need be asked."""
        return self.verdict is Verdict.ALLOW
