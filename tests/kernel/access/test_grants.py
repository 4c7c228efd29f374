import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kernel.conftest import MakeProgram

from aios.abi.access import Principal, Request, Resource, Verdict
from aios.errors import ConfigError, NotFound, TooLarge
from aios.kernel.access.grants import Grants, check_wish, digest_of_folder
from aios.kernel.access.policy import GRANTED, Policies, Source
from aios.kernel.access.policyfiles import profile_source

WISH = "file.write Path::/shared/reports"


@pytest.fixture
def grants(tmp_path: Path) -> Grants:
    return Grants(tmp_path / "policies" / "grants.json")


def folder_of(program: MakeProgram) -> Path:
    return Path(program("print(1)\n"))


def test_what_is_granted_is_remembered_until_anything_in_the_folder_changes(
    grants: Grants, program: MakeProgram
) -> None:
    folder = folder_of(program)
    assert grants.rights_of(str(folder)) == ()
    grants.grant(folder, (WISH,), 1.0)
    assert grants.rights_of(str(folder)) == (WISH,)
    assert grants.file.stat().st_mode & 0o777 == 0o600
    compiled = folder / "__pycache__" / "helper.cpython-311.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"made by whom?")
    assert grants.rights_of(str(folder)) == (), "it could be run in the place of a source"
    with pytest.raises(TooLarge, match="__pycache__"):
        grants.grant(folder, (WISH,), 1.0)
    compiled.unlink()
    assert grants.rights_of(str(folder)) == (WISH,)
    data = folder / "data.txt"
    data.write_text("read by exec")
    assert grants.rights_of(str(folder)) == ()
    data.unlink()
    assert grants.rights_of(str(folder)) == (WISH,)
    (folder / "main.py").write_text("print(2)\n")
    assert grants.rights_of(str(folder)) == ()


def test_a_grant_takes_the_place_of_the_one_before_and_can_be_taken_back(
    grants: Grants, program: MakeProgram
) -> None:
    folder = folder_of(program)
    grants.grant(folder, (WISH,), 1.0)
    grants.grant(folder, ("model.use",), 2.0)
    assert [each.rights for each in grants.all()] == [("model.use",)]
    grants.revoke(folder)
    assert grants.all() == ()
    with pytest.raises(NotFound, match="nothing is granted"):
        grants.revoke(folder)


def test_a_folder_that_could_change_unseen_is_not_granted_anything(
    grants: Grants, program: MakeProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(program)
    (folder / "link.py").symlink_to(tmp_path / "elsewhere.py")
    assert digest_of_folder(folder) == ""
    with pytest.raises(TooLarge):
        grants.grant(folder, (WISH,), 1.0)
    (folder / "link.py").unlink()
    os.mkfifo(folder / "pipe")
    assert digest_of_folder(folder) == ""
    (folder / "pipe").unlink()
    monkeypatch.setattr("aios.kernel.access.grants.MAX_BYTES", 3)
    assert digest_of_folder(folder) == ""


def test_names_and_contents_cannot_be_swapped_for_one_another(tmp_path: Path) -> None:
    digests = set()
    for n, files in enumerate(({"a": "bc"}, {"ab": "c"}, {"a": "b", "c": ""}, {})):
        folder = tmp_path / str(n)
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        digests.add(digest_of_folder(folder))
    assert len(digests) == 4


@pytest.mark.parametrize("wish", ["file.raed", "file.read /x", "file.read Folder::/x", "tool.run Tool::", ""])  # fmt: skip
def test_what_is_no_right_cannot_be_asked_for(wish: str) -> None:
    with pytest.raises(ConfigError):
        check_wish(wish)


def test_a_damaged_file_of_grants_is_an_error_that_names_it(grants: Grants) -> None:
    grants.file.parent.mkdir()
    grants.file.write_text("[{")
    with pytest.raises(ConfigError, match=r"grants\.json"):
        grants.rights_of("/x")


def test_a_grant_answers_what_is_asked_or_not_spoken_of_but_never_a_ban() -> None:
    ann = Principal("ann", "owner", "program", "/p", (WISH, "tool.run Tool::base/launch"))
    plain = Principal("ann", "owner", "program", "/p")
    inside = Request("file.write", Resource("Path", "/shared/reports/q1"))
    beside = Request("file.write", Resource("Path", "/shared/reports2"))
    launch = Request("tool.run", Resource("Tool", "base/launch"), "irreversible")
    readonly, workspace = (Policies([profile_source(n)]) for n in ("read-only", "workspace"))
    assert readonly.decide([ann], inside).policies == (GRANTED,)
    assert readonly.decide([ann], beside).verdict is Verdict.DENY
    assert workspace.decide([plain], launch).verdict is Verdict.ASK
    assert workspace.decide([ann], launch).verdict is Verdict.ALLOW
    assert workspace.decide([plain, ann], launch).verdict is Verdict.ASK, "not above its parent"
    assert workspace.decide([ann, plain], launch).verdict is Verdict.ASK, "not handed down"
    tainted = Request("tool.run", launch.resource, "irreversible", is_tainted=True)
    assert workspace.decide([ann], tainted).verdict is Verdict.ASK
    ban = Source("mine", 'forbid(principal, action, resource in Path::"/shared");')
    assert Policies([profile_source("read-only"), ban]).decide([ann], inside).verdict is (
        Verdict.DENY
    )


ONE_OF_MANY = """
import sys
from pathlib import Path
from aios.kernel.access.grants import Grants
grants, folder = Grants(Path(sys.argv[1])), Path(sys.argv[2])
for number in range(20):
    grants.grant(folder, ("model.use",), float(number))
    if number % 2:
        grants.revoke(folder)
"""


def test_of_grants_made_at_once_none_is_lost_and_none_taken_back_returns(
    grants: Grants, tmp_path: Path
) -> None:
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
        (folder / "main.py").write_text("")
    command = [sys.executable, "-c", ONE_OF_MANY, str(grants.file)]
    working = [subprocess.Popen([*command, str(folder)]) for folder in folders]  # noqa: S603 - our own
    kept = tmp_path / "kept"
    kept.mkdir()
    grants.grant(kept, (WISH,), 1.0)
    assert [each.wait(20) for each in working] == [0, 0, 0, 0]
    assert [each.program for each in grants.all()] == [str(kept)]
