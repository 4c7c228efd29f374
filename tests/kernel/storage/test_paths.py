import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.errors import AccessDenied, AiosError, InvalidCall
from aios.kernel.storage.paths import (
    Reach,
    ancestors,
    file_path,
    is_within,
    parse,
    root_of,
)

HOME = "/agents/eve"
EVE = Reach(HOME)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", HOME),
        (".", HOME),
        ("a.md", f"{HOME}/a.md"),
        ("a//b/./c/", f"{HOME}/a/b/c"),
        ("/shared/x", "/shared/x"),
        ("...", f"{HOME}/..."),
        ("/", "/"),
        ("Ä/ü", f"{HOME}/Ä/ü"),
        (unicodedata.normalize("NFD", "Ä"), f"{HOME}/Ä"),
        ("日本", f"{HOME}/日本"),
    ],
)
def test_a_path_has_one_canonical_form(text: str, path: str) -> None:
    assert parse(text, HOME) == path
    assert parse(path, HOME) == path


UPS = (
    "..",
    "\uff0e\uff0e",
    "\u2025",
    ". .",
    "..\u200b",
    "\u2024\u2024",
    "%2e%2e",
    "..\\",
    "..\0",
    "\u202e..",
    ".\u00ad.",
    "....//..",
)
SLASHES = ("/", "\\", "\uff0f", "\u2044", "//", "/./")
TARGETS = ("agents/ann/key", "etc/passwd", "proc/self/environ", "dev/sda", "ann/key")
TRICKS = [
    f"{start}{slash.join([up] * depth)}{slash}{target}"
    for up, slash, target, start in itertools.product(
        UPS, SLASHES, TARGETS, ("", "/agents/eve/", "a/")
    )
    for depth in (1, 3)
] + [
    *(
        "/etc/passwd",
        "/proc/self/root",
        "//agents/ann/key",
        "/agents/ann",
        "/agents/eve/../ann/key",
    ),
    *(
        "/agents/eve\0/../ann",
        "/agents/Eve/key",
        "/agents/ev\u0435/key",
        "/agents/eve /key",
        "/agents",
    ),
    *(
        "/Agents/ann/key",
        "file:///etc/passwd/../..",
        "~ann/key/../../..",
        "/agents/eve-2/x",
        "/groups/x/y",
    ),
]


def test_there_are_enough_attempts() -> None:
    assert len(set(TRICKS)) >= 300


@pytest.mark.parametrize("is_write", [False, True])
def test_no_attempt_to_escape_succeeds(is_write: bool) -> None:
    """What is not refused is a plain name inside the caller's own folder."""
    n_refused = 0
    for trick in TRICKS:
        try:
            path = EVE.check(parse(trick, HOME), is_write=is_write)
        except AiosError:
            n_refused += 1
            continue
        assert path.startswith(f"{HOME}/"), trick
        assert not {"..", ".", ""} & set(path.split("/")[1:]), trick
    assert n_refused >= 300


@given(st.text(max_size=60))
def test_whatever_is_parsed_is_canonical_and_stays_so(text: str) -> None:
    try:
        path = parse(text, HOME)
    except InvalidCall:
        return
    parts = path.split("/")[1:]
    assert path == "/" or not {"", ".", ".."} & set(parts)
    assert "\0" not in path
    assert parse(path, "/agents/other") == path


def test_long_paths_are_refused() -> None:
    for text in ("x" * 256, "x/" * 65, "é" * 128, ("x" * 200 + "/") * 30):
        with pytest.raises(InvalidCall):
            parse(text, HOME)


def test_reach_is_the_own_folder_the_group_the_shared_one_and_what_was_shared() -> None:
    reach = Reach(HOME, "/groups/g", frozenset({"/agents/ann/r"}), frozenset({"/agents/ann/w"}))
    for path in (HOME, f"{HOME}/a", "/groups/g/a", "/shared/a", "/agents/ann/w/a"):
        assert reach.check(path, is_write=True) == path
    assert reach.check("/agents/ann/r/a", is_write=False)
    for path in ("/agents/ann/r/a", "/agents/ann", "/agents", "/", "/groups/gg", "/agents/evelyn"):
        with pytest.raises(AccessDenied):
            reach.check(path, is_write=True)
    assert reach.ways_from("/agents") == ["/agents/ann", "/agents/eve"]
    assert reach.ways_from("/agents/ann") == ["/agents/ann/r"]
    assert reach.ways_from("/agents/bob") == []
    assert Reach("/").may_write("/agents/ann/x")


def test_parts_of_paths() -> None:
    assert root_of("/agents/ann/a/b") == "/agents/ann"
    assert root_of("/shared/a/b") == "/shared"
    assert ancestors("/agents/ann/a/b") == ["/agents/ann/a", "/agents/ann", "/agents"]
    assert is_within("/a/b", "/a")
    assert not is_within("/ab", "/a")
    with pytest.raises(InvalidCall):
        file_path("/agents")
