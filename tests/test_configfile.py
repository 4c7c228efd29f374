from pathlib import Path

import pytest

from aios.configfile import home_root
from aios.configload import load
from aios.errors import ConfigError


@pytest.mark.parametrize("file", ["", 'home = "/from/file"', 'home = ""', 'home = "~/mine"'])
@pytest.mark.parametrize("home", [None, "/from/env", "", "relative", "~/ours"])
def test_the_home_is_that_of_the_whole_configuration(
    tmp_path: Path, file: str, home: str | None
) -> None:
    (tmp_path / "config.toml").write_text(file)
    env = {"AIOS_CONFIG": str(tmp_path / "config.toml"), "HOME": str(tmp_path)}
    if home is not None:
        env["AIOS_HOME"] = home
    assert home_root(env) == load(env=env).home.root


def test_without_a_file_it_is_the_default(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    assert home_root(env) == load(env=env).home.root == tmp_path / ".local/share/aios"


@pytest.mark.parametrize("file", ["home = 7", "home = ", 'home = ["a"]'])
def test_a_file_that_names_none_is_refused(tmp_path: Path, file: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(file)
    with pytest.raises(ConfigError, match=r"config\.toml"):
        home_root({"AIOS_CONFIG": str(path)})


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        home_root({"AIOS_CONFIG": str(tmp_path / "none.toml")})
