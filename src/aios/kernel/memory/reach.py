"""Which notes a process may read and change.

Who calls is known by owner and agent (`kernel/lineage.py`), never by what the call says. Everything here runs inside a write or a read of the database.
"""

import secrets

import apsw

from aios.abi.memory import Note, NoteDetails, Scope
from aios.errors import AccessDenied, Conflict, NotFound
from aios.kernel.clock import Clock
from aios.kernel.lineage import agent_at, sibling
from aios.kernel.memory import tables
from aios.kernel.memory.tables import Filter, SpaceKey
from aios.kernel.process import INIT_PID, Process


class Reach:
    """How far each process reaches. Init, the owner of the kernel, reads and changes all."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kernel_id = secrets.token_hex(8)
        """Pids begin again with each kernel; notes of processes must not."""

    def key(self, process: Process, scope: Scope) -> SpaceKey:
        """The space of a scope, for a process."""
        match scope:
            case Scope.PROCESS:
                return scope, process.owner, f"{self._kernel_id}:{process.pid}"
            case Scope.AGENT:
                return scope, process.owner, process.agent
            case Scope.GROUP:
                return scope, process.owner, ""
            case Scope.SHARED:
                return scope, "", ""

    def spaces(
        self, connection: apsw.Connection, process: Process, scopes: tuple[Scope, ...]
    ) -> tuple[int, ...]:
        """The spaces of these scopes (of all, if empty) that the process may read."""
        wanted = scopes or tuple(Scope)
        if process.pid == INIT_PID:
            return tables.all_spaces(connection, wanted)
        keys = [self.key(process, scope) for scope in set(wanted)]
        branch = process.confines
        if branch is not None and branch.pid == process.pid and Scope.AGENT in wanted:
            # It knows what its source does; what it starts is an agent of its own.
            source = sibling(agent_at(branch.home), branch.source_name)
            keys.append((Scope.AGENT, process.owner, source))
        return tables.find_spaces(connection, keys)

    def all_of(self, connection: apsw.Connection, process: Process) -> Filter:
        """All that the process may read, superseded or not."""
        spaces = self.spaces(connection, process, ())
        return Filter(spaces, self._clock.unix_s(), include_superseded=True)

    def visible(
        self, connection: apsw.Connection, process: Process, note_id: int
    ) -> tuple[int, Note]:
        """The space of a note that the process may read, and the note."""
        found = tables.find_note(connection, note_id, self.all_of(connection, process))
        if found is None:
            who = "" if process.pid == INIT_PID else f" that {process.name} may read"
            raise NotFound(
                f"no note {note_id}{who}", hint="`memory_list` names those that there are"
            )
        return found

    def changeable(
        self, connection: apsw.Connection, process: Process, note_id: int
    ) -> tuple[int, Note]:
        """The space of a note that the process may change, and the note."""
        space, note = self.visible(connection, process, note_id)
        if process.pid != INIT_PID and note.origin.owner != process.owner:
            raise AccessDenied(
                f"note {note_id} belongs to {note.origin.owner}, not to {process.owner}",
                hint="remember something that says otherwise",
            )
        return space, note

    def in_force(
        self, connection: apsw.Connection, process: Process, note_id: int
    ) -> tuple[int, Note]:
        """The same of one that no other has taken the place of."""
        space, note = self.changeable(connection, process, note_id)
        if note.superseded_by is not None:
            raise Conflict(
                f"note {note_id} was replaced by note {note.superseded_by}", hint="change that one"
            )
        return space, note

    def details(self, connection: apsw.Connection, process: Process, note_id: int) -> NoteDetails:
        """A note that the process may read, and what it is linked with."""
        _, note = self.visible(connection, process, note_id)
        links = tables.links_of(connection, note_id, self.all_of(connection, process))
        return NoteDetails(note, links)
