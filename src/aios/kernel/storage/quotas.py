"""How much disk a folder may take, where the owner has said so; elsewhere it is `storage.quota_bytes`."""

import apsw

from aios.abi.call import Done
from aios.abi.storage import FileQuota
from aios.disk.db import Database
from aios.errors import AccessDenied, InvalidCall
from aios.kernel.lineage import AGENTS
from aios.kernel.process import INIT_PID, Run
from aios.kernel.storage import tables
from aios.kernel.storage.mounts import Mounts
from aios.kernel.storage.paths import GROUPS, SHARED, parse, root_of


class Quotas:
    """The handler of the call about quotas.

    Args:
        db: Where they are kept.
        mounts: Those that there are.
    """

    def __init__(self, db: Database, mounts: Mounts) -> None:
        self._db = db
        self._mounts = mounts

    async def set(self, run: Run, call: FileQuota) -> Done:
        """Set what a folder may take."""
        if run.process.pid != INIT_PID:
            raise AccessDenied("only the owner may do that", hint="use `aios fs quota`")
        root = self._root(parse(call.path, "/"))

        def write(connection: apsw.Connection) -> Done:
            tables.set_quota(connection, root, call.quota_bytes)
            return run.sealed(connection, Done())

        done = await self._db.write(write)
        self._mounts.note_room(root)
        return done

    def _root(self, path: str) -> str:
        is_one = path == f"/{SHARED}" or self._mounts.is_mount(path)
        if path.count("/") == 2 and path.split("/")[1] in {AGENTS, GROUPS}:
            is_one = root_of(path) == path
        if not is_one:
            raise InvalidCall(
                f"{path} is no folder with a quota",
                hint="name /agents/NAME, /groups/NAME, /shared or a mount",
            )
        return path
