import anyio
import pytest
from tests.examples.test_digest import runner

from aios.engine.script import Script

pytestmark = pytest.mark.anyio


async def test_each_branch_goes_on_from_the_same_trunk() -> None:
    script = Script(replies=("I think of waves.", "Blue!", "Grey.", "Behold!"))
    with anyio.fail_after(30):
        async with runner(script) as kernel:
            ran = await kernel.run("branches", "--topic", "the sea")
            contexts = await kernel.client.contexts.list_all()
    assert ran.errors == []
    said = [line.rpartition(": ")[2] for line in ran.end.result.splitlines()]
    assert said == ["Blue!", "Grey.", "Behold!"]
    assert contexts == ()
