"""Programs as processes: started, started again when they or the kernel ended too early, and asked about when in doubt.

spawn -> a life: the child runs -> its end -> another life (with the journal's answers, or from the beginning) -> the end
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from os import urandom
from pathlib import Path
from typing import Protocol, TypeVar

import anyio.abc
import anyio.to_thread
import apsw
import msgspec

from aios.abi.call import Answer
from aios.abi.calls import Guest, Spawn, Spawned
from aios.abi.recovery import AnswerQuestion, Question, QuestionList, Questions
from aios.abi.types import Exit, Kind, Pid
from aios.config import Config, Home
from aios.errors import AiosError, Conflict, InvalidCall, ProgramFailed, ReplayDivergence, edge
from aios.kernel.access.grants import Grants
from aios.kernel.access.keptcode import kept_code
from aios.kernel.approvals.approvals import Approvals
from aios.kernel.approvals.recovering import asked_owner, settle
from aios.kernel.bodies import Body, waited, with_disk
from aios.kernel.clock import Clock
from aios.kernel.context.contexts import ContextTable
from aios.kernel.egress.egress import Egress, network_of
from aios.kernel.granting import granted_to, take_grants
from aios.kernel.identity import Tokens
from aios.kernel.inheritance import inherit
from aios.kernel.jobwork import read_work
from aios.kernel.journal.audit.log import load_key
from aios.kernel.journal.journal import Journal
from aios.kernel.leftovers import code_hash, os_start_of
from aios.kernel.loader import Child, Launch, load_program, view_for
from aios.kernel.process import Process, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.recovery import (
    CODE_CHANGED,
    CODE_CHOICES,
    NOT_BACK,
    end_of_open,
    failed_of,
    next_life,
    policy_below,
)
from aios.kernel.replay import Replay
from aios.kernel.residents import Launched, Residents
from aios.kernel.sandbox.launch import Launcher
from aios.kernel.sandbox.spawning import check_words
from aios.kernel.sealing import Sealer
from aios.kernel.signals import KILLED_STATUS, Signals
from aios.kernel.spending import Budgets
from aios.kernel.storage.manager import StorageManager
from aios.kernel.tools.manager import ToolManager
from aios.kernel.turns import Turns

A = TypeVar("A", bound=Answer)
T = TypeVar("T")


class ProgramKernel(Protocol):
    """What programs use of the kernel."""

    clock: Clock
    tasks: anyio.abc.TaskGroup
    urls: list[str]
    table: ProcessTable
    journal: Journal
    signals: Signals
    budgets: Budgets
    context_table: ContextTable
    storage: StorageManager
    tools: ToolManager
    grants: Grants
    config: Config
    home: Home
    is_durable: bool
    embedded: bool
    approvals: Approvals
    is_stopping: bool

    def add_process(self, name: str, kind: Kind, parent: Process, *, program: str = "") -> Process:
        """A new process."""
        ...

    def end_process(self, process: Process, end: Exit) -> None:
        """A process has ended."""
        ...

    def note(self, process: Process, text: str) -> None:
        """Write into its log what the kernel has to say of it."""
        ...


class Programs:
    """The programs that run, and the handlers of the calls about those that do not."""

    def __init__(
        self, kernel: ProgramKernel, tokens: Tokens, launcher: Launcher, egress: Egress
    ) -> None:
        self._kernel = kernel
        self._launcher = launcher
        self._tokens = tokens
        self.sealer = Sealer(load_key(kernel.home.env_key) if kernel.is_durable else urandom(32))
        """Seals the environments that programs were started with."""
        self._bodies: dict[Pid, Body] = {}
        self.make_child: Callable[[Process, Clock, Launcher], Child] = partial(Child, egress=egress)
        """What runs a program; a simulation puts one here that starts no process of the operating system."""
        self._reading = Turns()
        self._ended: dict[Pid, Launched] = {}
        """How the programs were started that have ended, without their environment."""
        self.residents: Residents | None = None
        """The process table on disk, if there is one."""

    async def spawn(self, run: Run, call: Spawn) -> Process:
        """Start a program folder as a child of the caller; returns when it runs.

        Raises:
            InvalidCall: The manifest is malformed, or `env` sets a variable of the kernel's.
            NotFound: No such program or working directory.
            ProgramFailed: It could not be started.
        """
        kernel = self._kernel
        if not kernel.urls:
            raise ProgramFailed(
                "this kernel has no address for programs to call", hint="serve it on a socket"
            )
        if any(name.startswith("AIOS_") for name in call.env):
            raise InvalidCall("`env` may not set AIOS_ variables", hint="pass arguments instead")
        check_words((*call.args, *call.env, *call.env.values()))
        async with self._reading.turn(run):  # half a second, if the folder is made for it
            program = await anyio.to_thread.run_sync(load_program, call.program)
        network = network_of(run.process, program.manifest.network)
        manifest, view = program.manifest, view_for(call, program, run.process.view)
        parent = self.launched_of(run.process.pid)
        above = parent.restart if parent is not None else None
        restart = policy_below(call.restart or manifest.restart, above)
        digest = b""
        if restart.policy != "never":
            digest = await anyio.to_thread.run_sync(code_hash, program.folder)
        process = kernel.add_process(
            call.name or manifest.name, Kind.PROGRAM, run.process, program=str(program.folder)
        )
        kernel.budgets.limit(process, manifest.budget if call.budget is None else call.budget)
        block_bytes = kernel.config.memory.block_bytes
        inherit(process, run.process, call, manifest, block_bytes=block_bytes)
        process.network = network
        process.is_new = process.has_body = True
        process.view = view
        comes_back = kernel.is_durable or kernel.embedded
        if not comes_back and restart.policy in {"on-failure", "always"}:
            kernel.note(process, NOT_BACK)
        env = self.sealer.seal(call.env)
        launched = Launched(str(program.folder), call.args, view, env, digest, restart)
        await self.launch(run, process, launched, answer=Spawned(process.pid, process.name))
        return process

    async def launch(
        self,
        run: Run,
        process: Process,
        launched: Launched,
        *,
        answer: Answer,
    ) -> None:
        """Run a program behind a new process; returns when it runs.

        Raises:
            ProgramFailed: It could not be started.
        """
        kernel = self._kernel
        self._bodies[process.pid] = Body(launched)
        try:
            await self.keep(run, process, answer)
        except BaseException:  # else it would be there for ever, and never begin
            process.has_body = False
            kernel.end_process(process, Exit(126, "it could not be written down"))
            raise
        first = self.make_child(process, kernel.clock, self._launcher)
        kernel.tasks.start_soon(self._attend, process, first)
        await first.started.wait()
        if first.error is not None:
            raise first.error

    async def write_down(
        self,
        branches: Sequence[tuple[Process, Launched]],
        write: Callable[[apsw.Connection], T],
    ) -> T:
        """Put new processes into the table on disk, with what `write` writes of them; they are started later, by `start`."""
        for process, launched in branches:
            self._bodies[process.pid] = Body(launched)
            process.instruction = launched.instruction
        assert self.residents is not None, "a kernel without a journal branches nothing"
        return await self.residents.put([process for process, _ in branches], write)

    def start(self, process: Process) -> None:
        """Run a program that is told what its journal has, soon; one that cannot be started ends the process."""
        self._kernel.tasks.start_soon(self._begin_again, process)

    async def keep(self, run: Run, process: Process, answer: A) -> A:
        """Write a new process into the table on disk, with the answer of the call that made it. Returns: the answer."""
        if self.residents is not None:
            try:
                await self.residents.put([process], lambda each: run.sealed(each, answer))
            except BaseException:
                self._kernel.end_process(process, Exit(126, "it could not be written down"))
                raise
        return answer

    def readmit(self, guest: Guest) -> Guest:
        """A guest that was made before, with a new token if it still lives."""
        process = self._kernel.table.find(guest.pid)
        if process is None or not process.is_alive:
            return guest
        token = self._tokens.issue(guest.pid)
        self._changed(process)
        return msgspec.structs.replace(guest, token=token)

    def launched_of(self, pid: Pid) -> Launched | None:
        """How a program was started; of one that has ended without its environment. None for what is no program."""
        body = self._bodies.get(pid)
        return body.launched if body is not None else self._ended.get(pid)

    def first_needed(self, process: Process) -> int | None:
        """The first record that a program needs to be replayed; None for what is no program."""
        launched = self.launched_of(process.pid)
        if launched is None:
            return 1 if process.is_new else None
        return launched.first_seq

    def remember(self, process: Process, launched: Launched) -> None:
        """Know of a program of the kernel before how it was started, in case it is forked."""
        process.instruction = launched.instruction
        self._ended[process.pid] = msgspec.structs.replace(launched, env={})

    def adopt(self, process: Process, launched: Launched, question: Question | None) -> None:
        """Take in a program of the kernel before, to be started by `begin`; with a question, once it is answered."""
        process.has_body = True
        self._bodies[process.pid] = Body(launched, is_taken_in=True, question=question)

    def begin(self) -> None:
        """Start the programs that were taken in. Call it when the kernel has an address."""
        for pid in list(self._bodies):
            process = self._kernel.table.get(pid)
            if process.os_pid is None and process.is_alive:
                child = self.make_child(process, self._kernel.clock, self._launcher)
                self._kernel.tasks.start_soon(self._attend, process, child)

    def forget(self, pid: Pid) -> None:
        """The process has ended."""
        body = self._bodies.pop(pid, None)
        if body is not None:
            self._ended[pid] = msgspec.structs.replace(body.launched, env={})

    def drop(self, pid: Pid) -> None:
        """The process is no longer remembered."""
        self._ended.pop(pid, None)

    def diverge(self, run: Run, error: ReplayDivergence) -> bool:
        """A program asked otherwise than before. Returns: whether it goes on live; else the call fails."""
        process, body = run.process, self._bodies[run.process.pid]
        policy = body.launched.restart.on_divergence
        self._kernel.note(process, f"{error.message}; on_divergence is `{policy}`; {error.hint}")
        if policy == "live":
            if (disk := self._kernel.journal.disk) is not None and process.replay is not None:
                disk.leave(process.replay.left)
            process.end_replay()
            return True
        if policy == "fresh":
            body.wants_fresh = True
        else:
            self._kernel.signals.begin_end(process, Exit(1, error.message), but=run)
        if process.on_kill is not None:
            process.on_kill()
        return False

    def catch_up(self, process: Process, n_calls: int) -> None:
        """The last of a process's records was asked for: from now on it is served."""
        process.end_replay()
        self._kernel.note(process, f"is where it was, after {n_calls} calls")
        self._tell(process, "replayed", f"{n_calls} calls")

    # --- questions -----------------------------------------------------------------------------------------------

    async def questions(self, run: Run, _: Questions) -> QuestionList:
        """What is asked about the caller's descendants."""
        table = self._kernel.table
        found = (body.question for body in self._bodies.values() if body.question is not None)
        mine = (each for each in found if table.is_within(table.get(each.pid), run.process))
        return QuestionList(tuple(mine))

    async def answer(self, run: Run, call: AnswerQuestion) -> Question:
        """Decide what becomes of a process."""
        question, approvals = self.look(call), self._kernel.approvals
        settle(approvals, self._kernel.table.get(call.pid), call.choice, by=run.process.owner)
        self._bodies[call.pid].decide(call.choice)
        return question

    def look(self, call: AnswerQuestion) -> Question:
        """The question to an answer.

        Raises:
            Conflict: Nothing is asked about the process, or this is no answer to it.
        """
        body = self._bodies.get(call.pid)
        question = body.question if body is not None else None
        if question is None:
            raise Conflict(f"nothing is asked about process {call.pid}", hint="`aios recover ls`")
        if call.choice not in question.choices:
            raise Conflict(
                f"`{call.choice}` is no answer here: {question.why}",
                hint=f"one of {', '.join(question.choices)}",
            )
        return question

    # --- lives ---------------------------------------------------------------------------------------------------

    async def _begin_again(self, process: Process) -> None:
        """Read the journal of a new process, which may be killed meanwhile, and attend to its program."""
        end = process.exiting
        try:
            if end is None:
                with edge("the program"):
                    await self.prepare(process, is_replayed=True)
            end = process.exiting
        except AiosError as error:
            end = Exit(126, f"{error.code}: {error.message}")
        if end is None:
            child = self.make_child(process, self._kernel.clock, self._launcher)
            await self._attend(process, child)
            return
        process.has_body = False
        self._kernel.end_process(process, end)

    async def _attend(self, process: Process, child: Child) -> None:
        """All lives of a program, until it has ended."""
        kernel, body, end = self._kernel, self._bodies[process.pid], Exit(KILLED_STATUS, "killed")
        try:
            with edge("the program"):  # which changes its folder as it likes
                if body.is_taken_in and not await self._taken_up(process, body):
                    end = process.exiting or Exit(1, "its owner ended it after the kernel did")
                    return
                follow: float | None = 0.0
                while follow is not None:
                    end, follow = await self._live(process, body, child)
                    if follow is None:
                        return
                    if not await waited(process, anyio.sleep, follow, why="starts again soon"):
                        return
                    if not await self._is_let_on(process, body):
                        end = process.exiting or Exit(1, "its owner ended it after it crashed")
                        return
                    child = self.make_child(process, kernel.clock, self._launcher)
        except AiosError as error:
            end, child.error = Exit(126, f"{error.code}: {error.message}"), error
        finally:
            child.started.set()  # who waits for that is told, also if it came to nothing
            process.has_body = False
            if end.status and not process.exiting:
                kernel.note(process, f"exited with status {end.status} {end.reason}".rstrip())
            kernel.end_process(process, end)

    async def _live(self, process: Process, body: Body, child: Child) -> tuple[Exit, float | None]:
        """One life. Returns: its end, and after how many seconds the next one begins; None for never."""
        kernel, launched = self._kernel, body.launched
        token = self._tokens.issue(process.pid)
        process.on_end_soon = child.end_soon
        async with kept_code(
            Path(launched.program), partial(granted_to, kernel, process.program)
        ) as code:
            program = await anyio.to_thread.run_sync(load_program, launched.program, code.copy)
            take_grants(kernel, process, program, code.granted)
            env = self.sealer.open(launched.env)
            launch = Launch(
                program, launched.args, launched.view, env, kernel.urls[0], token, code=code.copy
            )
            if not launched.env or len(process.bounds) == 1:
                # an environment can have Python run other code, so a parent's makes it another program
                process.code = code.digest
            begun_s, steadying = kernel.clock.now_s(), anyio.CancelScope()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._note_started, process, body, child)
                tasks.start_soon(body.steady, steadying, partial(self._changed, process))
                end = await child.run(launch)
                steadying.cancel()
        if child.error is not None:
            return end, None
        process.end_replay()
        process.os_pid = None
        life = body.life(process, end, kernel.clock.now_s() - begun_s)
        follow = next_life(launched.restart, life)
        if follow is None or kernel.is_stopping:
            return end, None
        body.wants_fresh = False
        body.count(follow.n_crashes)
        self._changed(process)
        asked = process.exiting
        await process.wait_quiet()
        if process.exiting is not asked or process.is_terminated:  # it was killed meanwhile
            return end, None
        process.exiting = None
        is_replayed = follow.is_replayed and kernel.journal.disk is not None
        how = "with its journal" if is_replayed else "from the beginning"
        why = f"{end.status} {end.reason}".rstrip()
        kernel.note(process, f"ended ({why}); starts again {how} in {follow.delay_s:g} s")
        prepare = partial(self.prepare, process, is_replayed=is_replayed, is_crash=True)
        await with_disk(process, prepare)
        return end, follow.delay_s

    async def prepare(self, process: Process, *, is_replayed: bool, is_crash: bool = False) -> None:
        """Give a process its journal to answer from, or cut it off from what was before, and from its children."""
        body = self._bodies[process.pid]
        disk = self._kernel.journal.disk if is_replayed else None
        self._kernel.context_table.close_all(process)
        self._kernel.storage.drafts.close(process.pid)
        if disk is None:
            first = process.n_journalled + 1
            body.launched = msgspec.structs.replace(body.launched, first_seq=first)
            self._changed(process)
            self._kernel.tools.begin_anew(process)
        else:
            before = body.launched.first_seq - 1  # a fork of a later life may have no record of it
            rows = await disk.load(process.pid, after=before)
            work = await disk.read(partial(read_work, pid=process.pid, after=before))
            seqs = [row.record.seq for row in rows]
            process.n_journalled = max(process.n_journalled, before, *seqs)
            for record in failed_of([row.record for row in rows]) if is_crash else ():
                self._kernel.note(process, f"call {record.seq} ({record.call}) is made again")
                disk.take_back(record)
            process.replay = Replay(rows, work) if rows else None
        if process.replay is None:  # a crash may have come between its beginning anew and this
            await self._kernel.signals.end_children(process)

    async def _note_started(self, process: Process, body: Body, child: Child) -> None:
        """Write down which process of the operating system it is, for a kernel that finds it left over."""
        await child.started.wait()
        if child.error is None and process.os_pid is not None:
            body.launched = msgspec.structs.replace(
                body.launched, os_pid=process.os_pid, os_start=os_start_of(process.os_pid)
            )
            self._tell(process, "started")
            self._changed(process)

    async def _taken_up(self, process: Process, body: Body) -> bool:
        """Settle what the kernel before left open, if need be as the owner decides. Returns: whether the program is started."""
        if body.question is not None:
            return await self._decided(process, body, self._settle_open)
        return await with_disk(process, partial(self._settle_open, process, body))

    async def _is_let_on(self, process: Process, body: Body) -> bool:
        """Look at the code before the next life: one that is another is not replayed without its owner's word. Returns: whether it is started."""
        before = body.launched
        await self._take_new_code(process, body)
        if process.replay is None or body.launched.code_hash == before.code_hash:
            return True
        body.launched = before  # until it is answered, also under another kernel
        body.ask(Question(process.pid, process.name, CODE_CHANGED, CODE_CHOICES))
        return await self._decided(process, body, self._begun_anew)

    async def _begun_anew(self, process: Process, body: Body) -> None:
        if body.choice == "fresh":
            process.end_replay()
            await self.prepare(process, is_replayed=False)

    async def _decided(
        self, process: Process, body: Body, act: Callable[[Process, Body], Awaitable[None]]
    ) -> bool:
        """Ask its owner, and act by the answer. Returns: whether the program is started."""
        question = body.question
        assert question is not None, "there is something to be asked"
        self._kernel.note(process, f"{question.why}; `aios recover` decides")
        async with asked_owner(self._kernel.approvals, process, question, body.decide):
            waits = "waits for its owner: aios recover"
            if not await waited(process, body.answered.wait, why=waits) or body.choice == "end":
                return False
            await self._take_new_code(process, body)
            return await with_disk(process, partial(act, process, body))

    async def _settle_open(self, process: Process, body: Body) -> None:
        disk, is_again = self._kernel.journal.disk, body.choice == "again"
        assert disk is not None, "a kernel without a journal took in a program"
        await disk.settle_open(process.pid, partial(end_of_open, is_again=is_again))
        self._kernel.approvals.settle_doubts(process.pid, is_again=is_again)
        await self.prepare(process, is_replayed=body.choice != "fresh")

    async def _take_new_code(self, process: Process, body: Body) -> None:
        digest = await anyio.to_thread.run_sync(partial(code_hash, process.program))
        body.launched = msgspec.structs.replace(body.launched, code_hash=digest)

    def _changed(self, process: Process) -> None:
        if self.residents is not None:
            self.residents.note(process)

    def _tell(self, process: Process, what: str, detail: str = "") -> None:
        self._kernel.journal.tell(process.pid, what, detail)
