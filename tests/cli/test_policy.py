"""`aios policy`."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios

FENCE = """
@id("fence") forbid(principal, action, resource in Path::"/shared/vault");
@id("ask") @decide("ask") permit(principal, action == Action::"file.write", resource in Path::"/shared/ask");
@id("shy") @decide("ask") permit(principal == Agent::"shy", action, resource) when { context.effect == "irreversible" };
"""
CASES = """
[[case]]
expect = "deny"
action = "file.read"
resource = "Path::/shared/vault/deep/key"
[[case]]
expect = "allow"
action = "file.read"
resource = "Path::/shared/vaults"
[[case]]
expect = "ask"
action = "tool.run"
resource = "Tool::base/launch"
agent = ["boss", "ann"]
effect = "irreversible"
"""


@pytest.fixture
def mine(home: Path) -> Path:
    file = home / "policies" / "mine.cedar"
    file.parent.mkdir(parents=True)
    file.write_text(FENCE)
    return file


def test_check_names_the_policies_of_the_profile_and_the_files(aios: Aios, mine: Path) -> None:
    ran = aios("policy", "check")
    assert "workspace.calls" in ran.out
    assert "mine.fence" in ran.out
    (row,) = aios("policy", "check", "--json", str(mine)).rows()
    assert row["profile"] == "workspace"


def test_check_says_where_a_file_is_wrong(aios: Aios, mine: Path) -> None:
    mine.write_text("forbid(principal, ")
    ran = aios("policy", "check")
    assert ran.code == 2
    assert "mine" in ran.err


@pytest.mark.parametrize(
    ("asked", "code", "told"),
    [
        (("file.read", "Path::/shared/vault/x"), 5, "mine.fence forbids agent"),
        (("file.read", 'Path::"/shared/open"'), 0, "workspace.calls permits agent"),
        (("tool.run", "Tool::t", "--effect", "irreversible", "--as", "a", "--as", "b"), 1, "workspace.irreversible-tools"),
        (("tool.run", "Tool::t", "--effect", "irreversible", "--own", "--tainted", "--profile", "full"), 1, "outside"),
        (("file.write", "Path::/shared/x", "--profile", "read-only"), 5, "no policy permits"),
        (("file.read", "Folder::/x"), 2, "no resource"),
        (("file.raed",), 2, "file.raed"),
        (("file.read", "Path::/shared//vault/./x/"), 5, "mine.fence forbids agent"),
        (("file.read", "Path::/shared/y/../vault/x"), 2, "may not climb"),
        (("file.read",), 2, "of type Path"),
        (("tool.run", "Path::/shared/x"), 2, "never asked about Path::/shared/x"),
        (("model.use", "Tool::t"), 2, "of type Kernel"),
        (("process.signal",), 2, "of type Process"),
        (("file.read", "Path::/shared/x", "--effect", "irreversible"), 2, "is never irreversible"),
        (("file.write", "Path::/shared/x", "--own"), 2, "is about no tool"),
        (("file.write", "Path::/shared/x"), 0, "(effect reversible)"),
        (("process.spawn", "--kind", "guest"), 5, "agent (guest) has no right `process.spawn`"),
        (("approval.give",), 5, "agent (program) has no right `approval.give`"),
        (("file.write", "Path::/shared/ask/x"), 5, "cannot wait in the middle of a transaction"),
        (("file.write", "Path::/shared/ask/x", "--effect", "irreversible"), 5, "cannot wait in the middle"),
        (("process.self", "--effect", "irreversible", "--as", "shy"), 0, "whether a process may end"),
        (("mail.use", "Process::bob"), 0, "workspace.calls permits agent"),
        (("process.self", "--as", ""), 2, "`--as`: expected text of at least 1 character"),
        (("process.self", "--owner", ""), 2, "`--owner`: expected text of at least 1 character"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("mine")
def test_explain_says_what_is_decided_and_why(
    aios: Aios, asked: tuple[str, ...], code: int, told: str
) -> None:
    ran = aios("policy", "explain", *asked)
    assert (ran.code, told in ran.out + ran.err) == (code, True), ran


@pytest.mark.usefixtures("mine")
def test_explain_as_json_has_the_whole_question_and_answer(aios: Aios) -> None:
    (row,) = aios("policy", "explain", "--json", "file.read", "Path::/shared/vault/x").rows()
    decision, request = row["decision"], row["request"]
    assert isinstance(decision, dict)
    assert isinstance(request, dict)
    assert decision["policies"] == ["mine.fence"]
    assert request["resource"] == {"type": "Path", "id": "/shared/vault/x"}


@pytest.mark.usefixtures("mine")
def test_explain_counts_what_is_granted_to_a_program_as_it_is(aios: Aios, tmp_path: Path) -> None:
    folder = tmp_path / "prog"
    folder.mkdir()
    (folder / "agent.toml").write_text('name = "prog"\nrights = ["tool.run Tool::base/launch"]\n')
    (folder / "main.py").write_text("")
    asked = ("tool.run", "Tool::base/launch", "--effect", "irreversible", "--program", str(folder))
    assert aios("policy", "explain", *asked).code == 1
    assert aios("grant", "--yes", str(folder)).code == 0
    ran = aios("policy", "explain", *asked)
    assert (ran.code, "the owner granted `tool.run Tool::base/launch`" in ran.out) == (0, True)
    assert aios("policy", "explain", *asked, "--tainted").code == 1
    (folder / "main.py").write_text("# another")
    assert aios("policy", "explain", *asked).code == 1


def test_test_compares_what_is_decided_with_what_is_expected(
    aios: Aios, mine: Path, tmp_path: Path
) -> None:
    file = tmp_path / "cases.toml"
    file.write_text(CASES)
    assert aios("policy", "test", str(file)).code == 0
    mine.unlink()
    ran = aios("policy", "test", str(file))
    assert ran.code == 1
    assert "1 FAILED: file.read Path::/shared/vault/deep/key is allow, not deny" in ran.out
    rows = aios("policy", "test", "--json", str(file)).rows()
    assert [row["ok"] for row in rows] == [False, True, True]
    file.write_text("[[case]]\nexpect = 'maybe'\naction = 'file.read'\n")
    assert aios("policy", "test", str(file)).code == 2


@pytest.mark.parametrize(("field", "value"), [("action", "file.raed"), ("resource", "Tool::x")])
@pytest.mark.usefixtures("mine")
def test_a_case_that_nobody_ever_asks_does_not_pass(
    aios: Aios, tmp_path: Path, field: str, value: str
) -> None:
    case = {
        "expect": "deny",
        "action": "file.read",
        "resource": "Path::/shared/vault",
        field: value,
    }
    file = tmp_path / "cases.toml"
    lines = "".join(f'{key} = "{each}"\n' for key, each in case.items())
    file.write_text(f"{CASES}[[case]]\n{lines}")
    ran = aios("policy", "test", str(file))
    assert ran.code == 2
    assert "case 4: " in ran.err
    assert value in ran.err


def test_doctor_names_a_policy_file_that_keeps_a_kernel_from_starting(
    aios: Aios, mine: Path
) -> None:
    def found() -> list[object]:
        rows = aios("doctor", "--json").rows()
        return [row["level"] for row in rows if row["check"] == "policies"]

    assert found() == ["ok"]
    mine.write_text("forbid(principal, ")
    assert found() == ["fail"]
    assert aios("doctor").code == 1
