from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import pytest
from click.testing import CliRunner, Result

from aios.cli.when import When, local_zone, moment, shown, when_options

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC).timestamp()
BERLIN = "Europe/Berlin"  # one hour before UTC in winter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+90s", "2026-11-26T12:01:30"),
        ("+1d2h30m", "2026-11-27T14:30:00"),
        ("+1w", "2026-12-03T12:00:00"),
        ("13:30", "2026-11-26T12:30:00"),
        ("12:59", "2026-11-27T11:59:00"),
        ("2026-12-24T18:00", "2026-12-24T17:00:00"),
        ("2026-12-24T18:00+05:00", "2026-12-24T13:00:00"),
        ("2026-12-24", "2026-12-23T23:00:00"),
    ],
)
def test_a_moment_is_read_in_its_zone(text: str, expected: str) -> None:
    at = datetime.fromtimestamp(moment(text, BERLIN, NOW), UTC)
    assert at.isoformat() == f"{expected}+00:00"


def test_a_time_that_comes_twice_is_the_first_and_one_that_never_comes_is_behind_the_gap() -> None:
    twice = moment("2027-10-31T02:30", BERLIN, NOW)
    assert (
        datetime.fromtimestamp(twice, ZoneInfo(BERLIN)).isoformat() == "2027-10-31T02:30:00+02:00"
    )
    never = moment("2027-03-28T02:30", BERLIN, NOW)
    assert (
        datetime.fromtimestamp(never, ZoneInfo(BERLIN)).isoformat() == "2027-03-28T03:30:00+02:00"
    )


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("tomorrow", BERLIN),
        ("25:00", BERLIN),
        ("2020-01-01", BERLIN),
        ("13:30", "Mars/Base"),
        ("+1m", "Mars/Base"),
        ("+", "UTC"),
        ("+999999999999d", "UTC"),
    ],
)
def test_what_is_no_moment_is_refused(text: str, zone: str) -> None:
    with pytest.raises(click.UsageError):
        moment(text, zone, NOW)


def test_a_moment_and_a_line_of_cron_exclude_each_other() -> None:
    with pytest.raises(click.UsageError, match="exclude"):
        When("+1m", "* * * * *", "UTC", "once").at_unix_s(NOW)
    assert When(None, "* * * * *", "UTC", "once").at_unix_s(NOW) is None


def _starts(*options: str) -> Result:
    """Run a command that takes a time and says what it was told."""

    @click.command()
    @when_options
    def start(when: When | None) -> None:
        click.echo("now" if when is None else f"{when.at}, {when.every}, {when.missed}")
        if when is not None:
            when.at_unix_s(NOW)

    return CliRunner().invoke(start, options)


def test_without_a_time_a_program_starts_now() -> None:
    assert _starts().output == "now\n"
    assert _starts("--every", "@daily").output == "None, @daily, once\n"
    assert _starts("--at", "+1m", "--missed", "all").output == "+1m, None, all\n"


@pytest.mark.parametrize("option", ["--at", "--every"])
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_time_is_refused_and_is_not_now(option: str, text: str) -> None:
    result = _starts(option, text)
    assert result.exit_code == 2
    assert "now" not in result.output


@pytest.mark.parametrize("option", [("--missed", "skip"), ("--zone", "UTC")])
def test_what_only_a_timer_has_needs_a_time(option: tuple[str, str]) -> None:
    result = _starts(*option)
    assert result.exit_code == 2
    assert "--at or --every" in result.output


def test_the_zone_is_that_of_the_environment_then_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TZ", ":America/New_York")
    assert local_zone() == "America/New_York"
    assert shown(NOW) == "2026-11-26 07:00:00"
    assert shown(NOW, "Asia/Tokyo") == "2026-11-26 21:00:00"
    assert shown(NOW, "Mars/Base") == shown(NOW)
    (tmp_path / "zoneinfo" / "Asia").mkdir(parents=True)
    (tmp_path / "zoneinfo" / "Asia" / "Tokyo").touch()
    (tmp_path / "localtime").symlink_to(tmp_path / "zoneinfo" / "Asia" / "Tokyo")
    monkeypatch.setattr("aios.cli.when.LOCAL_TIME", tmp_path / "localtime")
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
    assert local_zone() == "Asia/Tokyo"
    monkeypatch.setattr("aios.cli.when.LOCAL_TIME", tmp_path / "none")
    assert local_zone() == "UTC"
