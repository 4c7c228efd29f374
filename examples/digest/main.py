"""Digests a folder of text files: one reader process for each file, side by side, then an editor that writes the report.

This process asks no model anything: it is a parent that spawns, waits and passes results on. What runs when is the
kernel's affair; `--compare` shows what that is worth by letting the readers run again, one after another. What readers found stays in
shared files and memory, so that a later run reads only what has changed.

It asks the kernel for the time and names its files by its pid, so that it can be replayed: with `aios run --restart on-failure`
the whole team goes on where it was after a crash of the kernel.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from known import find_digest, key_of, model_of
from msgspec import Struct
from survey import survey

import aios

HERE = Path(__file__).resolve().parent
READER, EDITOR = HERE / "reader", HERE / "editor"
DOCS = HERE.parent.parent / "docs"
DEFAULT_LIMIT = 12
DEFAULT_MAX_BYTES = 262_144
DEFAULT_PARALLEL = 8
COMPARE_BUDGET_S = 80.0  # after that the comparison starts no further reader


class Numbers(Struct):
    """The figures in a digest; all else in it is passed on unread."""

    prompt_tokens: int
    completion_tokens: int
    waited_s: float = 0.0
    ran_s: float = 0.0


class Edited(Struct):
    """What the editor handed back."""

    report: str
    prompt_tokens: int
    completion_tokens: int


class Summary(Struct):
    """How the run went."""

    report: str
    n_files: int
    n_known: int
    """Of these files an earlier run had a digest."""
    n_skipped: int
    prompt_tokens: int
    completion_tokens: int
    wall_s: float
    readers_s: float
    """From the first reader's start to the last one's end."""
    one_by_one_s: float | None
    """The readers' calls one after another; None if that was not measured."""
    n_compared: int
    """Over so many files that was measured; the rest is projected from their tokens."""

    def text(self) -> str:
        """In words."""
        skipped = (
            f"{self.n_skipped} skipped (the report says why)" if self.n_skipped else "none skipped"
        )
        known = f"{self.n_known} known from an earlier run, " if self.n_known else ""
        files = "1 file" if self.n_files == 1 else f"{self.n_files} files"
        line = (
            f"{files}, {known}{skipped}: {self.prompt_tokens} tokens in, "
            f"{self.completion_tokens} out, {self.wall_s:.1f} s in all, the readers {self.readers_s:.1f} s"
        )
        if self.n_known == self.n_files and self.n_files:
            line += "; nothing has changed, so nothing was read (--fresh reads all again)"
        if self.one_by_one_s is not None and self.readers_s > 0:
            ratio = self.one_by_one_s / self.readers_s
            line += f"; their calls one after another {self.one_by_one_s:.1f} s ({ratio:.2f} x)"
            if self.n_compared < self.n_files - self.n_known:
                line += f", projected from {self.n_compared} files"
        return f"{line}\n{self.report}"


class Readers:
    """Runs reader processes and keeps what they hand back."""

    def __init__(
        self, client: aios.blocking.Client, folder: Path, max_bytes: int, *, number: int
    ) -> None:
        self.digests: dict[str, bytes] = {}
        self.keys: dict[str, str] = {}
        """What the digests of these files are kept by; the others are not kept."""
        self.failures: list[tuple[str, str]] = []
        self._client = client
        self._folder = folder
        self._max_bytes = max_bytes
        self._number = number

    def take_known(self, files: Sequence[str], model: str, *, is_fresh: bool) -> list[str]:
        """Take the digests that earlier runs made, none if `is_fresh`; returns the files that must be read."""
        self.keys = {file: key_of(self._folder / file, self._max_bytes, model) for file in files}
        for file in [] if is_fresh else files:
            digest = find_digest(self._client, self.keys[file])
            if digest is not None:
                self.digests[file] = digest
        return [file for file in files if file not in self.digests]

    def run(
        self, files: Sequence[str], n_parallel: int, *, budget_s: float = float("inf")
    ) -> float:
        """Run a reader for each file, so many side by side; returns the seconds that took.

        No reader is started after `budget_s` seconds.
        """
        now = self._client.repeatable.now
        started = now()
        waiting, running = list(reversed(files)), dict[int, str]()
        while waiting or running:
            if now() - started > budget_s:
                waiting.clear()
            while waiting and len(running) < n_parallel:
                self._start(waiting.pop(), running)
            if running:
                ended = self._client.wait()
                file = running.pop(ended.pid, None)
                if file is not None:
                    self._take(file, ended.pid, ended.exit)
        return now() - started

    def _start(self, file: str, running: dict[int, str]) -> None:
        path = str((self._folder / file).absolute())
        try:
            options = ["--max-bytes", str(self._max_bytes), "--run", str(self._number)]
            if self.keys.get(file):
                options += ["--keep", self.keys[file]]
            child = self._client.spawn(READER, path, *options, name=_process_name(file))
        except aios.AiosError as error:
            self.failures.append((file, f"no reader could be started: {error.message}"))
        else:
            running[child.pid] = file

    def _take(self, file: str, pid: int, end: aios.Exit) -> None:
        if end.status == 0:
            self.digests[file] = end.result.encode()
            self._client.log(f"read {file}")
        else:
            why = end.reason or self._last_words(pid)
            self.failures.append((file, f"its reader ended with status {end.status}: {why}"))

    def _last_words(self, pid: int) -> str:
        """The last thing that a reader said about its trouble."""
        with self._client.logs(pid, tail=20) as lines:
            said = [line.text for line in lines if line.stream == "err"]
        words = [text for text in said if text.strip() and not text.startswith("hint:")]
        return words[-1] if words else "it said nothing"


def main(
    client: aios.blocking.Client,
    *,
    dir: Path = DOCS,  # noqa: A002 - the option is called so
    out: Path = Path("report.md"),
    limit: int = DEFAULT_LIMIT,
    max_bytes: int = DEFAULT_MAX_BYTES,
    parallel: int = DEFAULT_PARALLEL,
    compare: bool = False,
    fresh: bool = False,
    json: bool = False,
) -> str | Summary:
    """Digest the text files of --dir (at most --limit) and write --out.

    Of a file over --max-bytes only the head is read. --parallel readers run side by side. --compare repeats their calls
    one after another and shows both times. What an earlier run has read and is unchanged is not read again, except with
    --fresh. --json hands the figures back as JSON.
    """
    if min(limit, max_bytes, parallel) < 1:
        raise SystemExit("--limit, --max-bytes and --parallel are at least 1")
    check_folders(dir, out.absolute().parent)
    started = client.repeatable.now()
    found = survey(dir, limit=limit, except_for=out)
    readers = Readers(client, dir, max_bytes, number=1)
    unknown = readers.take_known(found.files, model_of(client), is_fresh=fresh)
    n_known = len(found.files) - len(unknown)
    if n_known:
        client.log(f"{n_known} of {len(found.files)} files are known from an earlier run")
    readers_s = readers.run(unknown, parallel)
    digests = [file for file in found.files if file in readers.digests]
    if found.files and not digests:
        file, reason = readers.failures[0]
        raise SystemExit(f"no file could be digested; {file}: {reason}")
    skipped = sorted(found.skipped + readers.failures)
    edited = edit(client, dir, out, digests=_named(readers, digests), skipped=skipped)
    wall_s = client.repeatable.now() - started
    read = [file for file in digests if file in set(unknown)]
    numbers = [_numbers(readers.digests[file]) for file in read]
    one_by_one_s, n_compared = None, 0
    if compare and read:
        again = Readers(client, dir, max_bytes, number=2)
        one_by_one_s, n_compared = measure_one_by_one(client, again, read, numbers)
    summary = Summary(
        report=edited.report,
        n_files=len(digests),
        n_known=n_known,
        n_skipped=len(skipped),
        prompt_tokens=sum(n.prompt_tokens for n in numbers) + edited.prompt_tokens,
        completion_tokens=sum(n.completion_tokens for n in numbers) + edited.completion_tokens,
        wall_s=wall_s,
        readers_s=readers_s,
        one_by_one_s=one_by_one_s,
        n_compared=n_compared,
    )
    return summary if json else summary.text()


def check_folders(source: Path, folder: Path) -> None:
    """Fail before the work if one is none, or the report cannot be written in the other, or not seen there: each program has a `/tmp` of its own."""
    if not source.is_dir():
        raise SystemExit(f"{source} is not a folder")
    own = Path(tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        is_own = folder.is_relative_to(own) and folder.stat().st_dev == own.stat().st_dev
        reason = f"{own} is this program's own" if is_own and own.is_mount() else ""
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise SystemExit(
            f"no report can be written in {folder}: {reason}; choose a place below the working directory, "
            f"or let it write there: aios run --write FOLDER"
        )


def edit(
    client: aios.blocking.Client,
    folder: Path,
    out: Path,
    *,
    digests: list[dict[str, object]],
    skipped: list[tuple[str, str]],
) -> Edited:
    """Let an editor write the report."""
    rows = [{"file": file, "reason": reason} for file, reason in skipped]
    material = {"folder": str(folder), "digests": digests, "skipped": rows}
    # Beside the report: each program has a `/tmp` of its own.
    file = out.absolute().with_name(f".digest-{client.getpid().pid}.json")
    draft = file.with_suffix(".tmp")
    draft.write_bytes(msgspec.json.encode(material))
    draft.replace(
        file
    )  # whole at any time: an editor that is brought back with this program may be reading it
    child = client.spawn(EDITOR, str(file), str(out.absolute()))
    end = client.wait(child.pid).exit  # if the kernel ends meanwhile, the file stays for the editor
    file.unlink(missing_ok=True)
    if end.status != 0:
        raise SystemExit(f"the editor ended with status {end.status}; see `aios logs {child.pid}`")
    return msgspec.json.decode(end.result, type=Edited)


def measure_one_by_one(
    client: aios.blocking.Client, readers: Readers, files: list[str], numbers: list[Numbers]
) -> tuple[float | None, int]:
    """The seconds that the same calls take when only one reader runs at a time, and over how many files that is known.

    Only the calls are counted, not the start of the processes, in favour of the sequential way. The prompts begin otherwise
    than before, so that what the engine has kept of the first run serves neither. What the time is too short
    for is projected from the tokens.
    """
    client.log("once more, one after another")
    readers.run(files, 1, budget_s=COMPARE_BUDGET_S)
    found = [_numbers(digest) for digest in readers.digests.values()]
    calls_s = sum(each.waited_s + each.ran_s for each in found)
    tokens = {
        file: n.prompt_tokens + n.completion_tokens for file, n in zip(files, numbers, strict=True)
    }
    n_measured = sum(tokens[file] for file in readers.digests)
    if not n_measured:
        return None, 0
    return calls_s * sum(tokens.values()) / n_measured, len(readers.digests)


def _named(readers: Readers, files: list[str]) -> list[dict[str, object]]:
    """Digests under their short names, with the keys that they are kept by."""
    decode = msgspec.json.Decoder(dict[str, object]).decode
    digests = readers.digests
    return [
        {**decode(digests[file]), "file": file, "key": readers.keys.get(file, "")} for file in files
    ]


def _process_name(file: str) -> str:
    """What `aios top` shows for the reader of a file."""
    stem = Path(file).stem.encode("ascii", "ignore").decode()
    return "reader-" + "".join(c if c.isalnum() else "-" for c in stem)[:40]


def _numbers(digest: bytes) -> Numbers:
    return msgspec.json.decode(digest, type=Numbers)


if __name__ == "__main__":
    aios.run(main)
