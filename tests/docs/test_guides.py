import re
from pathlib import Path
from textwrap import indent

import anyio
import pytest
from tests.sdk.serving import served

from aios.engine.script import Script
from aios.sdk.client import connect

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ["tutorial/first-agent.md", "guides/agents.md", "guides/tools.md"]
PARTS = {"guides/memory.md": 2, "guides/files.md": 3}
"""Pages whose first so many blocks are parts of one `main`; what files.md has behind them never ends, or needs a model."""


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


BLOCKS = [
    pytest.param(block, id=f"{page}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page))
]


@pytest.mark.anyio
@pytest.mark.parametrize("block", BLOCKS)
async def test_a_program_in_the_documents_runs(block: str, tmp_path: Path) -> None:
    await succeeds(block, tmp_path)


@pytest.mark.anyio
@pytest.mark.parametrize(("page", "n_blocks"), PARTS.items())
async def test_the_parts_of_a_guide_run_one_after_another(
    page: str, n_blocks: int, tmp_path: Path
) -> None:
    body = "".join(blocks(page)[:n_blocks])
    main = f"async def main(client: aios.Client) -> str:\n{indent(body, '    ')}    return 'done'\n"
    await succeeds(f"import time\n\nimport aios\n\n\n{main}\n\naios.run(main)\n", tmp_path)


async def succeeds(source: str, folder: Path) -> None:
    """Run a program; it says nothing to stderr and has a result."""
    (folder / "agent.toml").write_text('name = "block"\n')
    (folder / "main.py").write_text(source)
    with anyio.fail_after(30):
        async with served(Script(answer_tokens=8)) as kernel:
            async with connect(kernel.urls[0], kernel.owner_token) as client:
                child = await client.spawn(folder)
                end = (await client.wait(child.pid)).exit
                async with client.logs(child.pid) as lines:
                    said = [line.text async for line in lines if line.stream == "err"]
    assert not said, "\n".join(said)
    assert end.status == 0
    assert end.result
