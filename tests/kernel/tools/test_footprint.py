import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.tools.footprint import MAX_KEYS, Footprint, Key, expand, footprint, key_of, overlap

HOME = "/agents/ann"


@pytest.mark.parametrize(
    ("template", "arguments", "keys"),
    [
        ("/shared/{name}", {"name": "a/b.txt"}, [("", "shared", "a", "b.txt")]),
        ("/shared/{name}.txt", {"name": "a"}, [("", "shared", "a.txt")]),
        ("~/{path}", {"path": "plan.md"}, [("", "agents", "ann", "plan.md")]),
        ("~/{path}", {"path": "/shared/x"}, [("", "shared", "x")]),
        ("~/{path}", {"path": "../bob/x"}, [("", "agents", "bob", "x")]),
        ("~/{path}", {}, [("", "agents", "ann")]),
        ("/shared/{name}/x", {}, [("", "shared")]),
        ("db/{table}", {"table": "users"}, [("db", "users")]),
        ("db/{table}", {"table": 7}, [("db", "7")]),
        ("{table}", {}, [()]),
        ("/", {}, [("",)]),
        ("db/{tables}", {"tables": ["a", "b"]}, [("db", "a"), ("db", "b")]),
        ("db/{tables}", {"tables": []}, [("db",)]),
        ("db/{tables}", {"tables": list(range(MAX_KEYS + 1))}, [("db",)]),
        ("/{a}/{b}", {"a": ["x", "y"], "b": "z"}, [("", "x", "z"), ("", "y", "z")]),
    ],
)
def test_a_template_names_what_the_arguments_say(
    template: str, arguments: dict[str, object], keys: list[Key]
) -> None:
    assert expand(template, arguments, HOME) == keys


def test_look_alikes_are_one_path() -> None:
    assert key_of("/shared/\uff41") == key_of("/shared/a")
    assert key_of("//shared//x/./y/") == ("", "shared", "x", "y")
    assert key_of("x", "/") == ("", "x")


keys = st.lists(st.sampled_from(["", "a", "b"]), max_size=3).map(tuple)
footprints = st.builds(Footprint, st.frozensets(keys, max_size=3), st.frozensets(keys, max_size=3))


@given(keys, keys)
def test_a_key_covers_what_is_below_it_and_overlap_is_mutual(one: Key, below: Key) -> None:
    assert overlap(one, one + below)
    assert overlap(one, below) == overlap(below, one)


@given(footprints, footprints)
def test_conflict_is_mutual_and_readers_never_conflict(one: Footprint, other: Footprint) -> None:
    assert one.conflicts(other) == other.conflicts(one)
    assert not Footprint(reads=one.reads).conflicts(Footprint(reads=other.reads))


def test_reads_and_writes_are_told_apart() -> None:
    found = footprint(("/shared",), ("~/{path}",), {"path": "x"}, HOME)
    assert found == Footprint(frozenset({("", "shared")}), frozenset({("", "agents", "ann", "x")}))
