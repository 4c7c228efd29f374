import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import jsonschema_rs
import pytest
from tests.server.serving import serving

from aios.engine.scripted import ScriptedEngine
from aios.kernel.kernel import Kernel
from aios.kernel.process import Run
from aios.kernel.syscall import TABLE
from aios.server.openapi import document

pytestmark = pytest.mark.anyio

CONFIG = """
[phases.examples]
enabled = false
[phases.stateful]
enabled = false
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "504"]    # 504: the call's own deadline
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "403", "404", "409", "504"]    # 400: fields that contradict each other
[[operations]]
include-path = "/aios/stream"
phases.coverage.enabled = false
[[operations]]
include-path = "/aios/call"
phases.coverage.enabled = false
[[operations]]
include-path = "/v1/chat/completions"
phases.coverage.enabled = false
"""


def described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document())
    return found


def references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_every_reference_leads_somewhere() -> None:
    schemas = described()["components"]["schemas"]
    assert {ref.rpartition("/")[2] for ref in references(described())} <= set(schemas)


def test_the_document_is_made_once_for_all_that_ask_for_it() -> None:
    assert document() is document()


def test_every_system_call_is_described() -> None:
    body = described()["paths"]["/aios/call"]["post"]["requestBody"]
    options = body["content"]["application/json"]["schema"]["anyOf"]
    assert {option["$ref"].rpartition("/")[2] for option in options} == {
        cls.__name__ for cls in TABLE
    }


def test_every_route_but_health_and_links_wants_the_token() -> None:
    open_paths = [
        path for path, item in described()["paths"].items() for operation in item.values() if operation.get("security") == []
    ]  # fmt: skip
    assert sorted(open_paths) == ["/aios/files/{token}", "/health"]
    assert described()["security"] == [{"token": []}]


async def test_the_document_describes_the_routes_that_there_are_and_their_replies() -> None:
    document_ = described()
    async with serving(ScriptedEngine()) as served, served.client() as client:
        assert (await client.get("/openapi.json")).json() == document_
        for path, item in document_["paths"].items():
            for method, operation in item.items():
                reply = await client.request(
                    method, path.replace("{name}", "scripted"), content=b"{"
                )
                content = operation["responses"][str(reply.status_code)]["content"]
                schema = content[reply.headers["content-type"]]["schema"]
                whole = {**schema, "components": document_["components"]}
                assert jsonschema_rs.is_valid(whole, reply.json()), (path, reply.text)


async def end_waiting_calls(kernel: Kernel) -> None:
    """End calls that wait for letters or changes that never come, as a deadline of theirs would; others only wait for a turn."""
    waiting = list[Run]()
    while True:
        await anyio.sleep(0.5)
        parked = [run for run in kernel.init.runs.values() if run.is_parked]
        for run in parked:
            if run in waiting:
                run.scope.cancel()
        waiting = parked


@pytest.mark.slow
@pytest.mark.no_cover
async def test_a_machine_that_reads_the_document_finds_nothing_to_complain_about(
    tmp_path: Path,
) -> None:
    """Schemathesis sends what the document allows and what it forbids, and compares the replies with it."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    async with serving(ScriptedEngine(n_slots=16)) as served:
        command = [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{served.url}/openapi.json",
            "--header", f"Authorization: Bearer {served.token}", "--max-examples", "5", "--seed", "1", "--no-color",
            "--generation-database", "none",
        ]  # fmt: skip
        env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end_waiting_calls, served.kernel)
            with anyio.fail_after(240):  # its own lines need not be counted, which is slow
                done = await anyio.run_process(
                    command, check=False, stderr=subprocess.STDOUT, cwd=tmp_path, env=env
                )
            tasks.cancel_scope.cancel()
        report = done.stdout.decode()
        assert done.returncode == 0, report[-6_000:]
