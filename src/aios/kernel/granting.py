"""What the owner has granted or always allowed to a program, when a life of it begins: each life anew, for the code may be another."""

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


async def is_trusted(kernel: Grantor, program: str, digest: str) -> bool:
    """Whether something was granted to a program with that code, or is always allowed to it."""
    read = partial(kernel.grants.rights_of, program, digest)
    is_granted = bool(await anyio.to_thread.run_sync(read))
    return is_granted or kernel.approvals.is_trusted(program, digest)


async def take_grants(kernel: Grantor, process: Process, program: Program, digest: str) -> None:
    """Give a process what was granted to its program with that code, nothing of what its last life had, and say in its log what it lacks."""
    asked = program.manifest.rights
    granted: tuple[str, ...] = ()
    if asked:
        read = partial(kernel.grants.rights_of, str(program.folder), digest)
        granted = tuple(right for right in await anyio.to_thread.run_sync(read) if right in asked)
    own = msgspec.structs.replace(principal_of(process), granted=granted)
    process.bounds = (*process.bounds[:-1], own)
    for right in sorted(set(asked) - set(granted)):
        hint = f"`aios grant {program.folder}`"
        kernel.note(process, f"asks for `{right}`, which is not granted; {hint}")
