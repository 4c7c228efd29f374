import re
from pathlib import Path

import anyio
import pytest
from tests.sdk.serving import served

from aios.engine.script import Script
from aios.sdk.client import connect

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ["tutorial/first-agent.md", "guides/agents.md", "guides/tools.md"]
BLOCKS = [
    pytest.param(block, id=f"{page}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    )
]


@pytest.mark.anyio
@pytest.mark.parametrize("block", BLOCKS)
async def test_a_program_in_the_documents_runs(block: str, tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('name = "block"\n')
    (tmp_path / "main.py").write_text(block)
    with anyio.fail_after(20):
        async with served(Script(answer_tokens=8)) as kernel:
            async with connect(kernel.urls[0], kernel.owner_token) as client:
                child = await client.spawn(tmp_path)
                end = (await client.wait(child.pid)).exit
                async with client.logs(child.pid) as lines:
                    said = [line.text async for line in lines if line.stream == "err"]
    assert said == []
    assert end.status == 0
    assert end.result
