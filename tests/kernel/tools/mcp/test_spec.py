import json
import os
from pathlib import Path

import pytest

from aios.config import McpConfig
from aios.errors import ConfigError
from aios.kernel.tools.mcp import spec
from aios.kernel.tools.mcp.spec import HIDDEN, ServerSpec, read_file, read_specs
from aios.mcpconfig import McpServer


def written(folder: Path, servers: object, **rest: object) -> str:
    file = folder / ".mcp.json"
    file.write_text(json.dumps({"mcpServers": servers, **rest}))
    return str(file)


def specs(
    *files: str, env: dict[str, str] | None = None, **tables: McpServer
) -> dict[str, ServerSpec]:
    found, complaints = read_specs(McpConfig(files=files, servers=tables), env or {})
    assert complaints == []
    return found


def test_a_file_of_another_client_is_taken_as_it_is(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {
            "git": {"command": "uvx", "args": ["mcp-server-git"], "alwaysAllow": ["log"], "timeout": 60},
            "web": {"type": "http", "url": "https://x.example/mcp?key=1", "headers": {"A": "b"}},
            "off": {"command": "x", "disabled": True},
        },
        inputs=[],
    )  # fmt: skip
    found = specs(file)
    assert set(found) == {"git", "web"}
    assert found["git"].command == ("uvx", "mcp-server-git")
    assert found["git"].folder == tmp_path
    assert (found["git"].where, found["web"].where) == ("uvx", "https://x.example")


def test_variables_are_filled_in_and_then_secret(tmp_path: Path) -> None:
    servers = {
        "one": {"command": "${BIN}/x", "args": ["${MODE:-fast}"], "env": {"KEY": "${KEY}"}},
        "two": {"command": "x", "env": {"KEY": "${NOT_THERE}"}},
        "web": {"url": "https://x", "headers": {"Authorization": "Bearer ${KEY}"}},
    }
    found = specs(written(tmp_path, servers), env={"BIN": "/b", "KEY": "canary-1234"})
    assert found["one"].command == ("/b/x", "fast")
    assert found["one"].env == {"KEY": "canary-1234"}
    assert found["two"].problem == "the variable NOT_THERE is not set"
    for one in (found["one"], found["web"]):
        assert one.hide("the key is canary-1234!") == f"the key is {HIDDEN}!"
        assert "canary" not in repr(one)
    assert "fast" in found["one"].hide("fast"), "a default is no secret"


@pytest.mark.parametrize(
    ("name", "entry", "problem"),
    [
        ("a b", {"command": "x"}, "name"),
        ("old", {"type": "sse", "url": "https://x"}, "gave up"),
        ("odd", {"type": "carrier-pigeon", "command": "x"}, "not known"),
        ("none", {}, "neither"),
    ],
)
def test_what_cannot_be_used_says_why(
    tmp_path: Path, name: str, entry: dict[str, str], problem: str
) -> None:
    assert problem in specs(written(tmp_path, {name: entry}))[name].problem


def test_the_digest_is_another_one_when_what_is_started_is(tmp_path: Path) -> None:
    one = {"command": "x", "args": ["a"], "env": {"KEY": "${KEY:-}"}}
    first = specs(written(tmp_path, {"it": one}), env={"KEY": "canary-1234"})["it"].digest
    again = specs(written(tmp_path, {"it": one}), env={"KEY": "canary-5678"})["it"].digest
    assert first == again, "a key may be replaced"
    for change in ({"args": ["b"]}, {"command": "y"}, {"env": {"KEY": "1", "LD_PRELOAD": "/x"}}):
        assert specs(written(tmp_path, {"it": {**one, **change}}))["it"].digest != first


def test_the_configuration_adds_servers_and_rights(tmp_path: Path) -> None:
    file = written(tmp_path, {"git": {"command": "x"}, "off": {"command": "x"}})
    found = specs(
        file,
        env={"KEY": "canary-1234"},
        git=McpServer(write=("/w",), is_shared=False),
        off=McpServer(is_on=False),
        web=McpServer(url="https://x", headers={"X-Key": "KEY"}),
        bad=McpServer(command="x", env=("NOT_THERE",)),
    )
    assert set(found) == {"git", "web", "bad"}
    assert found["git"].options.write == ("/w",)
    assert found["web"].headers == {"X-Key": "canary-1234"}
    assert found["bad"].problem == "the variable NOT_THERE is not set"


def test_files_that_are_none_are_complained_about(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("{")
    (tmp_path / "b").write_text('{"mcpServers": {"x": {"args": 7}}}')
    files = tuple(str(tmp_path / name) for name in ("a", "b", "c"))
    found, complaints = read_specs(McpConfig(files=files, servers={"x": McpServer()}), {})
    assert found == {}
    assert len(complaints) == 4
    for file in files:
        with pytest.raises(ConfigError):
            read_file(Path(file))


def test_a_file_that_is_a_pipe_or_has_no_end_does_not_hold_up_who_reads_it(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    (endless := tmp_path / "endless").symlink_to("/dev/zero")
    for file in (endless, pipe):
        with pytest.raises(ConfigError, match="no regular file"):
            read_file(file)


def test_a_file_that_is_said_to_be_empty_is_read_up_to_a_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec, "MAX_FILE_BYTES", 10)
    (said := tmp_path / "said").symlink_to("/proc/self/status")
    with pytest.raises(ConfigError, match="over 10 bytes"):
        read_file(said)


def test_what_is_put_in_where_a_variable_is_not_set_is_shown_to_be_there(tmp_path: Path) -> None:
    env = {"A": "${KEY:-mine}", "B": "${KEY:-}", "C": "x${KEY}", "LD_PRELOAD": "${KEY:-/x.so}"}
    entry = {"command": "x", "env": env, "headers": {"H": "Bearer ${KEY:-mine}"}}
    shown = specs(written(tmp_path, {"it": entry}), env={"KEY": "k"})["it"].shown
    assert shown["env"] == {
        "LD_PRELOAD": "${KEY:-/x.so}",
        "A": "${KEY:-***}",
        "B": "${KEY:-}",
        "C": "***${KEY}",
    }
    assert shown["headers"] == {"H": "***${KEY:-***}"}


def test_of_two_servers_with_one_name_the_first_stays(tmp_path: Path) -> None:
    file = written(tmp_path, {"it": {"command": "x"}})
    found, complaints = read_specs(
        McpConfig(files=(file,), servers={"it": McpServer(command="y")}), {}
    )
    assert found["it"].command == ("y",)
    assert "which is in config" in complaints[0]
