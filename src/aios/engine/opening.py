"""From configuration to an engine, not yet started."""

import os
from importlib.util import find_spec
from pathlib import Path

from aios.config import DEFAULT_MODEL, EngineConfig, Home
from aios.engine.base import Engine, OpenPages
from aios.engine.remote.governor import Governors
from aios.errors import ConfigError, EngineUnavailable

LOCAL_PACKAGES = ("llama_cpp", "llguidance", "jinja2", "numpy")


def engine_kind(config: EngineConfig) -> str:
    """The kind of engine that `auto` stands for, else the configured one."""
    if config.kind != "auto":
        return config.kind
    return "openai" if config.base_url else "llama"


def open_engine(
    name: str,
    config: EngineConfig,
    home: Home,
    *,
    governors: Governors | None = None,
    open_pages: OpenPages | None = None,
) -> Engine:
    """Make the engine that the configuration asks for; `start` it before use, `aclose` it after.

    The key of a remote endpoint is read from the environment variable that `api_key_env` names. Who opens several engines
    gives them the same `governors`, so that those with one address and key keep to one rate.

    Raises:
        ConfigError: The configuration asks for no engine, or lacks what its kind needs.
        EngineUnavailable: The packages of the embedded engine are not installed.
        ModelMissing: The embedded engine's model file is not there.
    """
    match engine_kind(config):
        case "llama":
            return _open_llama(config, home, open_pages)
        case "openai":
            return _open_openai(name, config, governors)
        case "scripted":
            return _open_scripted(config)
        case kind:
            raise ConfigError(
                f"engine {name} is of kind `{kind}`, which runs no model",
                hint="set `engine.kind` to llama, openai or scripted",
            )


def _open_llama(config: EngineConfig, home: Home, open_pages: OpenPages | None) -> Engine:
    missing = [package for package in LOCAL_PACKAGES if find_spec(package) is None]
    if missing:
        raise EngineUnavailable(
            f"the embedded engine needs packages that are not installed: {', '.join(missing)}",
            hint="pip install 'aios-kernel[local]'",
        )
    from aios.engine.models import find_model  # noqa: PLC0415 - only the embedded engine has model files

    path = find_model(config.model, home)
    from aios.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - an optional extra; costs 0.2 s

    return LlamaEngine(path, name=model_name(config), config=config, open_pages=open_pages)


def model_name(config: EngineConfig) -> str:
    """What the embedded engine's model is called: by its name, not by the place of its file."""
    if not config.model:
        return DEFAULT_MODEL
    return Path(config.model).stem if config.model.endswith(".gguf") else config.model


def _open_openai(name: str, config: EngineConfig, governors: Governors | None) -> Engine:
    if not config.base_url:
        raise ConfigError(
            "`engine.kind` is openai, but there is no `engine.base_url`",
            hint="set it to the endpoint, such as http://localhost:8080/v1",
        )
    from aios.engine.remote.openai import OpenAIEngine  # noqa: PLC0415 - httpx costs 0.1 s at start

    api_key = os.environ.get(config.api_key_env) if config.api_key_env else None
    return OpenAIEngine(name=name, config=config, api_key=api_key, governors=governors)


def _open_scripted(config: EngineConfig) -> Engine:
    from aios.engine.scripted import ScriptedEngine  # noqa: PLC0415 - nobody pays for it who does not ask for it

    return ScriptedEngine(
        model=config.model or "scripted",
        n_slots=config.n_slots,
        window_tokens=config.window_tokens or 8192,
    )
