"""An endpoint that speaks vLLM's dialect, with the scripted engine for a model.

It has what the remote engine uses of vLLM and our own server has not: `/tokenize`, `/version`, usage with every chunk, and
going on from an assistant's message that is already begun.
"""

import json
from collections.abc import AsyncIterator, Mapping

import msgspec
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aios.abi.types import Role, TokenLogprob
from aios.engine.base import ChatPrompt, Delta, Job, TextPrompt
from aios.engine.scripted import ScriptedEngine
from aios.errors import AiosError, ContextWindowExceeded
from aios.server.openai_requests import chat_of, complete_of, decode, sampling_of
from aios.server.openai_types import ChatCompletionRequest, CompletionRequest


class FakeVllm:
    """The endpoint; `engine` must hand out one token a read."""

    def __init__(self, engine: ScriptedEngine, *, version: str = "0.11.2") -> None:
        self.engine = engine
        self.version = version
        self.bodies: list[dict[str, object]] = []

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/version", self.tell_version),
                Route("/tokenize", self.tokenize, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.complete, methods=["POST"]),
                Route("/v1/embeddings", self.embed, methods=["POST"]),
            ],
            exception_handlers={AiosError: _refuse},
        )

    async def tell_version(self, _: Request) -> Response:
        return JSONResponse({"version": self.version})

    async def models(self, _: Request) -> Response:
        told = self.engine.capabilities
        card = {
            "id": told.model,
            "object": "model",
            "owned_by": "vllm",
            "max_model_len": told.window_tokens,
        }
        return JSONResponse({"object": "list", "data": [card]})

    async def tokenize(self, request: Request) -> Response:
        body = await request.json()
        if "messages" in body:
            call = chat_of(msgspec.convert(body, ChatCompletionRequest))
            n_tokens = await self.engine.count_tokens(ChatPrompt(call.messages, call.tools))
            return JSONResponse({"count": n_tokens, "tokens": [0] * n_tokens})
        tokens = await self.engine.tokenize(body["prompt"])
        return JSONResponse({"count": len(tokens), "tokens": tokens})

    async def embed(self, request: Request) -> Response:
        body = await request.json()
        vectors, usage = await self.engine.embed(tuple(body["input"]))
        rows = [
            {"index": i, "embedding": [2 * value for value in vectors[i]]}
            for i in reversed(range(len(vectors)))
        ]
        return JSONResponse({"data": rows, "usage": {"prompt_tokens": usage.prompt_tokens}})

    async def chat(self, request: Request) -> Response:
        body = decode(await request.body(), ChatCompletionRequest)
        raw = await self._remember(request)
        call = chat_of(body)
        messages, said = call.messages, ""
        if raw.get("continue_final_message"):
            assert raw.get("add_generation_prompt") is False
            assert messages[-1].role is Role.ASSISTANT
            messages, said = messages[:-1], messages[-1].text()
        prompt = ChatPrompt(messages, call.tools, call.tool_choice)
        top = call.top_logprobs if call.logprobs else None
        job = Job(prompt, sampling_of(body), call.max_tokens, call.stop, call.constraint, top)
        return await self._stream(job, said, is_chat=True)

    async def complete(self, request: Request) -> Response:
        body = decode(await request.body(), CompletionRequest)
        await self._remember(request)
        call = complete_of(body)
        top = call.top_logprobs if call.logprobs else None
        job = Job(
            TextPrompt(call.prompt),
            sampling_of(body),
            call.max_tokens,
            call.stop,
            call.constraint,
            top,
        )
        return await self._stream(job, "", is_chat=False)

    async def _remember(self, request: Request) -> dict[str, object]:
        self.bodies.append(await request.json())
        return self.bodies[-1]

    async def _stream(self, job: Job, said: str, *, is_chat: bool) -> Response:
        n_said = len(await self.engine.tokenize(said)) if said else 0
        if job.max_tokens is not None:
            job = replace(job, max_tokens=job.max_tokens + n_said)
        sequence = await self.engine.open(job)
        n_prompt = await self._count(job)

        async def events() -> AsyncIterator[str]:
            n_tokens, skip = 0, said
            try:
                while True:
                    delta = await sequence.read()
                    n_tokens += delta.n_tokens
                    text = delta.text.removeprefix(skip) if len(delta.text) >= len(skip) else ""
                    skip = skip[len(delta.text) :]
                    usage = {
                        "prompt_tokens": n_prompt + n_said,
                        "completion_tokens": max(0, n_tokens - n_said),
                        "prompt_tokens_details": None,
                    }
                    yield _event(_choice(delta, text, is_chat=is_chat), usage)
                    if delta.finish is not None:
                        yield "data: [DONE]\r\n\r\n"
                        return
            finally:
                await sequence.close()

        return StreamingResponse(events(), media_type="text/event-stream")

    async def _count(self, job: Job) -> int:
        if isinstance(job.prompt, ChatPrompt):
            return await self.engine.count_tokens(job.prompt)
        return len(await self.engine.tokenize(job.prompt.text))


def _choice(delta: Delta, text: str, *, is_chat: bool) -> dict[str, object]:
    choice: dict[str, object] = {
        "index": 0,
        "finish_reason": delta.finish.value if delta.finish else None,
    }
    if not is_chat:
        return {**choice, "text": text}
    shown: dict[str, object] = {"content": text}
    if delta.tool_calls:
        shown["tool_calls"] = [
            {
                "index": i,
                "id": call.id,
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for i, call in enumerate(delta.tool_calls)
        ]
    rows = [_row(row) for row in delta.logprobs]
    return {**choice, "delta": shown, "logprobs": {"content": rows} if rows else None}


def _row(row: TokenLogprob) -> dict[str, object]:
    top = [{"token": t.token, "logprob": t.logprob, "bytes": list(t.token_bytes)} for t in row.top]
    return {
        "token": row.token,
        "logprob": row.logprob,
        "bytes": list(row.token_bytes),
        "top_logprobs": top,
    }


def _event(choice: dict[str, object], usage: Mapping[str, object]) -> str:
    return f"data: {json.dumps({'choices': [choice], 'usage': usage})}\r\n\r\n"


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, AiosError)
    message = error.message
    if isinstance(
        error, ContextWindowExceeded
    ):  # in vLLM's words, for that is all there is to know it by
        message = f"This model's maximum context length is exceeded: {message}"
    shown = {"message": message, "type": "BadRequestError", "code": error.http_status}
    return JSONResponse({"error": shown}, error.http_status)
