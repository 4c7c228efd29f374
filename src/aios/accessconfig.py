"""`[access]` and `[approvals]`: what agents may do, and how humans are asked about the rest."""

from typing import Annotated, Literal

from msgspec import Meta, Struct


class AccessConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[access]`: what agents may do; see docs/concepts/access.md."""

    profile: Annotated[
        Literal["read-only", "workspace", "full"],
        Meta(
            description="shipped policies: read-only changes nothing; workspace asks before irreversible tools; full asks only when tainted"
        ),
    ] = "workspace"


class ApprovalsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[approvals]`: how a human is asked; see docs/guides/approvals.md."""

    timeout_s: Annotated[
        float,
        Meta(
            ge=0,
            le=31_536_000,
            description="a question that nobody answered for so long is a no; 0: what would be asked is denied at once",
        ),
    ] = 3600.0
    max_open: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000,
            description="open questions of one process; more would only be clicked away",
        ),
    ] = 8
    max_open_in_all: Annotated[int, Meta(ge=1, le=10_000, description="of all processes")] = 256
    webhook_url: Annotated[
        str,
        Meta(
            pattern=r"^(https?://\S+)?(?!\n)$",
            max_length=2048,
            description="told of each question and what became of it, without arguments; see docs/guides/approvals.md",
        ),
    ] = ""
    webhook_secret_env: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*(?!\n)$",
            max_length=256,
            description="the environment variable with the key that signs what is told; the key itself is never in a file",
        ),
    ] = "APPROVALS_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
    max_kept: Annotated[
        int,
        Meta(ge=100, description="questions that are over, kept to be looked at; the oldest go"),
    ] = 1_000
