import os
from pathlib import Path

import pytest

from aios.errors import ToolFailed
from aios.kernel.tools.launcher import PATH
from aios.kernel.tools.mcp.opening import order_of
from aios.kernel.tools.mcp.spec import ServerSpec
from aios.mcpconfig import McpServer


def test_a_server_sees_its_program_its_folder_and_what_its_arguments_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, own, named, given = (tmp_path / name for name in ("p", "own", "named", "given"))
    for folder in (project, own, named, given, tmp_path / "tools" / "bin"):
        folder.mkdir(parents=True)
    program = tmp_path / "tools" / "bin" / "serve-it"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SECRET_KEY", "canary")
    spec = ServerSpec(
        "it",
        "file",
        command=("serve-it", "--root", str(named), "no/path", "~1.2"),
        env={"KEY": "k"},
        folder=project,
        options=McpServer(write=(str(given),)),
    )
    order = order_of(spec, own)
    assert order.command == (str(program), "--root", str(named), "no/path", "~1.2")
    assert order.folder == project
    assert set(order.places.readable) - {program} == {tmp_path / "tools", named, project}
    assert set(order.writable) == {own, given}
    assert order.env == {
        "PATH": f"{program.parent}:{PATH}",
        "LANG": "C.UTF-8",
        "HOME": str(own),
        "TMPDIR": str(own),
        "KEY": "k",
    }


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    spec = ServerSpec("it", "config", command=("no-such-program", "x"))
    with pytest.raises(ToolFailed, match="no-such-program is not there"):
        order_of(spec, tmp_path)
