"""Writes report.md from the digests that the readers made: an overview by the model, a table, the digests."""

import os
import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

import aios

SAMPLING = aios.Sampling(temperature=0, repeat_penalty=1.1, penalty_window_tokens=64)
WARNING = "_Every sentence about a document was written by a model; a small one is fluent and often wrong._"
QUESTION = "What are these documents about, taken together?"
OVERVIEW_CHARS = 1_400
OVERVIEW_TOKENS = 110


class Digest(Struct):
    """What a reader handed back, as far as the editor needs it; `file` is relative to the folder."""

    file: str
    title: str
    kind: str
    summary: str
    keywords: list[str]
    n_bytes: int
    is_head_only: bool
    prompt_tokens: int
    completion_tokens: int
    waited_s: float
    ran_s: float
    key: str = ""
    """The tag of the note that its reader left in shared memory; empty if there is none."""


class Skipped(Struct):
    """A file without a digest."""

    file: str
    reason: str


class Material(Struct):
    """All that the report is made of."""

    folder: str
    digests: list[Digest]
    skipped: list[Skipped]


class Edited(Struct):
    """What the editor hands back."""

    report: str
    prompt_tokens: int
    completion_tokens: int


def main(client: aios.blocking.Client, material: Path, report: Path) -> Edited:
    """Write REPORT from the digests in the JSON file MATERIAL."""
    given = msgspec.json.decode(material.read_bytes(), type=Material)
    overview, usage = write_overview(client, given.digests)
    write_atomically(report, report_of(given, overview))
    return Edited(str(report.absolute()), usage.prompt_tokens, usage.completion_tokens)


def write_overview(client: aios.blocking.Client, digests: list[Digest]) -> tuple[str, aios.Usage]:
    """A few sentences about all documents; the report is written even if the model fails now."""
    if not digests:
        return "There was nothing to read.", aios.Usage()
    facts = facts_of(recalled_first(client, digests))
    try:
        reply = client.chat(
            f"{facts}\n{QUESTION} Answer in three sentences.",
            sampling=SAMPLING,
            seed=1,
            max_tokens=OVERVIEW_TOKENS,
            stop=["\n\n"],
        )
    except aios.AiosError as error:
        return f"(No overview: {error.message}.)", aios.Usage()
    sentences = reply.text.strip().rpartition(".")
    return (sentences[0] + "." if sentences[1] else reply.text.strip()), reply.usage


def recalled_first(client: aios.blocking.Client, digests: list[Digest]) -> list[Digest]:
    """The digests in the order in which shared memory brings them up for the question; then those that it does not."""
    try:
        found = client.memory.recall(QUESTION, 100, scopes=["shared"], tags=["digest"])
    except aios.AiosError:
        return digests  # without memory the order of the names must do
    places = {tag: place for place, hit in enumerate(found.hits) for tag in hit.note.tags}
    return sorted(digests, key=lambda digest: places.get(digest.key, len(places)))


def facts_of(digests: list[Digest]) -> str:
    """A sentence about each document, of as many documents as a small model can keep in view."""
    facts = ""
    for digest in digests:
        fact = f"{digest.title}: {first_sentence(digest.summary)}\n"
        if len(facts) + len(fact) <= OVERVIEW_CHARS:
            facts += fact
    return facts or digests[0].summary[:OVERVIEW_CHARS]


def report_of(material: Material, overview: str) -> str:
    """The whole report in Markdown."""
    parts = [f"# Digest of {_cell(material.folder)}", "", overview, "", WARNING, ""]
    if material.digests:
        parts += ["| file | kind | keywords | bytes | tokens in | out | waited s | ran s |"]
        parts += ["|---|---|---|--:|--:|--:|--:|--:|"]
        parts += [_row(digest) for digest in material.digests]
        parts += [""]
    for digest in material.digests:
        note = " (only its head was read)" if digest.is_head_only else ""
        parts += [f"## {_cell(digest.title)}", "", f"`{_cell(digest.file)}`{note}", ""]
        parts += [digest.summary, ""]
    if material.skipped:
        parts += ["## Skipped", "", "| file | reason |", "|---|---|"]
        parts += [f"| {_cell(skip.file)} | {_cell(skip.reason)} |" for skip in material.skipped]
        parts += [""]
    return "\n".join(parts)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole: a reader sees the old report or the new one, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def first_sentence(text: str) -> str:
    """The first sentence of a text."""
    return text.partition(". ")[0].rstrip(".") + "."


def _row(digest: Digest) -> str:
    numbers = f"{digest.n_bytes} | {digest.prompt_tokens} | {digest.completion_tokens}"
    times = f"{digest.waited_s:.1f} | {digest.ran_s:.1f}"
    words = _cell(", ".join(digest.keywords))
    return f"| {_cell(digest.file)} | {digest.kind} | {words} | {numbers} | {times} |"


def _cell(text: str) -> str:
    """Text that cannot leave its cell."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    aios.run(main)
