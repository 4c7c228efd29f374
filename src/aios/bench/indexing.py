"""How fast files are indexed and found: English text in files of 20 KB. A part of the bench `storage`."""

import random
from collections.abc import Iterator
from time import perf_counter

from aios.abi.gate import Gate
from aios.abi.storage import Put
from aios.bench.children import BenchFailed
from aios.bench.retrieval import load
from aios.bench.rows import Bar, Report, Spec, quantile
from aios.sdk.files import Files

FILE_BYTES = 20_000
N_FILES, N_FILES_QUICK = 800, 100
N_QUERIES = 100

SPECS = (
    Spec(
        "storage",
        "index",
        "MB/s",
        Bar(2, is_minimum=True),
        f"text read, cut, embedded and written to the index; {N_FILES} files of {FILE_BYTES // 1000} KB of English",
    ),
    Spec(
        "storage",
        "retrieve-p50",
        "ms",
        None,
        f"{N_QUERIES} questions over them, by words and meaning",
    ),
    Spec("storage", "retrieve-p99", "ms", None, "the same"),
)


async def measure_index(gate: Gate, report: Report, *, quick: bool) -> None:
    """Write the files, have all of them indexed anew, and ask."""
    files = Files(gate)
    paragraphs = load()
    n_bytes = 0
    for number, text in enumerate(_texts([note for each in paragraphs for note in each.notes])):
        if number == (N_FILES_QUICK if quick else N_FILES):
            break
        n_bytes += len(text)
        await files.edit([Put(f"/shared/texts/{number:04}.md", text)])
    await files.index(is_waiting=True)
    begun_s = perf_counter()
    await files.reindex()
    info = await files.index(is_waiting=True)
    report.add("index", n_bytes / 1e6 / (perf_counter() - begun_s))
    if info.problems or not info.n_passages:
        raise BenchFailed(f"not all files were read: {info.problems[:3]}")
    questions = [question for each in paragraphs for question, _ in each.questions][:N_QUERIES]
    times_ms = []
    for question in questions:
        begun_s = perf_counter()
        await files.retrieve(question)
        times_ms.append((perf_counter() - begun_s) * 1e3)
    report.add("retrieve-p50", quantile(times_ms, 0.5))
    report.add("retrieve-p99", quantile(times_ms, 0.99))


def _texts(sentences: list[str]) -> Iterator[bytes]:
    """Files of sentences in another order each, the same in every run."""
    draw = random.Random(1)  # noqa: S311 - the same text in every run
    while True:
        text = b""
        while len(text) < FILE_BYTES:
            text += " ".join(draw.choices(sentences, k=4)).encode() + b"\n\n"
        yield text
