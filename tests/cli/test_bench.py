"""`aios bench` hands on to the benches."""

from tests.cli.conftest import Aios


def test_list_shows_the_rows_without_measuring(aios: Aios) -> None:
    ran = aios("bench", "list")
    assert ran.code == 0
    assert "aios-ps" in ran.out
    rows = aios("bench", "list", "--json").rows()
    assert {"bench", "row", "value", "unit", "baseline", "ratio", "bar", "ok"} <= set(rows[0])


def test_an_unknown_bench_is_not_found(aios: Aios) -> None:
    ran = aios("bench", "speed", "--json")
    assert ran.code == 4
    assert ran.error()["code"] == "not_found"
