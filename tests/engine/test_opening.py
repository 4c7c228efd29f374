"""From configuration to an engine."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from aios.config import EngineConfig, Home
from aios.engine import opening
from aios.engine.opening import engine_kind, open_engine
from aios.engine.remote.governor import Governors
from aios.engine.remote.openai import OpenAIEngine
from aios.engine.scripted import ScriptedEngine
from aios.errors import ConfigError, EngineUnavailable, ModelMissing


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (EngineConfig(), "llama"),
        (EngineConfig(base_url="http://localhost:1/v1"), "openai"),
        (EngineConfig(kind="llama", base_url="http://localhost:1/v1"), "llama"),
        (EngineConfig(kind="scripted"), "scripted"),
        (EngineConfig(kind="none"), "none"),
    ],
)
def test_auto_means_an_endpoint_where_there_is_one(config: EngineConfig, kind: str) -> None:
    assert engine_kind(config) == kind


def test_a_scripted_engine_has_the_configured_size(tmp_path: Path) -> None:
    config = EngineConfig(kind="scripted", model="fake", n_slots=3, window_tokens=100)
    engine = open_engine("x", config, Home(tmp_path))
    assert isinstance(engine, ScriptedEngine)
    told = engine.capabilities
    assert (told.model, told.n_slots, told.window_tokens) == ("fake", 3, 100)


def test_the_key_comes_from_the_environment_variable_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-abcdef")
    config = EngineConfig(kind="openai", base_url="http://localhost:1/v1", api_key_env="MY_KEY")
    engine = open_engine("x", config, Home(tmp_path))
    assert isinstance(engine, OpenAIEngine)
    assert engine._endpoint.site.api_key == "sk-abcdef"
    monkeypatch.delenv("MY_KEY")
    engine = open_engine("x", config, Home(tmp_path))
    assert isinstance(engine, OpenAIEngine)
    assert engine._endpoint.site.api_key is None


def test_engines_with_one_address_and_key_share_a_governor(tmp_path: Path) -> None:
    governors = Governors()
    config = EngineConfig(kind="openai", base_url="http://localhost:1/v1")
    engines = [
        open_engine(name, config, Home(tmp_path), governors=governors) for name in ("a", "b")
    ]
    first, second = (
        engine._endpoint.governor for engine in engines if isinstance(engine, OpenAIEngine)
    )
    assert first is second


def test_an_endpoint_without_an_address_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        open_engine("x", EngineConfig(kind="openai"), Home(tmp_path))


def test_no_engine_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none"):
        open_engine("x", EngineConfig(kind="none"), Home(tmp_path))


def test_without_the_local_extra_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LOCAL_PACKAGES", ("json", "no_such_package"))
    with pytest.raises(EngineUnavailable, match="no_such_package") as caught:
        open_engine("x", EngineConfig(kind="llama"), Home(tmp_path))
    assert caught.value.hint == "pip install 'aios-kernel[local]'"


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="needs the `local` extra")
def test_without_a_model_file_the_error_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing) as caught:
        open_engine("x", EngineConfig(kind="llama"), Home(tmp_path))
    assert "pull" in caught.value.hint


def test_opening_imports_nothing_heavy() -> None:
    code = "import sys; import aios.engine.opening; print(*sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own interpreter
    assert not {"httpx", "llama_cpp", "numpy", "aios.engine.scripted"} & set(shown.stdout.split())
