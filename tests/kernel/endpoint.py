"""An endpoint outside of the kernel that plans one tool call a step, and remembers what it was asked: what a kill made an agent ask again."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STEP = re.compile(r"step (\d+) of (\w+)")
MODEL = "planner"
THINKING_S = 0.03
"""So that kills come in the middle of answers, too."""


class Planner(ThreadingHTTPServer):
    """Speaks as much of OpenAI's API as the remote engine needs. `asked` are the agent, step and half step of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.asked: list[tuple[str, int, int]] = []

    @property
    def url(self) -> str:
        """What goes into `engine.base_url`."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """A kernel that was killed in the middle of an answer is no news."""


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Planner  # type: ignore[mutable-override]  # the base class knows only that it is one

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._send(json.dumps({"data": [{"id": MODEL, "max_model_len": 8192}]}).encode())
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.path.endswith("/chat/completions"):
            self.send_error(404)
            return
        messages = json.loads(body)["messages"]
        found = list(STEP.finditer(" ".join(str(each["content"]) for each in messages)))[-1]
        step, me = int(found[1]), found[2]
        is_second = messages[-1]["role"] == "tool"
        self.server.asked.append((me, step, int(is_second)))
        time.sleep(THINKING_S)  # noqa: TID251 - a model that takes its time
        delta: dict[str, object] = {"content": f"step {step} is done"}
        if not is_second:
            arguments = json.dumps({"line": f"{me} {step}"})
            function = {"name": "post", "arguments": arguments}
            delta = {"tool_calls": [{"index": 0, "id": f"call-{step}", "function": function}]}
        choice = {
            "index": 0,
            "delta": delta,
            "finish_reason": "stop" if is_second else "tool_calls",
        }
        usage = {"prompt_tokens": 10, "completion_tokens": 4}
        event = json.dumps({"choices": [choice], "usage": usage})
        self._send(f"data: {event}\n\ndata: [DONE]\n\n".encode(), "text/event-stream")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _send(self, data: bytes, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def planner() -> Iterator[Planner]:
    """Serve for as long as the block lasts."""
    with Planner() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)  # noqa: TID251 - outside of the kernel
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
