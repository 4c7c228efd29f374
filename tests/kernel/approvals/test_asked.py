from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.approvals.test_approvals import asked, served

from aios.abi.approvals import ACT_CHOICES, ALWAYS
from aios.kernel.sandbox.scratch import scratch_folder

pytestmark = pytest.mark.anyio

PURGER = """\
from aios.sdk.blocking import connect
with connect() as client:
    client.files.write("/shared/a", b"one")
    client.files.write("/shared/a", b"two")
    client.files.purge("/shared/a", keep=1)
    client.exit(0, "purged")
"""
STARTER = """\
import json, sys
from aios.sdk.blocking import connect
with connect() as client:
    child = client.spawn(sys.argv[1], env=json.loads(sys.argv[2]))
    client.exit(0, client.wait(child.pid).exit.result)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_folder("q") as folder:
        yield folder


def written(home: Path, name: str, source: str) -> str:
    (home / name).mkdir()
    (home / name / "agent.toml").write_text(f'name = "{name}"\n')
    (home / name / "main.py").write_text(source)
    return str(home / name)


async def test_who_starts_a_program_with_his_own_environment_has_not_its_answers(
    home: Path,
) -> None:
    purger, starter = written(home, "purger", PURGER), written(home, "starter", STARTER)
    async with served(home) as (kernel, owner):
        first = (await owner.spawn(purger, env={"MINE": "1"})).pid
        question = (await asked(kernel))[0]
        assert question.choices == ACT_CHOICES, "what the owner adds is his own"
        await owner.approvals.answer(question.id, ALWAYS)
        await owner.wait(first)
        plain = (await owner.spawn(starter, purger, "{}", read=(purger,))).pid
        assert (await owner.wait(plain)).exit.result == "purged", (
            "it is that program, whoever starts it"
        )
        evil = '{"PYTHONVERBOSE": ""}'
        other = (await owner.spawn(starter, purger, evil, read=(purger,))).pid
        question = (await asked(kernel))[0]
        assert (question.name, ALWAYS in question.choices) == ("purger", False)
        await owner.approvals.answer(question.id, "once")
        assert (await owner.wait(other)).exit.result == "purged"
