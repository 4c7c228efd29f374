"""The generated pages say everything that the code says."""

from pathlib import Path
from typing import get_args

import pytest
from tests.scripts.loading import load_script

from aios.abi.every import AnyAnswer, AnyCall
from aios.configload import load
from aios.errors import AiosError, error_classes

gen = load_script("gen-docs")


def test_every_call_field_and_answer_is_on_the_page_of_calls() -> None:
    text = gen.calls_page()
    for call in get_args(AnyCall):
        section = text.split(f"\n## {call.__struct_config__.tag}\n")[1].split("\n## ")[0]
        for field in call.__struct_fields__:
            assert field == "deadline_s" or f"| `{field}` |" in section
    assert all(f"Answer `{answer.__name__}`" in text for answer in get_args(AnyAnswer))


def test_every_value_that_a_call_names_has_a_section() -> None:
    text = gen.calls_page()
    for name in ("Message", "Sampling", "ToolCall", "ProcessInfo", "State", "TokenLogprob"):
        assert f"### `{name}`" in text


def test_limits_and_defaults_are_told() -> None:
    text = gen.calls_page()
    assert "| `nice` | integer (≥ -20, ≤ 19) | `0` |" in text
    assert "| `status` | integer (≥ 0, ≤ 255) | `0` |" in text


def test_every_error_but_the_bases_base_is_on_the_page_of_errors() -> None:
    text = gen.errors_page()
    for code, cls in error_classes().items():
        row = f"| `{code}` | `{cls.__name__}` | {cls.http_status} |"
        assert cls is AiosError or text.count(row) == 1


def test_every_knob_is_on_the_page_of_the_configuration() -> None:
    text = gen.configuration_page()
    for setting in load(env={"HOME": "/nowhere"}).settings():
        assert f"`{setting.env}`" in text
        assert setting.name == "home" or setting.description in text


def test_a_page_that_was_changed_by_hand_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gen, "REFERENCE", tmp_path)
    assert gen.main([]) == 0
    assert gen.main(["--check"]) == 0
    (tmp_path / "errors.md").write_text("# Errors\n")
    assert gen.main(["--check"]) == 1
    assert "docs/reference/errors.md is not what the code says" in capsys.readouterr().out
