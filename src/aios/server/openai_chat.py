"""The OpenAI routes: chat completions, text completions, embeddings and the list of models."""

import secrets

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from aios.abi.calls import Info
from aios.abi.gate import Gate
from aios.abi.types import EngineInfo
from aios.config import ServerConfig
from aios.errors import NotFound
from aios.kernel.kernel import Kernel
from aios.server.faults import JSON_TYPE
from aios.server.limits import read_json
from aios.server.openai_replies import (
    ChatEvents,
    Tag,
    TextEvents,
    chat_completion,
    embedding_reply,
    model_cards,
    text_completion,
)
from aios.server.openai_requests import chat_of, complete_of, decode, embed_of
from aios.server.openai_types import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
    ModelList,
    SamplingFields,
)
from aios.server.stream import CallStream, make_call

DEFAULT_MODEL = "default"


class OpenAIRoutes(Struct, frozen=True):
    """The endpoints; `request.state.gate` is the door of the process that asks."""

    kernel: Kernel
    limits: ServerConfig

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{name:path}", self.model, methods=["GET"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
        ]

    async def chat(self, request: Request) -> ASGIApp:
        """`POST /v1/chat/completions`."""
        body = decode(await read_json(request, self.limits), ChatCompletionRequest)
        call = chat_of(body)
        tag = self._tag("chatcmpl", body)
        gate: Gate = request.state.gate
        if body.stream:
            return CallStream(gate, call, ChatEvents(tag, _wants_usage(body)))
        result = await make_call(request, gate, call)
        return json_response(chat_completion(result.value, tag))

    async def complete(self, request: Request) -> ASGIApp:
        """`POST /v1/completions`."""
        body = decode(await read_json(request, self.limits), CompletionRequest)
        call = complete_of(body)
        tag = self._tag("cmpl", body)
        gate: Gate = request.state.gate
        if body.stream:
            return CallStream(gate, call, TextEvents(tag, _wants_usage(body)))
        result = await make_call(request, gate, call)
        return json_response(text_completion(result.value, tag))

    async def embeddings(self, request: Request) -> ASGIApp:
        """`POST /v1/embeddings`."""
        body = decode(await read_json(request, self.limits), EmbeddingRequest)
        result = await make_call(request, request.state.gate, embed_of(body))
        return json_response(embedding_reply(result.value, body.encoding_format))

    async def models(self, request: Request) -> ASGIApp:
        """`GET /v1/models`."""
        engines, created = await _engines(request.state.gate)
        return json_response(ModelList("list", model_cards(engines, created)))

    async def model(self, request: Request) -> ASGIApp:
        """`GET /v1/models/NAME`, by any name that a request may use."""
        name: str = request.path_params["name"]
        engines, created = await _engines(request.state.gate)
        engine = _find(engines, name)
        if engine is None:
            raise NotFound(f"there is no model {name[:100]!r}", hint="GET /v1/models lists them")
        return json_response(model_cards([engine], created)[0])

    def _tag(self, prefix: str, body: SamplingFields) -> Tag:
        """What the parts of a reply carry; a stream must name the model before the answer does."""
        created = int(self.kernel.clock.unix_s())
        return Tag(
            f"{prefix}-{secrets.token_hex(12)}", created, model_told(self.kernel, body.model)
        )


def model_told(kernel: Kernel, model: str | None) -> str:
    """The name of the model that a request will most likely be served by."""
    name = model or DEFAULT_MODEL
    engine = _find(kernel.cores.infos(), name)
    return engine.model if engine else name


def json_response(value: msgspec.Struct) -> Response:
    """A reply with one JSON value."""
    return Response(msgspec.json.encode(value), media_type=JSON_TYPE)


async def _engines(gate: Gate) -> tuple[tuple[EngineInfo, ...], int]:
    info = (await gate.call(Info())).value
    return info.engines, int(info.started_unix_s)


def _wants_usage(body: SamplingFields) -> bool:
    return body.stream_options is not None and bool(body.stream_options.include_usage)


def _find(engines: tuple[EngineInfo, ...], name: str) -> EngineInfo | None:
    if name == DEFAULT_MODEL:
        return engines[0] if engines else None
    named = (engine for engine in engines if name == engine.name)
    models = (engine for engine in engines if name == engine.model or name in engine.aliases)
    return next(named, None) or next(models, None)
