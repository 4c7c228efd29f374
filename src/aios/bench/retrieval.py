"""How many questions find the sentence that answers them: words alone, vectors alone, and both together.

The questions and sentences are the English part of XQuAD, in `data/xquad` with its licence. The fusion was tuned on the articles
with even numbers; those with odd ones are the test.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import apsw
import msgspec
from msgspec import Struct

from aios.abi.memory import Note, Origin, Scope
from aios.abi.types import Pid
from aios.disk.migrations import migrate
from aios.kernel.memory import tables
from aios.kernel.memory.embedding import WordLlamaEmbedder
from aios.kernel.memory.meaning import Kept, Meanings
from aios.kernel.memory.schema import SCHEMA
from aios.kernel.memory.search import Sense, search
from aios.kernel.memory.tables import Filter
from aios.kernel.memory.words import CommonWords, register

FILE = Path(__file__).parent / "data" / "xquad" / "xquad-en.jsonl"
DEPTH = 10
"""Among so many hits the answer must be."""


class Paragraph(Struct, frozen=True):
    """Sentences, and questions with the place of the sentence that answers each."""

    article: int
    notes: tuple[str, ...]
    questions: tuple[tuple[str, int], ...]


class Found(Struct, frozen=True):
    """Shares of the questions whose answer is among the first `DEPTH` hits."""

    n_questions: int
    by_words: float
    by_meaning: float
    by_both: float


def load() -> list[Paragraph]:
    """All paragraphs."""
    lines = FILE.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Paragraph) for line in lines]


def measure_retrieval(paragraphs: Sequence[Paragraph], *, is_test: bool) -> Found:
    """Keep every sentence as a note, then ask the questions of one half of the articles. Cost: 4 s."""
    connection = apsw.Connection(":memory:")
    register(connection)
    migrate(connection, [SCHEMA])
    embedder = WordLlamaEmbedder()
    meanings = Meanings(embedder.name, embedder.n_dims)
    space = tables.make_space(connection, (Scope.SHARED, "", ""))
    asked = _keep(connection, meanings, space, embedder=embedder, paragraphs=paragraphs)
    questions = [(text, note) for article, text, note in asked if article % 2 == int(is_test)]
    which = Filter((space,), now_unix_s=1.0)
    common = CommonWords()
    n_words = n_meaning = n_both = 0
    for question, answer in questions:
        vector = embedder.embed([question])[0]
        nearest = meanings.search(connection, vector, (space,), among=None, limit=DEPTH)
        n_meaning += answer in [note for note, _ in nearest]
        words = search(connection, question, which, limit=DEPTH, common=common)
        n_words += answer in [hit.note.id for hit in words]
        sense = Sense(meanings, vector)
        both = search(connection, question, which, limit=DEPTH, common=common, sense=sense)
        n_both += answer in [hit.note.id for hit in both]
    n = len(questions)
    return Found(n, n_words / n, n_meaning / n, n_both / n)


def _keep(
    connection: apsw.Connection,
    meanings: Meanings,
    space: int,
    *,
    embedder: WordLlamaEmbedder,
    paragraphs: Iterable[Paragraph],
) -> list[tuple[int, str, int]]:
    """Write the notes. Returns: for each question its article, its text, and the note that answers it."""
    asked = []
    for paragraph in paragraphs:
        ids = [tables.insert(connection, space, _note(text)) for text in paragraph.notes]
        kept = Kept(ids, [space] * len(ids), embedder.embed(paragraph.notes))
        meanings.keep(connection, kept)
        meanings.publish(kept)
        tables.index_words(connection)
        asked += [(paragraph.article, text, ids[place]) for text, place in paragraph.questions]
    return asked


def _note(text: str) -> Note:
    origin = Origin("bench", "bench", Pid(1), 1)
    return Note(0, text, Scope.SHARED, origin, created_unix_s=0.0, valid_from_unix_s=0.0)
