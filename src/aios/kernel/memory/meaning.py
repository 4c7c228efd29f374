"""Notes by meaning: their vectors in the database, the signs of them in memory.

Imported at the first use of memory and only when an embedder is there: it takes numpy, which not every installation has.
"""

from collections.abc import Collection, Sequence

import apsw
import msgspec
import numpy as np

from aios.kernel.memory.embedding import Embedder, Vectors, WordLlamaEmbedder
from aios.kernel.memory.vectors import SignIndex

N_CANDIDATES = 200
"""Notes whose whole vectors are compared; 30 of them would find the best 10 nearly always."""
SCALE = 127.0
BATCH_NOTES = 500


class Meanings:
    """What the notes mean, as one embedder sees it. All methods run in threads of the database."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.name = embedder.name
        self.index = SignIndex(embedder.n_dims)

    def load(self, connection: apsw.Connection) -> None:
        """Read the signs of all vectors of this embedder. Cost: 0.3 s for 100,000."""
        found = connection.execute(
            "SELECT v.note, n.space, v.vector FROM memory_vectors v JOIN memory_notes n ON n.id = v.note "
            "WHERE v.embedder = ? AND n.superseded_by IS NULL",
            (self.name,),
        )
        rows = msgspec.convert(list(found), list[tuple[int, int, bytes]])
        if rows:
            vectors = np.frombuffer(b"".join(row[2] for row in rows), dtype=np.int8)
            self.index.add(
                [row[0] for row in rows],
                [row[1] for row in rows],
                vectors.reshape(len(rows), -1).astype(np.float32),
            )

    def add(self, connection: apsw.Connection, note: int, space: int, text: str) -> None:
        """Keep what a new note means."""
        self._keep(connection, [(note, space, text)])

    def remove(self, notes: Collection[int]) -> None:
        """Find these notes no longer."""
        self.index.remove(notes)

    def catch_up(self, connection: apsw.Connection) -> bool:
        """Add some of the notes that this embedder has not seen, such as those from before it. Returns: whether there were any."""
        found = connection.execute(
            "SELECT n.id, n.space, n.text FROM memory_notes n LEFT JOIN memory_vectors v ON v.note = n.id AND v.embedder = ? "
            "WHERE v.note IS NULL AND n.superseded_by IS NULL LIMIT ?",
            (self.name, BATCH_NOTES),
        )
        rows = msgspec.convert(list(found), list[tuple[int, int, str]])
        if rows:
            self._keep(connection, rows)
        return bool(rows)

    def search(
        self,
        connection: apsw.Connection,
        query: str,
        spaces: Collection[int],
        *,
        among: Collection[int] | None,
        limit: int,
    ) -> list[tuple[int, float]]:
        """The notes of these spaces that are nearest to a query, with their cosines, best first."""
        vector = self._embedder.embed([query])[0]
        notes = self.index.nearest(vector, spaces, limit=N_CANDIDATES, among=among)
        marks = ",".join("?" * len(notes))
        found = connection.execute(
            f"SELECT note, vector FROM memory_vectors WHERE note IN ({marks}) AND embedder = ?",  # noqa: S608 - marks only
            (*notes, self.name),
        )
        rows = msgspec.convert(list(found), list[tuple[int, bytes]])
        if not rows:
            return []
        vectors = np.frombuffer(b"".join(row[1] for row in rows), dtype=np.int8)
        rows_of = vectors.reshape(len(rows), -1).astype(np.float32)
        lengths = np.maximum(np.linalg.norm(rows_of, axis=1), 1e-9)
        cosines = rows_of @ vector / lengths
        best = np.argsort(-cosines, kind="stable")[:limit]
        return [(rows[place][0], float(cosines[place])) for place in best]

    def _keep(self, connection: apsw.Connection, rows: Sequence[tuple[int, int, str]]) -> None:
        vectors = self._embedder.embed([row[2] for row in rows])
        connection.executemany(
            "INSERT OR REPLACE INTO memory_vectors VALUES (?, ?, ?)",
            [(row[0], self.name, each) for row, each in zip(rows, _as_bytes(vectors), strict=True)],
        )
        # Before the commit: a note that is not committed is found here, and then not in its table.
        self.index.add([row[0] for row in rows], [row[1] for row in rows], vectors)


def open_meanings() -> Meanings:
    """With the default embedder."""
    return Meanings(WordLlamaEmbedder())


def _as_bytes(vectors: Vectors) -> list[bytes]:
    """Each vector scaled to 8-bit numbers: a quarter of the bytes, and cosines that differ by less than 0.01."""
    largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-9)
    return [row.tobytes() for row in np.round(vectors / largest * SCALE).astype(np.int8)]
