"""The route of OpenAI's Responses API. A response is a chat in another dress: nothing of it is stored."""

import secrets

from msgspec import Struct
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from aios.config import ServerConfig
from aios.kernel.kernel import Kernel
from aios.server.limits import read_json
from aios.server.openai_chat import json_response, model_told
from aios.server.openai_replies import Tag
from aios.server.openai_requests import decode
from aios.server.responses_replies import ResponseEvents, response_of
from aios.server.responses_requests import response_call
from aios.server.responses_types import ResponseRequest
from aios.server.stream import CallStream, make_call


class ResponsesRoutes(Struct, frozen=True):
    """The endpoint; `request.state.gate` is the door of the process that asks."""

    kernel: Kernel
    limits: ServerConfig

    def routes(self) -> list[Route]:
        """For the application."""
        return [Route("/v1/responses", self.create, methods=["POST"])]

    async def create(self, request: Request) -> ASGIApp:
        """`POST /v1/responses`."""
        body = decode(await read_json(request, self.limits), ResponseRequest)
        call = response_call(body)
        created = int(self.kernel.clock.unix_s())
        tag = Tag(f"resp_{secrets.token_hex(12)}", created, model_told(self.kernel, body.model))
        if body.stream:
            return CallStream(request.state.gate, call, ResponseEvents(body, tag))
        result = await make_call(request, request.state.gate, call)
        return json_response(response_of(body, result.value, tag))
