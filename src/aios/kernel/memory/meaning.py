"""Notes by meaning: their vectors in the database, the signs of them in memory.

Imported at the first use of memory and only when an embedder is there: it takes numpy, which not every installation has. Whoever
keeps or drops vectors inside a write tells the index after its commit (`publish`, `remove`), so that the index never knows of
notes that were not written.
"""

from collections.abc import Collection, Sequence
from itertools import islice
from typing import NamedTuple

import apsw
import msgspec
import numpy as np

from aios.kernel.memory import tables
from aios.kernel.memory.embedding import Vectors, packed, unpacked
from aios.kernel.memory.vectors import LOADED_ROWS, SignIndex, Signs

N_CANDIDATES = 120
"""Notes whose whole vectors are compared; 30 of them would find the best 10 nearly always."""
BATCH_NOTES = 100
N_NEIGHBOURS = 3
NEIGHBOUR_SHARE = 0.31
"""Notes are neighbours when at most this share of their signs differs, which is a cosine of about 0.5. Of the sentences of XQuAD
that are so near 92 % are of the same article, and four in ten have a neighbour."""
KEEP = "INSERT OR REPLACE INTO memory_vectors VALUES (?, ?, ?)"


class Kept(NamedTuple):
    """Vectors that were written, one row a note; what the index is told after the commit."""

    notes: Sequence[int]
    spaces: Sequence[int]
    vectors: Vectors

    def chosen(self, places: list[int]) -> "Kept":
        """The rows at these places."""
        return Kept(
            [self.notes[place] for place in places],
            [self.spaces[place] for place in places],
            self.vectors[places],
        )


class Waiting(NamedTuple):
    """A note without a vector."""

    note: int
    space: int
    text: str


class Meanings:
    """What the notes mean, as one embedder sees it. All methods run in threads; those that change something in the writer's."""

    def __init__(self, embedder: str, n_dims: int) -> None:
        self.name = embedder
        self.index = SignIndex(n_dims)

    def load(self, connection: apsw.Connection) -> None:
        """Read the signs of all vectors of this embedder. Cost: 0.4 s for 100,000."""
        found = connection.execute(
            "SELECT v.note, n.space, v.vector FROM memory_vectors v JOIN memory_notes n ON n.id = v.note "
            "WHERE v.embedder = ? AND n.superseded_by IS NULL",
            (self.name,),
        )
        while rows := msgspec.convert(
            list(islice(found, LOADED_ROWS)), list[tuple[int, int, bytes]]
        ):
            vectors = unpacked([row[2] for row in rows])
            self.publish(Kept([row[0] for row in rows], [row[1] for row in rows], vectors))

    def neighbours(self, vectors: Vectors, spaces: Sequence[int]) -> list[list[int]]:
        """The notes that each with one of these vectors is linked with when it is written (A-MEM, without a model)."""
        return self.index.neighbours(vectors, spaces, limit=N_NEIGHBOURS, max_share=NEIGHBOUR_SHARE)

    def keep(self, connection: apsw.Connection, kept: Kept) -> None:
        """Write vectors; `publish` them when that is committed."""
        connection.executemany(
            KEEP,
            [
                (note, self.name, row)
                for note, row in zip(kept.notes, packed(kept.vectors), strict=True)
            ],
        )

    def keep_one(self, connection: apsw.Connection, note: int, row: bytes) -> None:
        """Write the vector of a note, as it is stored; `publish_one` it when that is committed."""
        connection.execute(KEEP, (note, self.name, row))

    def publish(self, kept: Kept) -> None:
        """Find these notes from now on."""
        if kept.notes:
            self.index.add(kept.notes, kept.spaces, kept.vectors)

    def publish_one(self, note: int, space: int, signs: Signs) -> None:
        """Find this note from now on."""
        self.index.add_one(note, space, signs)

    def remove(self, notes: Collection[int]) -> None:
        """Find these notes no longer."""
        self.index.remove(notes)

    def reload(self, connection: apsw.Connection, notes: Collection[int]) -> None:
        """Find these notes as the tables have them, in the writer's thread."""
        self.index.remove(notes)
        for note in notes:
            row = connection.execute(
                "SELECT n.space, v.vector FROM memory_vectors v JOIN memory_notes n ON n.id = v.note "
                "WHERE v.note = ? AND v.embedder = ? AND n.superseded_by IS NULL",
                (note, self.name),
            ).fetchone()
            if row is not None:
                self.publish(Kept([note], [int(str(row[0]))], unpacked([row[1]])))

    def waiting(self, connection: apsw.Connection, after: int) -> list[Waiting]:
        """The next notes after an id that have no vector of this embedder's."""
        found = connection.execute(
            "SELECT n.id, n.space, n.text FROM memory_notes n LEFT JOIN memory_vectors v ON v.note = n.id AND v.embedder = ? "
            "WHERE n.id > ? AND v.note IS NULL AND n.superseded_by IS NULL ORDER BY n.id LIMIT ?",
            (self.name, after, BATCH_NOTES),
        )
        return [Waiting(*row) for row in msgspec.convert(list(found), list[tuple[int, int, str]])]

    def catch_up(self, connection: apsw.Connection, kept: Kept) -> Kept:
        """Write the vectors of notes that had none. Returns: those of the notes that are still there and in force, where they are now.

        Notes without a link get links with their neighbours.
        """
        there = tables.in_force(connection, kept.notes)
        left = kept.chosen([place for place, note in enumerate(kept.notes) if note in there])
        left = left._replace(spaces=[there[note] for note in left.notes])
        self.keep(connection, left)
        linked = {note for note, _ in tables.links_from(connection, left.notes)}
        alone = left.chosen([i for i, note in enumerate(left.notes) if note not in linked])
        neighbours = self.neighbours(alone.vectors, alone.spaces)
        for note, space, near in zip(alone.notes, alone.spaces, neighbours, strict=True):
            tables.link_neighbours(connection, note, space, near)
        return left

    def search(
        self,
        connection: apsw.Connection,
        vector: Vectors,
        spaces: Collection[int],
        *,
        among: Collection[int] | None,
        limit: int,
    ) -> list[tuple[int, float]]:
        """The notes of these spaces that are nearest to a vector, with their cosines, best first."""
        notes = self.index.nearest(vector, spaces, limit=N_CANDIDATES, among=among)
        marks = ",".join("?" * len(notes))
        found = connection.execute(
            f"SELECT note, vector FROM memory_vectors WHERE note IN ({marks}) AND embedder = ?",  # noqa: S608 - marks only
            (*notes, self.name),
        )
        rows = msgspec.convert(list(found), list[tuple[int, bytes]])
        if not rows:
            return []
        rows_of = unpacked([row[1] for row in rows])
        lengths = np.maximum(np.linalg.norm(rows_of, axis=1), 1e-9)
        cosines = rows_of @ vector / lengths
        best = np.argsort(-cosines, kind="stable")[:limit]
        return [(rows[place][0], float(cosines[place])) for place in best]


def kept_of(waiting: Sequence[Waiting], vectors: Sequence[Vectors | None]) -> Kept | None:
    """The vectors of those notes that got one; None when no one did."""
    pairs = [(each, row) for each, row in zip(waiting, vectors, strict=True) if row is not None]
    if not pairs:
        return None
    return Kept(
        [each.note for each, _ in pairs],
        [each.space for each, _ in pairs],
        np.concatenate([row for _, row in pairs]),
    )
