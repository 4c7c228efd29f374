"""What an endpoint is: asked once, when an engine starts."""

import re

import msgspec
from msgspec import Struct

from aios.abi.calls import Info, KernelInfo
from aios.abi.types import JsonObject
from aios.config import EngineConfig
from aios.engine.base import Ability
from aios.engine.remote.chunks import count_of
from aios.engine.remote.dialect import Flavour, GoingOn, flavour_of, usual_abilities
from aios.engine.remote.endpoint import Endpoint
from aios.engine.remote.problems import Problem, error_of, listed
from aios.engine.remote.tokens import call_aios
from aios.errors import AiosError, EngineFailed, EngineRefused, EngineUnavailable
from aios.readers import from_json

MAX_MODELS_BYTES = 8 << 20
MAX_SMALL_BYTES = 1 << 20
_WINDOW_FIELDS = ("max_model_len", "context_length", "context_window", "window_tokens", "n_ctx")
_REGEX_FIELDS = {Flavour.SGLANG: "regex", Flavour.AIOS: "structured_outputs"}
OPEN_TEXT = "One, two, "
"""What an answer begins with that an endpoint is to leave open; some templates would take the last space away."""
STRUCTURED_OUTPUTS_SINCE = (0, 11)
"""vLLM's versions before take `guided_regex`, those from 0.12 on do not; both ignore a field that they do not know."""


class _Model(Struct):
    id: str
    owned_by: str | None = None
    max_model_len: object = None
    context_length: object = None
    context_window: object = None
    window_tokens: object = None
    n_ctx: object = None
    meta: dict[str, object] | None = None


class _Models(Struct):
    data: list[_Model] | None = None


class Survey(Struct, frozen=True):
    """What was found.

    `window_tokens` is 0 if nobody told; `regex_field` is where a regular expression goes, empty if nowhere; `going_on` is how it
    goes on from a text, and `abilities` has `SUSPEND` if it does.
    """

    model: str
    flavour: Flavour
    window_tokens: int
    regex_field: str
    abilities: frozenset[Ability]
    going_on: GoingOn = GoingOn.NO


async def survey(endpoint: Endpoint, config: EngineConfig) -> Survey:
    """Find out whether the endpoint is there, takes the key and serves the model, and what kind of server it is.

    Raises:
        EngineRefused: It does not take the key, does not serve the model, or serves several and none was named.
        EngineUnavailable: It cannot be reached.
        EngineFailed: Its list of models makes no sense.
    """
    models = await _models(endpoint, config)
    endpoint.site.models = tuple(model.id for model in models)
    model = _chosen(models, config, endpoint.site.host)
    flavour = flavour_of(model.owned_by or "")
    window_tokens = _window_of(model)
    regex_field = _REGEX_FIELDS.get(flavour, "")
    if flavour is Flavour.VLLM:
        regex_field = await _vllm_regex_field(endpoint)
    elif flavour is Flavour.LLAMA_SERVER:
        window_tokens = await _llama_server_window(endpoint) or window_tokens
    abilities = usual_abilities(flavour, regex_field)
    if flavour is Flavour.AIOS:
        abilities = await _aios_abilities(endpoint, model.id) or abilities
    if config.window_tokens:
        window_tokens = min(config.window_tokens, window_tokens or config.window_tokens)
    going_on = await _going_on(endpoint, config, flavour)
    if going_on is not GoingOn.NO:
        abilities |= {Ability.SUSPEND}
    return Survey(model.id, flavour, window_tokens, regex_field, abilities, going_on)


async def _models(endpoint: Endpoint, config: EngineConfig) -> list[_Model]:
    """The models that the endpoint lists; only the configured one if it has no list."""
    answer = await endpoint.try_fetch(
        "GET", f"{endpoint.base_url}/models", max_bytes=MAX_MODELS_BYTES
    )
    if isinstance(answer, Problem):
        if (
            answer.status in {404, 405, 501}
            and config.model
            and "html" not in answer.message.lower()
        ):
            return [_Model(config.model)]
        error = error_of(answer, endpoint.site)
        raise EngineUnavailable(error.message, hint=error.hint) if answer.is_late else error
    try:
        return from_json(answer, _Models).data or []
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise EngineFailed(
            f"{endpoint.site.host} answered /models with something else: {error}",
            hint="is `engine.base_url` an OpenAI-compatible endpoint? It mostly ends in /v1",
        ) from error


def _chosen(models: list[_Model], config: EngineConfig, host: str) -> _Model:
    names = tuple(model.id for model in models)
    if not config.model:
        if len(models) == 1:
            return models[0]
        told = f"{host} serves {listed(names)}" if names else f"{host} serves no model"
        raise EngineRefused(told, hint="name one with `engine.model`")
    for model in models:
        if model.id in {config.model, f"{config.model}:latest"}:
            return model
    if not models or any("*" in name for name in names):  # some gateways list nothing, or patterns
        return _Model(config.model)
    raise EngineRefused(
        f"{host} does not serve `{config.model}`", hint=f"it serves {listed(names)}"
    )


def _window_of(model: _Model) -> int:
    """The window that a model list tells, by one of the names that servers have for it."""
    meta = model.meta or {}
    told = [getattr(model, name) for name in _WINDOW_FIELDS] + [
        meta.get(name) for name in _WINDOW_FIELDS
    ]
    return next((_count(value) for value in told if _count(value)), 0)


async def _vllm_regex_field(endpoint: Endpoint) -> str:
    found = await _small_object(endpoint, "/version")
    version = re.match(r"v?(\d{1,9})\.(\d{1,9})", str(found.get("version", "")))
    if version is None:
        return ""
    is_old = (int(version.group(1)), int(version.group(2))) < STRUCTURED_OUTPUTS_SINCE
    return "guided_regex" if is_old else "structured_outputs"


async def _llama_server_window(endpoint: Endpoint) -> int:
    """The window of one slot; the model list tells the one that the model was trained with."""
    found = await _small_object(endpoint, "/props")
    settings = found.get("default_generation_settings")
    return _count(settings.get("n_ctx")) if isinstance(settings, dict) else 0


async def _aios_abilities(endpoint: Endpoint, model: str) -> frozenset[Ability]:
    """What the engine behind another AIOS can do. A sequence over there cannot be suspended from here."""
    try:
        info = await call_aios(endpoint, Info(), KernelInfo)
    except AiosError:
        return frozenset()
    names = {
        name
        for engine in info.engines
        if model in {engine.model, engine.name}
        for name in engine.capabilities
    }
    theirs = frozenset(ability for ability in Ability if ability.value in names)
    return theirs - {Ability.SUSPEND, Ability.SNAPSHOT}


async def _going_on(endpoint: Endpoint, config: EngineConfig, flavour: Flavour) -> GoingOn:
    """How it goes on from a text: as configured, else as such servers are known to."""
    if config.going_on != "auto":
        return GoingOn(config.going_on)
    if flavour is Flavour.VLLM:
        return GoingOn.FIELDS
    if flavour is Flavour.LLAMA_SERVER and await _llama_server_goes_on(endpoint):
        return GoingOn.TRAILING
    return GoingOn.NO


async def _llama_server_goes_on(endpoint: Endpoint) -> bool:
    """Whether it leaves a last message of the assistant's open: a flag of its own and some templates forbid that."""
    body: JsonObject = {
        "messages": [
            {"role": "user", "content": "Count."},
            {"role": "assistant", "content": OPEN_TEXT},
        ]
    }
    found = await _small_object(endpoint, "/apply-template", body)
    return str(found.get("prompt", "")).endswith(OPEN_TEXT)


async def _small_object(
    endpoint: Endpoint, route: str, body: JsonObject | None = None
) -> dict[str, object]:
    """A JSON object that is nice to have, asked for by GET or with a body; empty if it is not there."""
    answer = await endpoint.try_fetch(
        "GET" if body is None else "POST",
        endpoint.root_url + route,
        max_bytes=MAX_SMALL_BYTES,
        body=None if body is None else lambda: body,
    )
    if isinstance(answer, Problem):
        return {}
    try:
        found = msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _count(value: object) -> int:
    return count_of(value) if isinstance(value, int) and not isinstance(value, bool) else 0
