"""Code that is exchanged behind the look at it is not run by a program to which something is granted."""

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from tests.kernel.test_programs import booted

from aios.abi.types import Pid
from aios.errors import ConfigError, ProgramFailed, TooLarge
from aios.kernel import programs
from aios.kernel.access import grants
from aios.kernel.access.grants import Grants, content_of, digest_of_folder
from aios.kernel.access.keptcode import TRIES, Code, kept_code
from aios.kernel.kernel import Kernel
from aios.kernel.loader import Program, load_program
from aios.kernel.sandbox.probe import Wall, probe
from aios.kernel.sandbox.scratch import hidden_base, scratch_folder
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
        assert granted == f"good read-only /.kept{folder}/helper.py"
        assert (work / "written").read_text() == "in the workspace"
        assert kernel.grants.rights_of(str(folder)) == (WISH,)


@pytest.mark.skipif(probe().wall is not Wall.BUBBLEWRAP, reason="Landlock hides no folder")
async def test_a_folder_that_is_put_in_the_place_of_a_granted_one_is_not_run(place: Path) -> None:
    (place / "home").mkdir()
    work, folder = project(place)
    async with booted(place / "home") as (kernel, client):
        kernel.grants.grant(folder, (WISH,), 1.0)
        pid = (await client.spawn(str(folder), cwd=str(work), write=(str(work),))).pid
        while "looked at" not in said_by(kernel, pid):
            await anyio.sleep(0.01)
        folder.rename(work / "moved")  # a mount in another sandbox moves with it
        folder.mkdir()
        (folder / "helper.py").write_text('WHO = "evil"\n')
        (work / "go").touch()
        assert "good" in (await client.wait(pid)).exit.result


PARENT = """\
from pathlib import Path
from aios.sdk.blocking import connect

with connect() as client:
    child = client.spawn(Path(__file__).parent / "child", read=[Path(__file__).with_name("data")])
    client.exit(0, client.wait(child.pid).exit.result)
"""
CHILD = """\
from aios.sdk.blocking import connect

with connect() as client:
    client.exit(0, __file__)
"""


async def test_a_program_with_a_grant_finds_its_children_beside_itself(place: Path) -> None:
    (place / "home").mkdir()
    work, folder = project(place)
    (folder / "child").mkdir()
    (folder / "child" / "agent.toml").write_text('name = "child"\n')
    (folder / "child" / "main.py").write_text(CHILD)
    (folder / "main.py").write_text(PARENT)
    (folder / "data").touch()
    async with booted(place / "home") as (kernel, client):
        kernel.grants.grant(folder, (WISH,), 1.0)
        pid = (await client.spawn(str(folder), cwd=str(work), write=(str(work),))).pid
        assert (await client.wait(pid)).exit.result == f"{folder}/child/main.py"


async def test_a_program_that_cannot_be_begun_is_answered(place: Path) -> None:
    (place / "home").mkdir()
    work, folder = project(place)
    async with booted(place / "home") as (kernel, client):
        kernel.grants.file.parent.mkdir(exist_ok=True)
        kernel.grants.file.write_text("[{")
        with anyio.fail_after(30), pytest.raises(ConfigError, match="grants"):
            await client.spawn(str(folder), cwd=str(work))


async def trusts(_: str) -> tuple[str, ...]:
    return (WISH,)


async def trusts_not(_: str) -> None:
    return None


async def test_a_copy_is_there_only_for_as_long_as_it_is_needed(place: Path) -> None:
    _, folder = project(place)
    async with kept_code(folder, trusts_not) as code:
        assert code == Code(digest_of_folder(folder))
    async with kept_code(folder, trusts) as code:
        assert code.copy is not None
        assert code.granted == (WISH,)
        assert code.digest == digest_of_folder(folder) == digest_of_folder(code.copy)
        assert (code.copy / "empty").is_dir()
        assert code.copy.parent.stat().st_mode & 0o777 == 0o700
        assert code.copy.is_relative_to(hidden_base()), "who works in /tmp could change it"
    assert not code.copy.parent.exists()


async def test_what_changes_while_it_is_copied_is_looked_at_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = project(place)
    trusted = digest_of_folder(folder)

    async def changes_it(digest: str) -> tuple[str, ...] | None:
        (folder / "helper.py").write_text('WHO = "evil"\n')
        return (WISH,) if digest == trusted else None

    async with kept_code(folder, changes_it) as code:
        assert code == Code(digest_of_folder(folder))

    async def links_it(_: str) -> tuple[str, ...]:
        (folder / "more.py").symlink_to(place / "elsewhere.py")
        return (WISH,)

    async with kept_code(folder, links_it) as code:
        assert code == Code("")
    (folder / "more.py").unlink()

    n_times = 0

    async def keeps_changing_it(_: str) -> tuple[str, ...]:
        nonlocal n_times
        n_times += 1
        (folder / "helper.py").write_text(f"WHO = {n_times}\n")
        return ()

    with pytest.raises(ProgramFailed, match="changes while"):
        async with kept_code(folder, keeps_changing_it):
            pytest.fail("it runs from a copy that is not what was looked at")
    assert n_times == TRIES

    async def bounds_it(_: str) -> tuple[str, ...]:
        monkeypatch.setattr(grants, "MAX_FILES", 2)
        return ()

    async with kept_code(folder, bounds_it) as code:
        assert code == Code("")
    os.mkfifo(folder / "pipe")
    async with kept_code(folder, trusts) as code:
        assert code == Code("")


def test_a_file_that_became_a_pipe_since_it_was_looked_at_keeps_nobody_waiting(place: Path) -> None:
    os.mkfifo(place / "pipe")
    with pytest.raises(TooLarge):
        content_of(place / "pipe")
    (place / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        content_of(place / "link")


async def test_rights_are_those_of_the_digest_that_is_named(place: Path) -> None:
    _, folder = project(place)
    file = Grants(place / "grants.json")
    digest = file.grant(folder, (WISH,), 1.0).digest
    (folder / "helper.py").write_text('WHO = "evil"\n')
    assert file.rights_of(str(folder), digest) == (WISH,)
    assert file.rights_of(str(folder)) == ()


DECOY = """\
import os, time
from pathlib import Path
Path("began").touch()
while not os.path.exists("end"):
    time.sleep(0.01)
"""


@pytest.mark.skipif(probe().wall is not Wall.BUBBLEWRAP, reason="Landlock hides no folder")
async def test_a_program_that_became_a_link_to_a_granted_one_has_no_grant(place: Path) -> None:
    (place / "home").mkdir()
    work, folder = project(place)
    decoy = work / "decoy"
    decoy.mkdir()
    wishes = f'rights = ["{WISH}"]\n[restart]\npolicy = "always"\ndelay_s = 0.01\n'
    (decoy / "agent.toml").write_text(f'name = "decoy"\n{wishes}')
    (decoy / "main.py").write_text(DECOY)
    async with booted(place / "home") as (kernel, client):
        kernel.grants.grant(folder, (WISH,), 1.0)
        pid = (await client.spawn(str(decoy), cwd=str(work), write=(str(work),))).pid
        while not (work / "began").exists():
            await anyio.sleep(0.01)
        decoy.rename(work / "old")
        decoy.symlink_to(folder)
        (work / "end").touch()
        while "looked at" not in said_by(kernel, pid):
            await anyio.sleep(0.01)
        assert [each.granted for each in kernel.table.get(pid).bounds] == [()]


@pytest.mark.skipif(probe().wall is not Wall.BUBBLEWRAP, reason="Landlock hides no folder")
async def test_what_a_granted_program_runs_is_what_the_manifest_says_that_was_looked_at(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "home").mkdir()
    work, folder = project(place)
    (folder / "main.py").write_text("pass\n")
    good = (folder / "agent.toml").read_text()

    def swaps(path: str, copy: Path | None = None) -> Program:
        """Another manifest is there whenever the folder itself is read, and gone when its digest is made."""
        (folder / "agent.toml").write_text(f'{good}entry = "helper.py"\n')
        try:
            return load_program(path, copy)
        finally:
            (folder / "agent.toml").write_text(good)

    async with booted(place / "home") as (kernel, client):
        (folder / "helper.py").write_text("raise SystemExit(7)\n")
        kernel.grants.grant(folder, (WISH,), 1.0)
        monkeypatch.setattr(programs, "load_program", swaps)
        pid = (await client.spawn(str(folder), cwd=str(work))).pid
        assert (await client.wait(pid)).exit.status == 0
