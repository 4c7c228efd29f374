import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import msgspec
import pytest
from examples.digest.editor import main as editor
from examples.digest.reader import main as reader
from examples.digest.survey import is_text, objection_to, survey
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.test_resume import daemon, owner
from tests.sdk.serving import served

from aios.abi.recovery import Restart
from aios.abi.types import Exit, Pid, ProcessInfo
from aios.engine.base import Job
from aios.engine.script import Reply, Script
from aios.kernel.sandbox.scratch import scratch_folder
from aios.sdk import blocking
from aios.sdk.client import Client, connect

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROSE = "The kernel schedules agents. Each agent is a process. " * 8


@dataclass
class Ran:
    """How a program ended."""

    end: Exit
    processes: tuple[ProcessInfo, ...]
    errors: list[str]


@asynccontextmanager
async def runner(script: Script) -> AsyncIterator["Runner"]:
    with anyio.fail_after(60):
        async with served(script) as kernel:
            async with connect(kernel.urls[0], kernel.owner_token) as client:
                yield Runner(client)


@dataclass
class Runner:
    """A kernel that runs example programs."""

    client: Client

    async def run(self, program: str, *args: str | Path) -> Ran:
        """Run one to its end."""
        paths = [arg for arg in args if isinstance(arg, Path)]
        named = [next(each for each in (path, *path.parents) if each.is_dir()) for path in paths]
        child = await self.client.spawn(EXAMPLES / program, *map(str, args), write=named)
        end = (await self.client.wait(child.pid)).exit
        rows = await self.client.ps(include_ended=True)
        return Ran(end, rows, await self.errors_of(child.pid))

    async def errors_of(self, pid: Pid) -> list[str]:
        """What it wrote to stderr."""
        async with self.client.logs(pid) as lines:
            return [line.text async for line in lines if line.stream == "err"]


def folder_of_all_sorts(root: Path) -> Path:
    """Two files that can be read, and one of each sort that cannot."""
    folder = root / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.md").write_text(f"# About agents\n\n{PROSE}")
    (folder / "deep" / "b | c.txt").write_text(PROSE * 50)
    (folder / "empty.md").write_text(" \n")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    (folder / "latin1.txt").write_bytes("für".encode("latin-1") * 20)
    (folder / "loop.md").symlink_to(folder / "loop.md")
    (folder / "deep" / "up").symlink_to(folder)
    (folder / ".hidden").write_text(PROSE)
    (folder / "report.md").write_text("an old report")
    os.mkfifo(folder / "pipe")
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.md")).write_text(PROSE)
    return folder


@pytest.mark.anyio
async def test_a_folder_becomes_a_report(tmp_path: Path) -> None:
    folder = folder_of_all_sorts(tmp_path)
    out = folder / "report.md"
    async with runner(Script()) as kernel:
        ran = await kernel.run(
            "digest", "--dir", folder, "--out", out, "--max-bytes", "4000", "--compare", "--json"
        )
    assert ran.errors == []
    assert ran.end.status == 0
    summary = msgspec.json.decode(ran.end.result)
    assert (summary["n_files"], summary["n_skipped"]) == (2, 6)
    assert summary["prompt_tokens"] > 100
    assert summary["completion_tokens"] > 20
    assert summary["one_by_one_s"] > 0
    assert summary["n_compared"] == 2
    assert summary["report"] == str(out)
    report = out.read_text()
    assert "an old report" not in report
    assert re.search(r"\| a\.md \| \w+ \| agents, kernel, schedules \|", report)
    assert "| deep/b \\| c.txt |" in report
    assert "`deep/b \\| c.txt` (only its head was read)" in report
    skipped = dict(re.findall(r"^\| (\S+) \| ([a-zA-Z][^|]*) \|$", report, re.MULTILINE))
    assert skipped == {
        "file": "reason",
        "empty.md": "empty",
        "picture.png": "binary",
        "latin1.txt": "binary",
        "loop.md": "a symbolic link, not followed",
        "pipe": "not a regular file",
        "bad?.md": "its name is not UTF-8",
    }
    names = sorted(row.name for row in ran.processes)
    assert names[:3] == ["digest", "editor", "init"]
    assert [name[:8] for name in names[3:]] == ["reader-a", "reader-a", "reader-b", "reader-b"]
    assert {row.exit.status for row in ran.processes if row.exit} == {0}
    assert not list(folder.glob(".report*")), "no half-written report is left behind"


@pytest.mark.anyio
async def test_a_second_run_reads_only_what_has_changed_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.md").write_text(f"# About {name * 3}\n\n{PROSE} {name}")
    options = ("--dir", folder, "--out", tmp_path / "report.md")
    async with runner(Script()) as kernel:
        first = await kernel.run("digest", *options)
        assert "known" not in first.end.result
        report = (tmp_path / "report.md").read_text()
        notes = [note async for note in kernel.client.memory.notes(tags=["digest"])]
        assert len(notes) == 3
        assert {note.text.partition(":")[0] for note in notes} == {
            "About aaa",
            "About bbb",
            "About ccc",
        }
        again = await kernel.run("digest", *options, "--compare")
        assert "3 known from an earlier run" in again.end.result
        assert "nothing was read" in again.end.result
        assert (tmp_path / "report.md").read_text() == report
        (folder / "b.md").write_text(f"# About more\n\n{PROSE}")
        (folder / "a.md").rename(folder / "moved.md")
        third = await kernel.run("digest", *options, "--json")
        summary = msgspec.json.decode(third.end.result)
        assert (summary["n_files"], summary["n_known"]) == (3, 2)
        readers = [row.name for row in third.processes if row.name.startswith("reader")]
        assert sorted(readers) == ["reader-a", "reader-b", "reader-b", "reader-c"]
        fresh = await kernel.run("digest", *options, "--json", "--fresh")
        assert msgspec.json.decode(fresh.end.result)["n_known"] == 0
        notes = [note async for note in kernel.client.memory.notes(tags=["digest"])]
        assert len(notes) == 4, "a digest that is made anew takes the place of the old one"


@pytest.mark.parametrize("stage", ["readers", "editor"])
def test_a_team_whose_kernel_is_killed_goes_on_and_its_report_is_right(
    tmp_path: Path, stage: str
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.md").write_text(f"# About {number}\n\n{PROSE}")
    out, args = tmp_path / "report.md", ["--dir", str(folder), "--parallel", "2", "--json"]

    def begun(client: blocking.Client) -> bool:
        """The first reader is done, and others are at work; or the editor is."""
        rows = client.ps(include_ended=True)
        named = [row for row in rows if row.name.startswith(stage.removesuffix("s"))]
        return any(row.exit is not None for row in named) or (stage == "editor" and bool(named))

    with scratch_folder("d") as home:
        with daemon(home) as process:
            with owner(home) as client:
                digest = client.spawn(
                    EXAMPLES / "digest",
                    *(*args, "--out", str(out)),
                    write=[tmp_path],
                    restart=Restart("on-failure"),
                ).pid
                while not begun(client):
                    time.sleep(0.005)  # noqa: TID251 - another process is waited for
            process.kill()
        with daemon(home), owner(home) as client:
            (row,) = (row for row in client.ps(include_ended=True) if row.pid == digest)
            was_over = row.exit is not None  # on a slow machine the kill may come too late
            end = client.wait(digest).exit
            with client.logs(digest) as lines:
                told = [line.text for line in lines]
            rows = client.ps(include_ended=True)
    assert end.status == 0, told
    summary = msgspec.json.decode(end.result)
    assert (summary["n_files"], summary["n_skipped"]) == (4, 0)
    report = out.read_text()
    assert all(f"| {number}.md |" in report for number in range(4))
    # One whose spawn was cut off is spawned again; the first of them never ran.
    ran = sorted(row.name[:6] for row in rows if row.exit is not None and row.exit.status == 0)
    assert ran == ["digest", "editor", *["reader"] * 4], "what was done is not done again"
    ends = {row.exit.status for row in rows if row.exit is not None}
    assert ends <= {0, 137}, "no process failed by itself"
    assert was_over or any("is where it was" in line for line in told)
    assert not list(tmp_path.glob(".digest*")), "what the editor was given is not left behind"


@pytest.mark.anyio
async def test_readers_run_side_by_side_and_no_more_than_asked(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text(f"{PROSE} {i}")
    async with runner(Script(token_delay_s=0.002)) as kernel:
        out = tmp_path / "report.md"
        ran = await kernel.run("digest", "--dir", tmp_path, "--out", out, "--parallel", "3")
    assert ran.end.status == 0
    assert ran.end.result.splitlines()[0].startswith("6 files, none skipped")
    spans = [
        (r.started_unix_s, r.ended_unix_s or 0) for r in ran.processes if r.name[:6] == "reader"
    ]
    assert len(spans) == 6
    at_once = [sum(a <= start < b for a, b in spans) for start, _ in spans]
    assert 2 <= max(at_once) <= 3


@pytest.mark.anyio
async def test_files_over_the_limit_are_named(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text(PROSE)
    async with runner(Script()) as kernel:
        out = tmp_path / "sub" / "report.md"
        ran = await kernel.run("digest", "--dir", tmp_path, "--out", out, "--limit", "2")
    assert ran.end.status == 0
    assert "| 2.txt | over the limit of 2 files |" in out.read_text()


@pytest.mark.anyio
async def test_a_reader_that_fails_costs_its_own_file_only(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("poison " * 30)
    (tmp_path / "good.txt").write_text(PROSE)

    def answer(job: Job) -> str | Reply:
        if "poison" in str(job.prompt):
            return Reply("", fail_after_tokens=0)
        return '{"kind":"story"}' if job.constraint else "It is about agents. They run."

    async with runner(Script(answer=answer)) as kernel:
        out = tmp_path / "report.md"
        ran = await kernel.run("digest", "--dir", tmp_path, "--out", out)
    assert ran.end.status == 0
    report = out.read_text()
    assert "| good.txt | story |" in report
    assert re.search(r"\| bad\.txt \| its reader ended with status 1: .*EngineFailed", report)


@pytest.mark.anyio
async def test_when_no_reader_succeeds_the_run_fails_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(PROSE)
    async with runner(Script(fail_after_tokens=0)) as kernel:
        out = tmp_path / "report.md"
        ran = await kernel.run("digest", "--dir", tmp_path, "--out", out)
    assert ran.end.status == 1
    assert "no file could be digested; a.txt: " in ran.errors[-1]
    assert "EngineFailed" in ran.errors[-1]
    assert not out.exists()


@pytest.mark.anyio
@pytest.mark.parametrize("out", ["/tmp/nobody-sees-it.md", "/proc/report.md"])  # noqa: S108 - that is the point
async def test_a_report_that_could_not_be_written_is_refused_before_the_work(
    tmp_path: Path, out: str
) -> None:
    async with runner(Script()) as run:
        ran = await run.run("digest", "--dir", folder_of_all_sorts(tmp_path), "--out", out)
    assert ran.end.status == 1
    assert "--write FOLDER" in "".join(ran.errors)
    assert len(ran.processes) == 2, "no reader was started"


@pytest.mark.anyio
async def test_a_folder_without_text_gives_an_empty_report(tmp_path: Path) -> None:
    async with runner(Script()) as kernel:
        out = tmp_path / "report.md"
        ran = await kernel.run("digest", "--dir", tmp_path, "--out", out)
        missing = await kernel.run("digest", "--dir", tmp_path / "nowhere")
    assert ran.end.status == 0
    assert "There was nothing to read." in out.read_text()
    assert missing.end.status == 1
    assert "is not a folder" in missing.errors[-1]


@pytest.mark.anyio
async def test_the_smallest_program_answers_its_task() -> None:
    async with runner(Script(replies=("Hello!",))) as kernel:
        ran = await kernel.run("hello", "--task", "Say hello.")
    assert ran.end == Exit(0, "", "Hello!")


def test_lists_tables_code_and_markup_are_no_prose() -> None:
    text = """---
title: x
---
# Head *one*

A [link](http://x) and `code` and **bold** stay here, and snake_case_words do too. This is a second sentence.
It goes on, so that there is enough prose to leave out the lists that come next; that takes two hundred characters.

- an item
  that goes on
1. another

| a | b |
|---|---|

```python
code = 1
```
<!-- a comment -->
The end.
"""
    assert reader.prose_of(text) == (
        "A link and code and bold stay here, and snake_case_words do too. This is a second sentence. "
        "It goes on, so that there is enough prose to leave out the lists that come next; that takes two hundred "
        "characters. The end."
    )
    assert reader.title_of(text, "/x/y.md") == "Head one"


def test_where_there_is_nothing_but_lists_they_are_read() -> None:
    assert reader.prose_of("# T\n\n- one\n- two.\n") == "one. two."
    assert reader.prose_of("| a | b |\n") == "| a | b |"
    assert reader.title_of("\n\n--\nFirst line\n", "/x/y.md") == "First line"
    assert reader.title_of("", "/x/y.md") == "y.md"


def test_a_summary_is_cut_after_its_last_whole_sentence() -> None:
    cut = reader.whole_sentences
    assert cut("One is 1.5 long. Two!  One is 1.5 long. Three? Four. Fi") == (
        "One is 1.5 long. Two! Three?"
    )
    assert cut("never ends") == ""
    assert reader.first_sentences("Short.", 100) == "Short."
    assert reader.first_sentences("A first one. A second one that is long.", 20) == "A first one."
    assert reader.first_sentences("x" * 50, 20) == "x" * 20


def test_keywords_are_the_words_that_come_often() -> None:
    text = "Kernel kernel KERNEL agents agents slot that that that that with a_b 12345"
    assert reader.frequent_words(text, 2) == ["kernel", "agents"]
    assert reader.frequent_words("", 5) == []


@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    reader.prose_of(text)
    reader.title_of(text, "x")
    reader.whole_sentences(text)
    assert len(reader.frequent_words(text, 3)) <= 3


@given(st.text(min_size=1), st.integers(1, 50))
def test_a_beginning_is_never_longer_than_asked(text: str, n_chars: int) -> None:
    assert len(reader.first_sentences(text, n_chars)) <= n_chars


@given(st.text().filter(lambda text: "\0" not in text), st.integers(0, 200))
def test_text_is_known_wherever_it_is_cut(text: str, n_bytes: int) -> None:
    assert is_text(text.encode()[:n_bytes])


def test_what_cannot_be_read_is_told_apart(tmp_path: Path) -> None:
    folder = folder_of_all_sorts(tmp_path)
    assert objection_to(folder / "a.md") == ""
    assert objection_to(folder / "gone") == "cannot be read: No such file or directory"
    assert survey(folder / "gone", limit=1, except_for=folder).skipped == [
        ("gone", "cannot be read: No such file or directory")
    ]
    found = survey(folder, limit=10, except_for=folder / "report.md")
    assert found.files == ["a.md", "deep/b | c.txt"]


def test_a_report_is_replaced_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "report.md"
    editor.write_atomically(path, "one")
    editor.write_atomically(path, "two")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        editor.write_atomically(path, "three")
    assert path.read_text() == "two"
    assert [file.name for file in path.parent.iterdir()] == ["report.md"]
