import re
from difflib import unified_diff
from random import Random

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.conftest import OpenKernel

from aios.errors import Unsupported
from aios.kernel.storage.comparing import Side, compare
from aios.sdk.files import Files

LINES = st.sampled_from([3, 60]).flatmap(
    lambda most: st.lists(st.integers(0, most).map("{}\n".format), max_size=40)
)
MIDDLE = ["c\n", "c\n", "d\n", "d\n"]
WORDS = [f"{first}{second}\n" for first in "abcdefghijk" for second in "0123456789"]


def sides(before: list[str], after: list[str]) -> tuple[Side, Side]:
    old, new = ("".join(lines).encode() for lines in (before, after))
    return Side("/shared/a", 1, old), Side("/shared/a", 2, new)


def repeating(seed: int) -> list[str]:
    """Lines of which each is there too often to be told from the others, and not often enough to be left out."""
    return Random(seed).choices(WORDS, k=60_000)  # noqa: S311 - a text, no secret


def patched(before: list[str], diff: str) -> list[str]:
    """What a diff makes of a text; fails if it does not fit."""
    after, at = list[str](), 0
    for line in diff.splitlines(keepends=True)[2:]:
        if found := re.match(r"@@ -(\d+)(,0)?", line):
            start = int(found[1]) - (not found[2])
            after += before[at:start]
            at = start
            continue
        if line[0] in " -":
            assert before[at] == line[1:]
            at += 1
        if line[0] in " +":
            after.append(line[1:])
    return after + before[at:]


@given(LINES, LINES, st.integers(0, 200))
def test_a_diff_makes_the_new_text_of_the_old_whatever_it_may_cost(
    before: list[str], after: list[str], max_steps: int
) -> None:
    diff = compare(*sides(before, after), max_steps=max_steps)
    assert patched(before, diff) == after
    assert (diff == "") == (before == after)


@given(LINES, LINES)
def test_texts_that_cost_little_are_compared_as_difflib_does(
    before: list[str], after: list[str]
) -> None:
    names = ("/shared/a (version 1)", "/shared/a (version 2)")
    assert compare(*sides(before, after)) == "".join(unified_diff(before, after, *names))


def test_the_equal_beginning_and_end_of_what_costs_too_much_are_left_out() -> None:
    before, after = (["a\n"] * 9 + [*middle] + ["b\n"] * 9 for middle in (MIDDLE, MIDDLE[::-1]))
    diff = compare(*sides(before, after), max_steps=0).splitlines()
    assert diff[2:] == [
        "@@ -7,10 +7,10 @@",
        *[" a"] * 3,
        *("-c", "-c", "-d", "-d"),
        *("+d", "+d", "+c", "+c"),
        *[" b"] * 3,
    ]


def test_what_costs_too_much_is_told_apart_by_the_lines_that_are_there_once() -> None:
    before = [f"{number}\n" for number in range(100)]
    after = [line if number % 2 else "\n" for number, line in enumerate(before)]
    assert compare(*sides(before, after), max_steps=0) == compare(*sides(before, after))
    moved = before[60:70] + before[:60] + before[70:]
    assert compare(*sides(before, moved), max_steps=0).count("\n-") == 10


def test_a_long_log_whose_lines_differ_is_compared_exactly() -> None:
    before = [f"{number} {number % 7}\n" for number in range(100_000)]
    after = before.copy()
    for at in range(50, 100_000, 997):
        after[at] = "changed\n"
    diff = compare(*sides(before, after))
    assert patched(before, diff) == after
    assert diff.count("\n-") == diff.count("\n+changed") == len(range(50, 100_000, 997))


def test_texts_whose_lines_repeat_are_compared_in_a_bounded_time() -> None:
    before, after = repeating(1), repeating(2)
    assert patched(before, compare(*sides(before, after))) == after


def test_what_is_no_text_is_not_compared() -> None:
    with pytest.raises(Unsupported, match="no text in UTF-8"):
        compare(Side("/shared/a", 1, b"a"), Side("/shared/a", 2, b"\xff"))


@pytest.mark.anyio
async def test_who_compares_what_repeats_keeps_nobody_from_reading(booted: OpenKernel) -> None:
    async with booted() as kernel:
        files = Files(kernel.init_gate())
        for seed in (1, 2):
            await files.write("/shared/a", "".join(repeating(seed)))
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(files.diff, "/shared/a")
                for _ in range(20):
                    await checkpoint()
                assert [each.path for each in await files.list("/shared")] == ["/shared/a"]
                tasks.cancel_scope.cancel()
