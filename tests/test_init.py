import subprocess
import sys

import pytest

import aios
from aios.sdk import agent, tools

LIGHT = """
import sys
before = set(sys.modules)
import aios
print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))
"""


def python(code: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


def test_importing_aios_loads_nothing_but_itself() -> None:
    loaded = set(python(LIGHT).split())
    assert "aios" in loaded
    assert not loaded & {"msgspec", "anyio", "asyncio", "inspect", "dataclasses"}


def test_a_plain_program_loads_no_event_loop() -> None:
    code = (
        "import sys; before = set(sys.modules);"
        "import aios; aios.run, aios.tool, aios.blocking.connect;"
        "print(*(set(sys.modules) - before))"
    )
    loaded = set(python(code).split())
    assert "aios.sdk.blocking" in loaded
    assert not loaded & {"asyncio", "anyio", "httpx", "aios.config", "aios.kernel"}


def test_a_program_without_tools_loads_nothing_that_looks_at_code() -> None:
    loaded = set(python("import sys, aios.sdk.blocking; print(*sys.modules)").split())
    assert not loaded & {"inspect", "ast", "typing_extensions"}


def test_a_command_loads_no_typing_extensions_either() -> None:
    loaded = set(python("import sys, aios.cli.main; print(*sys.modules)").split())
    assert "msgspec" in loaded
    assert "typing_extensions" not in loaded


def test_a_program_that_imports_typing_extensions_later_has_it() -> None:
    code = "import aios.abi, typing_extensions; print(typing_extensions.Required)"
    assert python(code).strip() == "typing.Required"


def test_no_other_thread_finds_that_there_are_no_typing_extensions() -> None:
    code = (
        "import sys, threading; done = threading.Event();"
        "threading.Thread(target=done.wait).start(); import aios.abi; done.set();"
        "print('msgspec' in sys.modules)"
    )
    assert python(code).strip() == "False"


def test_every_public_name_can_be_had() -> None:
    for name in aios.__all__:
        assert getattr(aios, name) is not None
    assert set(aios.__all__) <= set(dir(aios))


def test_the_names_that_are_loaded_late_are_the_public_ones() -> None:
    assert {*aios._HOMES, *aios._MODULES, "__version__"} == set(aios.__all__)


def test_a_public_name_is_what_its_home_defines() -> None:
    assert aios.Agent is agent.Agent
    assert aios.tool is tools.tool


def test_an_unknown_name_is_refused_as_any_module_does() -> None:
    with pytest.raises(AttributeError, match="no attribute 'agnet'"):
        _ = aios.agnet  # type: ignore[attr-defined]  # the point of the test
