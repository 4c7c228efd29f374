"""Files into groups: by what is known of each, or by topic. Pure."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from aios.abi.retrieval import GroupKey
from aios.kernel.memory.embedding import Vectors, normed
from aios.kernel.memory.recall import words_of
from aios.kernel.retrieval.tables import IndexedFile
from aios.kernel.storage.authors import author_shown
from aios.kernel.storage.paths import parent

SAME_TOPIC = 0.55
"""Files whose mean vectors have this cosine are of one topic; unrelated English texts have about 0.3 with wordllama."""
N_ROUNDS = 3
N_LABEL_WORDS = 3
LABELLED_CHARS = 2_000
"""Of each file; enough to tell what it is about."""

_WORD = re.compile(r"[^\W\d_]{3,}")


def key_of(file: IndexedFile, by: GroupKey) -> str:
    """The group that a file belongs to; topics are not known from one file."""
    match by:
        case "folder":
            return parent(file.path)
        case "type":
            return file.form
        case "author":
            return author_shown(file.author)
        case "day":
            return datetime.fromtimestamp(file.changed_unix_s, UTC).date().isoformat()
        case "topic":
            raise AssertionError("a topic takes all files")


def topics(vectors: Vectors) -> list[list[int]]:
    """The rows by topic: each is with those whose mean it is nearest to; a row that is like none is alone. Cost: rows times topics.

    Spherical k-means whose number of means comes from the data: a row that is near to none begins a new one.
    """
    means: list[Vectors] = []
    for row in vectors:
        if not means or max(float(mean @ row) for mean in means) < SAME_TOPIC:
            means.append(row)
    members: list[list[int]] = []
    for _ in range(N_ROUNDS):
        nearest = np.argmax(vectors @ np.stack(means).T, axis=1) if means else []
        members = [[] for _ in means]
        for number, mean in enumerate(nearest):
            members[int(mean)].append(number)
        members = [each for each in members if each]
        means = (
            list(normed(np.stack([vectors[each].sum(axis=0) for each in members])))
            if members
            else []
        )
    return members


def labels(texts: Sequence[str], groups: Sequence[Sequence[int]]) -> list[str]:
    """A name for each group of texts: the words that many of it have and few others."""
    words = [
        set(words_of(" ".join(_WORD.findall(text[:LABELLED_CHARS]))[:LABELLED_CHARS]))
        for text in texts
    ]
    in_all = Counter(word for each in words for word in each)
    found = []
    for group in groups:
        here = Counter(word for number in group for word in words[number])
        best = sorted(here, key=lambda word: (-here[word] * here[word] / in_all[word], word))
        found.append(" ".join(best[:N_LABEL_WORDS]) or "other")
    return found
