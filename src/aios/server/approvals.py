"""Approvals over HTTP, for people with curl and for pages: the calls `approval_list`, `approval_answer` and `approval_revoke`. The owner's token is needed."""

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aios.abi.approvals import ApprovalAnswer, ApprovalList, ApprovalRevoke
from aios.abi.call import Call
from aios.abi.every import AnyAnswer
from aios.abi.wire import frame_to_json
from aios.config import ServerConfig
from aios.errors import InvalidCall, NotFound
from aios.readers import from_json
from aios.server.faults import JSON_TYPE
from aios.server.limits import read_json
from aios.server.stream import make_call

PATH = "/aios/approvals"


class AnswerBody(Struct, frozen=True, forbid_unknown_fields=True):
    """An answer: `once`, `process`, `always`, `deny`, a choice, or words."""

    answer: str


class ApprovalRoutes:
    """The questions and their answers."""

    def __init__(self, limits: ServerConfig) -> None:
        self._limits = limits

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            Route(PATH, self.list_all, methods=["GET"]),
            Route(f"{PATH}/{{number}}", self.decide, methods=["POST", "DELETE"]),
        ]

    async def list_all(self, request: Request) -> Response:
        """`GET /aios/approvals?all=true`."""
        wanted = request.query_params.get("all", "false")
        if wanted not in ("true", "false"):
            raise InvalidCall("`all` is true or false - at `$.all`", hint=f"{PATH}?all=true")
        return await _made(request, ApprovalList(all=wanted == "true"))

    async def decide(self, request: Request) -> Response:
        """`POST` answers, `DELETE` takes the answer back."""
        if request.method == "DELETE":
            return await self.revoke(request)
        return await self.answer(request)

    async def answer(self, request: Request) -> Response:
        """`POST /aios/approvals/7` with `{"answer": "once"}`."""
        body = await read_json(request, self._limits)
        try:
            said = from_json(body, AnswerBody)
        except msgspec.DecodeError as error:
            raise InvalidCall(str(error), hint='{"answer": "once"}') from error
        return await _made(request, ApprovalAnswer(id=_number(request), answer=said.answer))

    async def revoke(self, request: Request) -> Response:
        """`DELETE /aios/approvals/7`: take the answer back."""
        return await _made(request, ApprovalRevoke(id=_number(request)))


def _number(request: Request) -> int:
    text: str = request.path_params["number"]
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise NotFound(f"no question {text[:40]!r}", hint=f"GET {PATH} lists them")
    return int(text)


async def _made(request: Request, call: Call[AnyAnswer]) -> Response:
    result = await make_call(request, request.state.gate, call)
    return Response(frame_to_json(result), media_type=JSON_TYPE)
