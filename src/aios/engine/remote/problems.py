"""From what an endpoint said, or did not say, to an error that tells the user what to do. Pure.

Nothing that may hold the key leaves this file without `Site.scrub`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from aios.engine.remote.governor import retry_after_s
from aios.errors import (
    AiosError,
    ContextWindowExceeded,
    EngineFailed,
    EngineRefused,
    EngineUnavailable,
    InvalidCall,
    RateLimited,
    TooLarge,
    Unsupported,
    error_classes,
)

MAX_MESSAGE_CHARS = 300
MAX_NAMES = 20
MIN_SECRET_CHARS = 4

CONNECT, TLS, DROPPED, SILENT = "connect", "tls", "dropped", "silent"
"""Codes of problems without an answer, whose status is 0."""

_STATUSES = frozenset(str(status) for status in range(400, 600))
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_SECRETS = re.compile(
    r"\b(?:sk|pk|rk|key|hf|gsk|xai)[-_][A-Za-z0-9_\-*.]{6,}|Bearer\s+[^\s`\"';,]+", re.IGNORECASE
)
_TITLE = re.compile(r"<title[^>]{0,99}>(.{0,300}?)</title>", re.IGNORECASE | re.DOTALL)
_WINDOW = re.compile(
    r"context[ _](?:length|window|size)|maximum context|max_model_len|exceed_context|too many tokens"
    r"|(?:prompt|input) is too long|too large to process|reduce the length",
    re.IGNORECASE,
)


_OVERLOADED = (EngineUnavailable, "the endpoint is down or overloaded; try again later")
_LATE = frozenset({408, 504, 524})
_TOO_SLOW = (EngineFailed, "ask for less, or look into why the endpoint takes so long")
_NONSENSE = (EngineFailed, "is `engine.base_url` an OpenAI-compatible endpoint?")
_BY_STATUS: dict[int, tuple[type[AiosError], str]] = {
    **dict.fromkeys(_LATE, _TOO_SLOW),
    413: (TooLarge, "send less"),
    425: _OVERLOADED,
    429: (RateLimited, "ask less often, or lower `engine.n_slots`"),
    500: (EngineFailed, "look into the log of the endpoint"),
}
_BY_HUNDRED: dict[int, tuple[type[AiosError], str]] = {
    3: (EngineRefused, "redirects are not followed; set `engine.base_url` to the address itself"),
    4: (InvalidCall, "the endpoint does not take this request as it is"),
    5: _OVERLOADED,
}


class Problem(Struct, frozen=True):
    """Why a request brought nothing. `status` 0: there was no answer; `code` then says how that came."""

    status: int
    message: str
    code: str = ""
    param: str = ""
    retry_after_s: float | None = None

    @property
    def is_transient(self) -> bool:
        """Whether the same request may fare better in a moment."""
        if self.status == 0:
            return self.code in {CONNECT, DROPPED}
        return self.status in _TRANSIENT and not (self.is_out_of_quota or self.is_about_window)

    @property
    def is_late(self) -> bool:
        """Whether it was not answered in time, which others may be."""
        return self.code == SILENT if self.status == 0 else self.status in _LATE

    @property
    def is_out_of_quota(self) -> bool:
        """Whether the account has nothing left, which waiting does not mend."""
        return self.status == 429 and self.code in {
            "insufficient_quota",
            "billing_hard_limit_reached",
        }

    @property
    def is_about_window(self) -> bool:
        """Whether the prompt was too long for the model; llama-server says so of an embedding with a status of 500."""
        return self.status in {400, 413, 422, 500} and bool(
            _WINDOW.search(f"{self.code} {self.message}")
        )


@dataclass
class Site:
    """Where an engine's requests go, as its messages name it.

    `models` is filled in once the endpoint has told them.
    """

    host: str
    key_env: str
    api_key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] = ()

    def scrub(self, text: str) -> str:
        """A text without the key or anything that looks like one, on one line, cut to a sensible length."""
        if self.api_key and len(self.api_key) >= MIN_SECRET_CHARS:
            text = text.replace(self.api_key, "***")
        text = " ".join(_SECRETS.sub("***", text).split())
        return text if len(text) <= MAX_MESSAGE_CHARS else text[: MAX_MESSAGE_CHARS - 3] + "..."


def read_problem(status: int, headers: Mapping[str, str], body: bytes) -> Problem:
    """What an answer that is no success says, whatever shape it has."""
    message, code, param = _said(body, headers.get("content-type", ""))
    return Problem(status, message, code, param, retry_after_s(headers))


def problem_in_stream(error: object) -> Problem:
    """What an `error` object inside a stream says, which came after a status of 200."""
    message, code, param = _of_object({"error": error})
    ours = error_classes().get(code)
    status = ours.http_status if ours else int(code) if code in _STATUSES else 500
    return Problem(status, message, code, param)


def error_of(problem: Problem, site: Site) -> AiosError:
    """The error to raise for a problem. `EngineUnavailable` only if others would fare no better: it is then down for all."""
    said = site.scrub(problem.message)
    if problem.status == 0:
        return _unanswered(problem, site, said)
    at = f"{site.host} answered {problem.status}"
    told = f"{at}: {said}" if said else at
    if problem.is_about_window:
        return ContextWindowExceeded(told, hint="send less, or choose a model with a larger window")
    if problem.code == Unsupported.code:
        return Unsupported(told, hint="see the engine's capabilities")
    if problem.is_out_of_quota:
        return EngineRefused(told, hint=f"the account behind {site.key_env} has no quota left")
    if problem.status in {401, 403}:
        return EngineRefused(told, hint=_key_hint(site))
    if problem.status == 404:
        return EngineRefused(told, hint=_models_hint(site))
    cls, hint = _BY_STATUS.get(problem.status) or _BY_HUNDRED.get(problem.status // 100, _NONSENSE)
    return cls(told, hint=hint, retry_after_s=problem.retry_after_s)


def _unanswered(problem: Problem, site: Site, said: str) -> AiosError:
    if problem.code == CONNECT:
        return EngineUnavailable(
            f"{site.host} cannot be reached: {said}",
            hint="is it running? `engine.base_url` says where it is looked for",
        )
    if problem.code == TLS:
        return EngineUnavailable(
            f"no secure connection to {site.host}: {said}",
            hint="check the certificate, or SSL_CERT_FILE for your own",
        )
    if problem.is_late:
        return EngineFailed(
            f"{site.host}: {said}", hint="raise `engine.timeout_s` if it is only slow"
        )
    return EngineUnavailable(
        f"{site.host} broke the connection off: {said}", hint="look into the log of the endpoint"
    )


def _key_hint(site: Site) -> str:
    if site.api_key:
        return f"put a valid key into the environment variable {site.key_env} (`engine.api_key_env` names it)"
    return f"no key was sent: put one into the environment variable {site.key_env} (`engine.api_key_env` names it)"


def _models_hint(site: Site) -> str:
    if site.models:
        return f"it serves {listed(site.models)}"
    return "check `engine.model`, and `engine.base_url`, which mostly ends in /v1"


def listed(names: tuple[str, ...]) -> str:
    """Names for a message, the first of them if they are many."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(f"`{name[:100]}`" for name in names[:MAX_NAMES]) + more


def _said(body: bytes, content_type: str) -> tuple[str, str, str]:
    text = body.decode("utf-8", "replace").strip()
    try:
        return _of_object(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    if "html" in content_type or text[:1] == "<":
        title = _TITLE.search(text)
        return f"an HTML page{f' titled {title.group(1).strip()!r}' if title else ''}", "", ""
    return text, "", ""


def _of_object(said: object) -> tuple[str, str, str]:
    """Message, code and parameter from the shapes of OpenAI, FastAPI, vLLM, Ollama and llama-server."""
    if not isinstance(said, dict):
        return str(said), "", ""
    inner = said.get("error", said)
    if not isinstance(inner, dict):
        return str(inner), "", ""
    message = inner.get("message") or inner.get("detail") or inner.get("error") or inner
    if isinstance(message, list):
        message = "; ".join(_validation_line(item) for item in message)
    code = inner.get("type") if inner.get("code") is None else inner["code"]
    return str(message), "" if code is None else str(code), str(inner.get("param") or "")


def _validation_line(item: object) -> str:
    if isinstance(item, dict) and isinstance(item.get("loc"), list):
        return f"{'.'.join(map(str, item['loc']))}: {item.get('msg', '')}"
    return str(item)
