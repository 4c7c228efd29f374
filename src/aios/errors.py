"""The whole error tree of AIOS on one screen.

Three kinds never mix: the caller's mistake (`CallerError`), the world's fault (`WorldError`) and our own bug
(`KernelBug`). Each class has a `code` for the wire, which is never renamed, and an HTTP status. The message says what
happened and why; the `hint` says how to mend it. Cancellation is not an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class AiosError(Exception):
    """Base of every error that AIOS raises on purpose.

    Args:
        message: What went wrong and why, with the numbers.
        hint: How to mend it; may be empty.
        retry_after_s: When it may work again, if that is known.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s


class CallerError(AiosError):
    """The caller asked for something that cannot be; the same call fails again."""

    code, http_status = "caller_error", 400


class InvalidCall(CallerError):
    """A call or one of its arguments is malformed or out of range."""

    code, http_status = "invalid_call", 400


class Unauthenticated(CallerError):
    """No token, or one that no process has."""

    code, http_status = "unauthenticated", 401


class AccessDenied(CallerError):
    """The process has no right to do this."""

    code, http_status = "access_denied", 403


class ApprovalDenied(AccessDenied):
    """A human was asked whether this may be, and said no."""

    code, http_status = "approval_denied", 403


class ApprovalExpired(AccessDenied):
    """A human was asked whether this may be, and nobody answered in time."""

    code, http_status = "approval_expired", 403


class NotFound(CallerError):
    """No process, program, model or route has that name."""

    code, http_status = "not_found", 404


class Conflict(CallerError):
    """It is there already, or is in a state in which this cannot be done."""

    code, http_status = "conflict", 409


class ProcessGone(Conflict):
    """The calling process has exited or was killed; nothing it asks is done any more."""

    code, http_status = "process_gone", 409


class ReplayDivergence(CallerError):
    """A program that runs again asked for something else than before; both calls are in the message."""

    code, http_status = "replay_divergence", 409


class NoProgress(CallerError):
    """The process asks the same again and again and is told the same; see `kernel.max_repeats`."""

    code, http_status = "no_progress", 409


class TooLarge(CallerError):
    """A message, body or argument is over a limit."""

    code, http_status = "too_large", 413


class ContextWindowExceeded(CallerError):
    """The prompt does not fit into the window of the model."""

    code, http_status = "context_window_exceeded", 400


class Unsupported(CallerError):
    """The engine or this build cannot do that; see its capabilities."""

    code, http_status = "unsupported", 400


class SnapshotIncompatible(CallerError):
    """Another model, quantisation or KV type wrote it, or another version of AIOS; or it is damaged."""

    code, http_status = "snapshot_incompatible", 409


class BudgetExceeded(CallerError):
    """The call could spend more than is left of a budget."""

    code, http_status = "budget_exceeded", 402


class ConfigError(CallerError):
    """A knob has a value that cannot be used."""

    code, http_status = "config_error", 400


class WorldError(AiosError):
    """Something outside the kernel failed; the same call may work later."""

    code, http_status = "world_error", 502


class EngineUnavailable(WorldError):
    """The engine is not loaded, is unreachable or refuses to serve."""

    code, http_status = "engine_unavailable", 503


class EngineFailed(WorldError):
    """The engine broke off in the middle of a generation or answered nonsense."""

    code, http_status = "engine_failed", 502


class EngineRefused(WorldError):
    """A remote endpoint refused the request: wrong key, unknown model, bad argument."""

    code, http_status = "engine_refused", 502


class RateLimited(WorldError):
    """A remote endpoint says that we ask too often."""

    code, http_status = "rate_limited", 429


class ModelMissing(WorldError):
    """A model file is absent, truncated or not what its checksum says."""

    code, http_status = "model_missing", 503


class ProgramFailed(WorldError):
    """A program could not be started."""

    code, http_status = "program_failed", 502


class ToolFailed(WorldError):
    """A tool raised, hung or answered nonsense."""

    code, http_status = "tool_failed", 502


class ResourceExhausted(WorldError):
    """A bounded queue or table is full; try again later."""

    code, http_status = "resource_exhausted", 429


class DiskFailed(WorldError):
    """The disk or the database on it is damaged, cannot be written to, or is held by another program."""

    code, http_status = "disk_failed", 503


class OutcomeUnknown(WorldError):
    """The kernel ended in the middle of this call; it may have happened, and is not done again by itself."""

    code, http_status = "outcome_unknown", 503


class DeadlineExceeded(WorldError):
    """The call's own deadline passed before it was done."""

    code, http_status = "deadline_exceeded", 504


class KernelStopping(WorldError):
    """The kernel is shutting down and takes no new calls."""

    code, http_status = "kernel_stopping", 503


class KernelUnreachable(WorldError):
    """No kernel listens at that address, or the connection to it broke."""

    code, http_status = "kernel_unreachable", 503


class KernelBug(AiosError):
    """An error of ours: an invariant broke or a handler raised what it should not."""

    code, http_status = "kernel_bug", 500


@contextmanager
def edge(what: str, *passing: type[Exception]) -> Iterator[None]:
    """The block is an edge of the kernel: a bug of ours within it becomes an error, which ends what it befell and not the kernel.

    Args:
        what: For the message: a call, a connection.
        passing: What passes besides `AiosError`, for who is outside knows it.

    Raises:
        KernelBug: There was one.
    """
    try:
        yield
    except AiosError:
        raise
    except Exception as error:
        if isinstance(error, passing):
            raise
        raise KernelBug(
            f"{what} failed inside the kernel: {type(error).__name__}: {error}",
            hint="please report it",
        ) from error


def error_classes() -> dict[str, type[AiosError]]:
    """Every error class by its wire code."""
    found: dict[str, type[AiosError]] = {}
    pending: list[type[AiosError]] = [AiosError]
    while pending:
        cls = pending.pop()
        found[cls.code] = cls
        pending.extend(cls.__subclasses__())
    return found
