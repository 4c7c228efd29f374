"""Code that is exchanged behind the look at it is not run by a program to which something is granted."""

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from tests.kernel.test_programs import booted

from aios.abi.types import Pid
from aios.kernel.access import grants
from aios.kernel.access.grants import Grants, digest_of_folder
from aios.kernel.access.keptcode import kept_code
from aios.kernel.kernel import Kernel
from aios.kernel.sandbox.probe import Wall, probe
from aios.kernel.sandbox.scratch import scratch_folder
from aios.sdk.client import Client

pytestmark = pytest.mark.anyio

WISH = "tool.run Tool::base/fire"
MAIN = """\
import os, sys, time
from pathlib import Path
from aios.sdk.blocking import connect

with connect() as client:
    client.log("looked at")
    while not os.path.exists("go"):
        time.sleep(0.01)
    import helper
    try:
        Path(helper.__file__).with_name("data").write_text("mine")
    except OSError:
        helper.WHO += " read-only"
    Path("written").write_text("in the workspace")
    client.exit(0, f"{helper.WHO} {helper.__file__}")
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with scratch_folder("kc") as folder:
        yield folder


def project(place: Path) -> tuple[Path, Path]:
    """A workspace with a program in it."""
    work = place / "project"
    folder = work / "deploy"
    (folder / "empty").mkdir(parents=True)
    (folder / "agent.toml").write_text(f'name = "deploy"\nrights = ["{WISH}"]\n')
    (folder / "main.py").write_text(MAIN)
    (folder / "helper.py").write_text('WHO = "good"\n')
    return work.resolve(), folder.resolve()


async def result_of_a_swap(kernel: Kernel, client: Client, work: Path, folder: Path) -> str:
    """Start the program, put other code into its folder once it runs, and let it read that."""
    pid = (await client.spawn(str(folder), cwd=str(work), write=(str(work),))).pid
    while "looked at" not in said_by(kernel, pid):
        await anyio.sleep(0.01)
    (folder / "helper.py").write_text('WHO = "evil"\n')
    (work / "go").touch()
    result = (await client.wait(pid)).exit.result
    (work / "go").unlink()
    (folder / "helper.py").write_text('WHO = "good"\n')
    return result


def said_by(kernel: Kernel, pid: Pid) -> str:
    return " ".join(line.text for line in kernel.table.get(pid).log.read(0)[0])


@pytest.mark.skipif(probe().wall is not Wall.BUBBLEWRAP, reason="Landlock hides no folder")
async def test_a_program_with_a_grant_runs_the_code_that_was_looked_at(place: Path) -> None:
    (place / "home").mkdir()
    work, folder = project(place)
    async with booted(place / "home") as (kernel, client):
        plain = await result_of_a_swap(kernel, client, work, folder)
        assert plain == f"evil {folder}/helper.py", "else this test shows nothing"
        (folder / "data").unlink()
        kernel.grants.grant(folder, (WISH,), 1.0)
        granted = await result_of_a_swap(kernel, client, work, folder)
        assert granted == f"good read-only {folder}/helper.py"
        assert (work / "written").read_text() == "in the workspace"
        assert kernel.grants.rights_of(str(folder)) == (WISH,)


async def trusts(_: str) -> bool:
    return True


async def trusts_not(_: str) -> bool:
    return False


async def test_a_copy_is_there_only_for_as_long_as_it_is_needed(place: Path) -> None:
    _, folder = project(place)
    async with kept_code(folder, trusts_not) as code:
        assert (code.digest, code.copy) == (digest_of_folder(folder), None)
    async with kept_code(folder, trusts) as code:
        assert code.copy is not None
        assert code.digest == digest_of_folder(folder) == digest_of_folder(code.copy)
        assert (code.copy / "empty").is_dir()
        assert code.copy.parent.stat().st_mode & 0o777 == 0o700
    assert not code.copy.parent.exists()


async def test_what_changes_while_it_is_copied_is_not_what_was_trusted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = project(place)
    trusted = digest_of_folder(folder)

    async def changes_it(digest: str) -> bool:
        assert digest == trusted
        (folder / "helper.py").write_text('WHO = "evil"\n')
        return True

    async with kept_code(folder, changes_it) as code:
        assert code.digest not in {"", trusted}
        assert code.copy is not None
        assert "evil" in (code.copy / "helper.py").read_text()

    async def links_it(_: str) -> bool:
        (folder / "more.py").symlink_to(place / "elsewhere.py")
        return True

    async with kept_code(folder, links_it) as code:
        assert code.digest == ""
    (folder / "more.py").unlink()

    async def bounds_it(_: str) -> bool:
        monkeypatch.setattr(grants, "MAX_FILES", 2)
        return True

    async with kept_code(folder, bounds_it) as code:
        assert code.digest == ""
    os.mkfifo(folder / "pipe")
    async with kept_code(folder, trusts) as code:
        assert (code.digest, code.copy) == ("", None)


async def test_rights_are_those_of_the_digest_that_is_named(place: Path) -> None:
    _, folder = project(place)
    file = Grants(place / "grants.json")
    digest = file.grant(folder, (WISH,), 1.0).digest
    (folder / "helper.py").write_text('WHO = "evil"\n')
    assert file.rights_of(str(folder), digest) == (WISH,)
    assert file.rights_of(str(folder)) == ()
