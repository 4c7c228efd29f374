"""Durations as people write them."""

import click
import pytest
from click.testing import CliRunner

from aios.cli.durations import Duration, Seconds, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("30m", 1_800),
        ("1h30m", 5_400),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("36500d", 3_153_600_000),
    ],
)
def test_a_duration_is_read_as_it_is_written(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "90", "m", "-1h", "1.5h", "0s", "1h\n", " 1h", "1 h", "1y", "1H", "٣m", "9" * 30 + "w"],
)
def test_what_is_none_is_refused_with_how_they_are_written(text: str) -> None:
    with pytest.raises(ValueError, match="say 45s, 30m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36501d", "999999999999w"])
def test_a_duration_over_a_hundred_years_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="between 1 s and 100 years"):
        parse_duration(text)


def test_an_option_takes_one() -> None:
    @click.command()
    @click.option("--for", "lifetime_s", type=Duration(), default="1h")
    def command(lifetime_s: float) -> None:
        click.echo(lifetime_s)

    assert CliRunner().invoke(command).output == "3600.0\n"
    assert CliRunner().invoke(command, ["--for", "2w"]).output == "1209600.0\n"
    refused = CliRunner().invoke(command, ["--for", "long"])
    assert refused.exit_code == 2
    assert "'long' is no duration" in refused.output


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("60", "60.0"),
        ("0.5", "0.5"),
        ("5m", "300.0"),
        ("7d", "604800.0"),
        ("0", "is not between 0 and 7 days"),
        ("8d", "is not between 0 and 7 days"),
        ("-1", "say 60, 0.5, 5m"),
        ("1e3", "say 60, 0.5, 5m"),
        ("nan", "say 60, 0.5, 5m"),
        ("soon", "say 60, 0.5, 5m"),
    ],
)
def test_how_long_to_wait_is_seconds_or_a_duration(text: str, told: str) -> None:
    @click.command()
    @click.option("--wait", "wait_s", type=Seconds())
    def command(wait_s: float) -> None:
        click.echo(wait_s)

    assert told in CliRunner().invoke(command, ["--wait", text]).output
