"""The configuration file: where it is, and what it says before anybody checks it."""

from collections.abc import Mapping
from pathlib import Path

from aios.errors import ConfigError


def file_path(env: Mapping[str, str]) -> Path:
    """Where the configuration file is, or would be."""
    if "AIOS_CONFIG" in env:
        return Path(env["AIOS_CONFIG"]).expanduser()
    base = env.get("XDG_CONFIG_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".config")
    return Path(base) / "aios" / "config.toml"


def home_named(name: str, env: Mapping[str, str]) -> Path:
    """The home that a configuration names; where it names none, the default one."""
    if name:
        return Path(name).expanduser().absolute()
    base = env.get("XDG_DATA_HOME") or str(
        Path(env.get("HOME", "~")).expanduser() / ".local" / "share"
    )
    return (Path(base) / "aios").absolute()


def home_root(env: Mapping[str, str]) -> Path:
    """Where the state of the kernel is, for who needs to know nothing else of the configuration.

    Raises:
        ConfigError: The file is missing, unreadable or no TOML, or its `home` is no text.
    """
    home: object = env.get("AIOS_HOME")
    if home is None:
        path = file_path(env)
        home = read_toml(path, must_exist="AIOS_CONFIG" in env).get("home", "")
        if not isinstance(home, str):
            raise ConfigError(f"`home` in {path} must be text", hint='say home = "/a/folder"')
    assert isinstance(home, str)
    return home_named(home, env)


def read_toml(path: Path, *, must_exist: bool) -> dict[str, object]:
    """What the file says; nothing if it is not there and need not be.

    Raises:
        ConfigError: It is missing, unreadable or no TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        import tomllib  # noqa: PLC0415 - start-up time: most have no such file

        return tomllib.loads(text)
    except FileNotFoundError as error:
        if must_exist:
            raise ConfigError(
                f"no configuration file at {path}", hint="unset AIOS_CONFIG or make the file"
            ) from error
        return {}
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", hint="see docs/guides/configuration.md"
        ) from error
