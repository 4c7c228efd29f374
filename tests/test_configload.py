from pathlib import Path

import pytest

from aios.config import Config
from aios.configload import Loaded, load, unknown_variables
from aios.errors import ConfigError


def loaded(tmp_path: Path, text: str, **env: str) -> Loaded:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return load(env={"HOME": str(tmp_path), **env}, file=file)


def test_each_table_of_engines_is_one_more_engine(tmp_path: Path) -> None:
    told = loaded(
        tmp_path,
        """
        [engine]
        fallback = ["cloud"]
        [engines.cloud]
        base_url = "http://localhost:9/v1"
        aliases = ["large", "gpt"]
        priority = 3
        """,
    )
    engines = told.config.all_engines()
    assert list(engines) == ["local", "cloud"]
    assert engines["local"].fallback == ("cloud",)
    assert engines["cloud"].aliases == ("large", "gpt")
    assert engines["cloud"].n_slots == engines["local"].n_slots, "the defaults are the same"
    shown = {row.name: row for row in told.settings()}
    assert shown["engines.cloud.priority"].value == 3
    assert shown["engines.cloud.priority"].source.startswith("file ")
    assert shown["engines.cloud.n_slots"].source == "default"


def test_names_in_the_environment_are_separated_by_commas(tmp_path: Path) -> None:
    told = loaded(tmp_path, "", AIOS_ENGINE_ALIASES="small, tiny,")
    assert told.config.engine.aliases == ("small", "tiny")


def test_knobs_that_count_bytes_take_sizes_with_units(tmp_path: Path) -> None:
    told = loaded(tmp_path, '[storage]\nquota_bytes = "1.5GB"\n', AIOS_MEMORY_BLOCK_BYTES="2 MiB")
    assert told.config.storage.quota_bytes == 1_500_000_000
    assert told.config.memory.block_bytes == 2 << 20
    for size in ("much", "2Mb", "-1"):
        with pytest.raises(
            ConfigError, match=r"`memory\.block_bytes` from environment.*: say 4096"
        ):
            loaded(tmp_path, "", AIOS_MEMORY_BLOCK_BYTES=size)


def test_each_knob_of_each_section_can_be_set_and_is_shown(tmp_path: Path) -> None:
    told = loaded(tmp_path, "[approvals]\ntimeout_s = 20\n", AIOS_APPROVALS_MAX_OPEN="2")
    assert (told.config.approvals.timeout_s, told.config.approvals.max_open) == (20.0, 2)
    shown = {row.name.partition(".")[0] for row in told.settings()}
    assert shown | {"engines"} == set(Config.__struct_fields__)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[engines.cloud]\nspeed = 3", r"unknown knob `engines\.cloud\.speed`"),
        ("[engines.cloud]\nn_slots = 0", r"`engines\.cloud\.n_slots` from file"),
        ("[engines.local]\nn_slots = 1", r"`engines\.local` .* is no table of an engine"),
        ('[engines."a b"]\nn_slots = 1', "is no table of an engine"),
        ("[engines]\nn_slots = 1", r"`engines\.n_slots` .* is no table of an engine"),
        ('engines = "all"', "`engines` .* stands outside a section"),
        ('[engine]\nfallback = ["gone"]', r"`engine\.fallback` names no other engine: 'gone'"),
        ('[engines.b]\nfallback = ["b"]', r"`engines\.b\.fallback` names no other engine"),
        ('[engine]\naliases = ["b"]\n[engines.b]', r"`engine\.aliases` has the engine 'b'"),
        ('[engine]\naliases = ["b"]\n[engines.b]\nkind = "none"', "has the engine 'b'"),
    ],
)
def test_a_wrong_table_is_refused_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        loaded(tmp_path, text)


def test_a_knob_that_is_nearly_one_is_answered_with_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, "[engine]\nn_slotz = 3")
    assert "`engine.n_slots`" in caught.value.hint


def test_what_a_knob_is_for_is_told_with_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a whole number") as caught:
        loaded(tmp_path, "", AIOS_ENGINE_N_SLOTS="many")
    assert "generations at once" in caught.value.hint


def test_values_that_are_no_utf8_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`engine\.model` from environment"):
        loaded(tmp_path, "", AIOS_ENGINE_MODEL="\udcff")


def test_variables_that_nobody_reads_are_found_with_the_one_that_was_meant() -> None:
    env = {
        "AIOS_SEVER_PORT": "1",
        "AIOS_QQ": "",
        "AIOS_URL": "x",
        "AIOS_TEST_SEEDS": "3",
        "HOME": "/",
    }
    assert unknown_variables(env) == {"AIOS_QQ": "", "AIOS_SEVER_PORT": "AIOS_SERVER_PORT"}
    assert not unknown_variables(
        {setting.env: "" for setting in load(env={}).settings() if setting.env}
    )
