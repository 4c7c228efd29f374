"""Reads one text file and hands back its digest: a few sentences, what kind of document it is, and its keywords.

Three calls to the model, each of another sort: free text, an answer under a JSON schema, and a tool that it is made to
call. The prompts suit a model of 135 million parameters: short, of prose only, and with little to write.
"""

import re
from collections import Counter
from enum import Enum
from typing import Annotated
from zlib import crc32

import msgspec
from msgspec import Meta, Struct

import aios

HEAD_CHARS = 1_200  # about 300 tokens: what a small model can keep in view
EXCERPT_CHARS = 500
N_SENTENCES = 3
SUMMARY_TOKENS = 90
MIN_PROSE_CHARS = 200
DEFAULT_MAX_BYTES = 262_144

# Without the penalty a small model repeats itself; with a long window it avoids the words of the text itself.
SAMPLING = aios.Sampling(temperature=0, repeat_penalty=1.1, penalty_window_tokens=64)
COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        about above after again against also another because been before being below between both
        cannot come could does doing done down during each either else even ever every first from
        further have having here hers himself into itself just least less like made make many might
        more most much must myself never nothing once only other others ours over same should since
        some such than that their theirs them then there these they thing this those three through
        under until upon used uses using very well were what when where whether which while whom
        whose will with within without would your yours
        """,
    )
)


class Kind(Enum):
    """What a document may be."""

    GUIDE = "guide"
    TUTORIAL = "tutorial"
    REFERENCE = "reference"
    EXPLANATION = "explanation"
    DECISION = "decision"
    NOTES = "notes"
    STORY = "story"
    OTHER = "other"


class Verdict(Struct):
    """What the model says about the kind of a document."""

    kind: Kind


class Digest(Struct):
    """What a reader hands back."""

    file: str
    title: str
    kind: Kind
    summary: str
    keywords: list[str]
    n_bytes: int
    is_head_only: bool
    prompt_tokens: int
    completion_tokens: int
    waited_s: float
    ran_s: float


class Meter:
    """Begins the prompts of a run, and adds up what its calls took."""

    def __init__(self, run: int) -> None:
        self._run = run
        self.usage = aios.Usage()
        self.waited_s = self.ran_s = 0.0

    def messages(self, text: str) -> list[aios.Message]:
        """A conversation that begins as those of this run only."""
        system = f"Run {self._run}. You are an assistant who reads documents."
        return [
            aios.Message(aios.Role.SYSTEM, system),
            aios.Message(aios.Role.USER, text),
        ]

    def add(self, reply: aios.ChatReply[object]) -> None:
        """Take in one reply."""
        self.usage += reply.usage
        self.waited_s += reply.waited_s
        self.ran_s += reply.ran_s


def main(
    client: aios.blocking.Client,
    file: str,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    run: int = 1,
    keep: str = "",
) -> Digest:
    """Read FILE, of a large one only the first --max-bytes bytes.

    Readers with another --run begin their prompts otherwise, so that nothing computed for one run serves another. With --keep KEY
    the digest stays under that key, for later runs and for other agents.
    """
    text, n_bytes = read_head(file, max_bytes)
    title, prose = title_of(text, file), prose_of(text)
    meter = Meter(run)
    # The same file is always asked about in the same way, so that runs can be compared.
    seed = crc32(text.encode())
    summary = summarise(client, title, prose, seed=seed, meter=meter)
    kind = classify(client, f"{title}\n\n{prose[:EXCERPT_CHARS]}", seed, meter)
    keywords = pick_keywords(client, title, text, meter)
    digest = Digest(
        file=file,
        title=title,
        kind=kind,
        summary=summary,
        keywords=keywords,
        n_bytes=n_bytes,
        is_head_only=n_bytes > max_bytes,
        prompt_tokens=meter.usage.prompt_tokens,
        completion_tokens=meter.usage.completion_tokens,
        waited_s=meter.waited_s,
        ran_s=meter.ran_s,
    )
    if keep:
        keep_digest(client, keep, digest)
    return digest


def keep_digest(client: aios.blocking.Client, key: str, digest: Digest) -> None:
    """Write the digest to a shared file, and what it says into shared memory."""
    text, tags = f"{digest.title}: {digest.summary}", ["digest", key, digest.kind.value]
    known = list(client.memory.notes(scopes=["shared"], tags=["digest", key]))
    if known:  # it was read anew
        client.memory.update(known[-1].id, text, tags=tags, source=digest.file)
    else:
        client.memory.remember(text, scope="shared", tags=tags, source=digest.file)
    # The file comes last: where it is, the note is too.
    path = f"/shared/digests/{key}.json"
    client.files.write(path, msgspec.json.encode(digest), message=f"digest of {digest.file}")


def summarise(
    client: aios.blocking.Client, title: str, prose: str, *, seed: int, meter: Meter
) -> str:
    """Two or three sentences by the model, in free text."""
    reply = client.chat(
        meter.messages(
            f"{first_sentences(prose, HEAD_CHARS)}\n\n"
            f'What does this text about "{title}" say? Answer in two sentences.'
        ),
        sampling=SAMPLING,
        seed=seed,
        max_tokens=SUMMARY_TOKENS,
        stop=["\n\n"],
    )
    meter.add(reply)
    return whole_sentences(reply.text) or first_sentences(prose, 200)


def classify(client: aios.blocking.Client, excerpt: str, seed: int, meter: Meter) -> Kind:
    """The kind of document: the schema leaves the model no other words."""
    kinds = ", ".join(kind.value for kind in Kind)
    reply = client.chat(
        meter.messages(f"{excerpt}\n\nWhat kind of document is this? One of: {kinds}."),
        schema=Verdict,
        temperature=0,
        seed=seed,
        max_tokens=20,
    )
    meter.add(reply)
    return reply.parsed.kind


def pick_keywords(client: aios.blocking.Client, title: str, text: str, meter: Meter) -> list[str]:
    """The keywords of the text, by a tool that the model is made to call."""
    found: list[str] = []

    @aios.tool
    def keywords(count: Annotated[int, Meta(ge=3, le=6)]) -> list[str]:
        """Find the most telling words of the document.

        Args:
            count: How many words, 5 as a rule.
        """
        found[:] = frequent_words(text, count)
        return found

    reply = client.chat(
        meter.messages(f"Find 5 keywords of the document {title!r}."),
        tools=[keywords],
        tool_choice="keywords",
        temperature=0,
        max_tokens=60,
    )
    meter.add(reply)
    for call in reply.tool_calls:
        keywords.call_now(call.arguments)
    return found or frequent_words(text, 5)  # a model may still call it wrongly


def read_head(file: str, max_bytes: int) -> tuple[str, int]:
    """The first bytes of a file as text, and the size of the whole."""
    with open(file, "rb") as stream:  # noqa: PTH123 - pathlib takes 5 ms to import, a tenth of this program's start
        head = stream.read(max_bytes)
        n_bytes = stream.seek(0, 2)
    return head.decode("utf-8", "replace"), n_bytes


def title_of(text: str, file: str) -> str:
    """The first heading, else the first line of words, else the file's name."""
    heading = re.search(r"^#+ +(.+?) *#*$", text, re.MULTILINE)
    if heading:
        return _plain(heading[1])[:100]
    lines = (_plain(line).partition(". ")[0] for line in text.splitlines())
    return next((line for line in lines if len(line) > 3), file.rpartition("/")[2])[:100]


def prose_of(text: str) -> str:
    """The sentences of a text: tables, lists, code and markup make a small model repeat itself, so they go."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^(```|~~~).*?^\1[^\n]*$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    paragraphs = [_paragraph(block, lists=False) for block in re.split(r"\n\s*\n", text)]
    prose = " ".join(filter(None, paragraphs))
    if len(prose) < MIN_PROSE_CHARS:  # hardly anything but lists: then these must do
        prose = " ".join(
            filter(None, (_paragraph(block, lists=True) for block in re.split(r"\n\s*\n", text)))
        )
    return prose or " ".join(text.split())


def frequent_words(text: str, count: int) -> list[str]:
    """The words that stand out by how often they come; the earlier one first among equals."""
    words = re.findall(r"[^\W\d_]{4,}", text.lower())
    telling = Counter(word for word in words if word not in COMMON_WORDS)
    return [word for word, _ in telling.most_common(count)]


def first_sentences(text: str, n_chars: int) -> str:
    """The beginning of a text, cut after a sentence if one ends there."""
    if len(text) <= n_chars:
        return text
    head = text[:n_chars]
    end = max(head.rfind(mark) for mark in (". ", "! ", "? "))
    return head[: end + 1] if end > n_chars // 3 else head.rpartition(" ")[0] or head


def whole_sentences(text: str) -> str:
    """At most three whole sentences, none of them twice; what broke off in mid-sentence is left out."""
    sentences = re.findall(r"\S.*?[.!?](?=\s|$)", " ".join(text.split()))
    unique = list(dict.fromkeys(sentences))
    return " ".join(unique[:N_SENTENCES])


def _paragraph(block: str, *, lists: bool) -> str:
    kept: list[str] = []
    for line in block.splitlines():
        bare = line.strip()
        item = re.match(r"([-*+]|\d+[.)]) +", bare)
        is_markup = bare.startswith(("#", "|", ">", "===", "---", "***")) or " | " in bare
        if is_markup or (item and not lists):
            if item:
                return _plain(" ".join(kept))  # the rest of the block belongs to the list
            continue
        kept.append(bare[item.end() :].rstrip(".") + "." if item else bare)
    return _plain(" ".join(kept))


def _plain(text: str) -> str:
    """Without the marks of Markdown and HTML."""
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|<[^>\n]{1,200}>", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"[`*]|(?<!\w)_+|_+(?!\w)", "", text).split())


if __name__ == "__main__":
    aios.run(main)
