"""Whether the engine can run, and the offer to fetch a model."""

from pathlib import Path

import pytest
from tests.cli.conftest import Terminals

from aios.cli.readiness import check_engine
from aios.configload import load
from aios.errors import ConfigError, ModelMissing


@pytest.mark.parametrize("kind", ["scripted", "none"])
def test_engines_without_a_model_need_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("AIOS_ENGINE_KIND", kind)
    check_engine(load(), may_ask=True)
    assert not any(home.iterdir())


@pytest.mark.usefixtures("home")
def test_a_missing_model_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOS_ENGINE_KIND", "llama")
    with pytest.raises(ModelMissing) as caught:
        check_engine(load(), may_ask=False)
    assert "aios pull" in caught.value.hint


@pytest.mark.usefixtures("home")
def test_a_configuration_that_lacks_something_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOS_ENGINE_KIND", "openai")
    with pytest.raises(ConfigError, match="base_url"):
        check_engine(load(), may_ask=False)


def test_on_a_terminal_fetching_is_offered_and_may_be_declined(
    terminal: Terminals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOS_ENGINE_KIND", "llama")
    asking = terminal("serve")
    assert "is not in" in asking.read_until("Fetch it now? [y/N]")
    asking.type("n\r")
    ran = asking.end()
    assert ran.code == 7
    assert "aios pull" in ran.out


def test_a_model_that_cannot_be_fetched_is_told(
    terminal: Terminals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIOS_ENGINE_KIND", "llama")
    monkeypatch.setenv("AIOS_ENGINE_MODEL", str(tmp_path / "none.gguf"))
    asking = terminal("chat", "hi")
    asking.read_until("[y/N]")
    asking.type("y\r")
    ran = asking.end()
    assert ran.code == 7
    assert ran.out.count("error: ") == 0
    assert "none.gguf" in asking.shown[asking.n_read :]
