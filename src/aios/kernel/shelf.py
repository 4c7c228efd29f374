"""The shelf: contexts put away under a name, to go on with them later, also under another kernel.

A snapshot pins the pages of its context on disk: whoever restores it computes nothing of it again. The
pin follows the snapshot's file, when that comes and when it goes; one that a killed kernel left without a file, the next kernel lets go.
"""

from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import anyio.to_thread
import msgspec

from aios.abi.call import Done
from aios.abi.contexts import (
    ContextForget,
    ContextInfo,
    ContextRestore,
    ContextSnapshot,
    ContextSnapshots,
    SnapshotInfo,
    SnapshotInfos,
)
from aios.errors import SnapshotIncompatible
from aios.kernel.clock import Clock
from aios.kernel.context.contexts import Context, ContextTable
from aios.kernel.context.manager import ContextManager
from aios.kernel.context.snapshots import Saved, Snapshots
from aios.kernel.cores import Core, Cores
from aios.kernel.homes import Home
from aios.kernel.process import Run
from aios.kernel.taint import source_of, take

if TYPE_CHECKING:
    from aios.kernel.replay import Replay


class Shelf:
    """The handlers of the calls about snapshots. Names belong to owners."""

    def __init__(
        self,
        contexts: ContextTable,
        cores: Cores,
        clock: Clock,
        *,
        snapshots: Snapshots,
        pages: ContextManager,
    ) -> None:
        self._contexts = contexts
        self._cores = cores
        self._clock = clock
        self._snapshots = snapshots
        self._pages = pages
        self._replayed: WeakKeyDictionary[Replay, dict[str, tuple[SnapshotInfo, Saved]]] = (
            WeakKeyDictionary()
        )
        """What programs that are replayed have put away so far: on the shelf there may be other texts by these names since, or none."""
        self._changing = anyio.Lock()
        """Held from a change of a snapshot's file to that of its pin."""

    async def snapshot(self, run: Run, call: ContextSnapshot) -> SnapshotInfo:
        """Put a context away as it was last committed."""
        context = self._contexts.get(run, call.context)
        fingerprint = _fingerprint(await self._core(run, context.model))
        # Only now: while an engine was loaded, other data may have come into it.
        taint = source_of(context.owner) or source_of(run.process)
        info = SnapshotInfo(
            name=call.name,
            owner=run.process.owner,
            model=context.model,
            fingerprint=fingerprint,
            n_messages=len(context.items),
            size_bytes=0,
            saved_unix_s=self._clock.unix_s(),
            taint=taint,
        )
        saved = _saved(context, taint)
        write = partial(self._snapshots.write, info, saved, is_replacing=call.is_replacing)
        pin = self._snapshots.pin_name(info.owner, info.name)
        async with self._changing:
            with anyio.CancelScope(shield=True):  # a pin belongs to each file
                info = await anyio.to_thread.run_sync(write)
                await anyio.to_thread.run_sync(self._pages.pin, fingerprint, pin, saved.pages)
        return info

    async def restore(self, run: Run, call: ContextRestore) -> ContextInfo:
        """Take a context from the shelf; the snapshot stays there."""
        info, saved = await anyio.to_thread.run_sync(
            self._snapshots.read, run.process.owner, call.name
        )
        return await self._put_back(run, call, info, saved)

    def snapshot_again(self, run: Run, call: ContextSnapshot, told: SnapshotInfo) -> None:
        """Remember for a replay what a snapshot held."""
        if run.process.replay is not None:
            saved = _saved(self._contexts.get(run, call.context), told.taint)
            self._replayed.setdefault(run.process.replay, {})[call.name] = (told, saved)

    async def restore_again(self, run: Run, call: ContextRestore, told: ContextInfo) -> ContextInfo:
        """Take a context from a snapshot as that was when it was restored before.

        Raises:
            NotFound: The caller has not made it in this life, and it is on the shelf no more.
            SnapshotIncompatible: Another text is there under its name.
        """
        replay = run.process.replay
        kept = None if replay is None else self._replayed.get(replay, {}).get(call.name)
        if kept is None or not _is_of(kept[1], told):
            info, saved = await anyio.to_thread.run_sync(
                self._snapshots.read, run.process.owner, call.name
            )
            kept = info, saved if _is_of(saved, told) else _begun(saved, told)
            if not _is_of(kept[1], told):
                raise SnapshotIncompatible(
                    f"snapshot {call.name!r} holds another text since",
                    hint="give each text a name of its own",
                )
        return await self._put_back(run, call, *kept)

    async def _put_back(
        self, run: Run, call: ContextRestore, info: SnapshotInfo, saved: Saved
    ) -> ContextInfo:
        take(run, saved.taint, f"snapshot {call.name}")
        if call.is_text_only:
            return self._contexts.restore(run.process, "", saved).info()
        core = await self._core(run, info.model)
        ours = _fingerprint(core)
        if ours != info.fingerprint:
            raise SnapshotIncompatible(
                f"snapshot {call.name!r} was made by `{info.fingerprint}`; here runs `{ours}`",
                hint="run that model, or restore only the text (`is_text_only`)",
            )
        context = self._contexts.restore(run.process, info.model, saved)
        context.homes[info.model] = Home(core.pages, saved.n_tokens)
        return context.info()

    async def list_all(self, run: Run, _: ContextSnapshots) -> SnapshotInfos:
        """The snapshots of the caller's owner."""
        found = await anyio.to_thread.run_sync(self._snapshots.list_all, run.process.owner)
        for each in found:
            take(run, each.taint, f"snapshot {each.name}")
        return SnapshotInfos(tuple(found))

    async def look(self, owner: str, name: str) -> None:
        """Return if an owner has a snapshot of that name.

        Raises:
            NotFound: There is none.
        """
        await anyio.to_thread.run_sync(self._snapshots.check_there, owner, name)

    async def forget(self, run: Run, call: ContextForget) -> Done:
        """Remove a snapshot."""
        owner = run.process.owner
        pin = self._snapshots.pin_name(owner, call.name)
        async with self._changing:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._snapshots.remove, owner, call.name)
                await anyio.to_thread.run_sync(self._pages.unpin, pin)
        return Done()

    async def _core(self, run: Run, model: str) -> Core:
        return await self._cores.find_known(run, model)


def _saved(context: Context, taint: str) -> Saved:
    """All that a context is made of."""
    return Saved(
        context.tools,
        context.window,
        context.transcript,
        context.n_tokens,
        context.pages,
        taint,
    )


def _is_of(saved: Saved, told: ContextInfo) -> bool:
    """Whether a context was restored from this, as far as its size tells."""
    transcript = saved.transcript
    return (len(transcript.items), transcript.size_bytes) == (told.n_messages, told.size_bytes)


def _begun(saved: Saved, told: ContextInfo) -> Saved:
    """So much of a text as was there when a context was restored: whoever goes on in one puts it away again under its name."""
    transcript = saved.transcript.put(saved.transcript.items[: told.n_messages])
    return msgspec.structs.replace(saved, transcript=transcript, n_tokens=told.n_tokens, pages=())


def _fingerprint(core: Core) -> str:
    """What the KV rows of a model's contexts depend on; its name, where the engine keeps none."""
    fingerprint = core.offer.fingerprint if core.offer else ""
    return fingerprint or f"{core.kind}:{core.model}"
