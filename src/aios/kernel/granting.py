"""What the owner has granted or always allowed to a program, when a life of it begins: each life anew, for the code may be another."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import anyio.to_thread
import msgspec

from aios.kernel.access.grants import Grants
from aios.kernel.access.manager import principal_of
from aios.kernel.approvals.approvals import Approvals
from aios.kernel.loader import Program
from aios.kernel.process import Process


class Grantor(Protocol):
    """What is asked of the kernel."""

    grants: Grants
    approvals: Approvals

    def note(self, process: Process, text: str) -> None:
        """Write into its log what the kernel has to say of it."""
        ...


async def granted_to(kernel: Grantor, program: str, digest: str) -> tuple[str, ...] | None:
    """The rights that a program with that code was granted; None: none, and nothing is always allowed to it either."""
    read = partial(kernel.grants.rights_of, program, digest)
    granted = await anyio.to_thread.run_sync(read)
    return granted if granted or kernel.approvals.is_trusted(program, digest) else None


def take_grants(kernel: Grantor, process: Process, program: Program, rights: Sequence[str]) -> None:
    """Give a process those rights that were granted to its code and that it asks for, nothing of what its last life had, and say in its log what it lacks."""
    asked = program.manifest.rights
    granted = tuple(right for right in rights if right in asked)
    own = msgspec.structs.replace(principal_of(process), granted=granted)
    process.bounds = (*process.bounds[:-1], own)
    for right in sorted(set(asked) - set(granted)):
        hint = f"`aios grant {program.folder}`"
        kernel.note(process, f"asks for `{right}`, which is not granted; {hint}")
