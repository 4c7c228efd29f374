"""Before a human is asked about an act: is there anything to be done? What is not there is answered, and nobody asked.

Each look raises what the call itself would raise, and of nothing that the caller may not see anyhow: where it may not look, it is told nothing and
the owner is asked. A denial comes before any look.
"""

from aios.abi.access import Request, Resource
from aios.abi.branches import BranchCommit, BranchDiscard
from aios.abi.checkpoints import CheckpointRemove
from aios.abi.contexts import ContextForget
from aios.abi.deadletters import DeadLetterDrop
from aios.abi.memory import Forget, Update
from aios.abi.recovery import AnswerQuestion
from aios.abi.storage import FilePurge
from aios.abi.types import Right
from aios.kernel.handlers import Services
from aios.kernel.process import Run
from aios.kernel.storage.tables import check_versions


async def note(kernel: Services, run: Run, call: Forget | Update) -> None:
    """The note is there, and the caller's own."""
    process = run.process
    request = Request(Right.MEMORY_READ.value, Resource(), is_tainted=process.taint is not None)
    may_read = Right.MEMORY_READ in process.rights
    if may_read and kernel.access.decide(process, request).is_allowed:
        await kernel.memory.look(process, call.id)


async def file(kernel: Services, run: Run, call: FilePurge) -> None:
    """Something of that path, or below it, has versions."""
    process, storage = run.process, kernel.storage
    path = await storage.purged_path(process, call.path)
    may_read = Right.FILE_READ in process.rights
    if may_read and kernel.access.judge_path(process, path, is_write=False).is_allowed:
        await storage.parts[0].read(lambda connection: check_versions(connection, path))


async def snapshot(kernel: Services, run: Run, call: ContextForget) -> None:
    """The snapshot is there."""
    await kernel.shelf.look(run.process.owner, call.name)


async def dead_letter(kernel: Services, run: Run, call: DeadLetterDrop) -> None:
    """The letter is there, for the caller."""
    kernel.post.dead.get(run.process, call.id)


async def checkpoint(kernel: Services, run: Run, call: CheckpointRemove) -> None:
    """The checkpoint is there, for the caller."""
    kernel.checkpoints.look(run, call.which)


async def branches(kernel: Services, run: Run, call: BranchCommit | BranchDiscard) -> None:
    """The branches are there and have not ended."""
    kernel.branches.look(run, call)


async def question(kernel: Services, _: Run, call: AnswerQuestion) -> None:
    """Something is asked about that process."""
    kernel.programs.look(call)
