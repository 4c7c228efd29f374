"""Dead letters: what could not be delivered and is kept because its sender asked for it, to be read, sent again or dropped.

There is room for as much as in one mailbox; beyond that the oldest go. They outlive processes and kernels.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack

import apsw

from aios.abi.call import Answer, Done
from aios.abi.deadletters import DeadLetter, DeadLetterDrop, DeadLetterList, DeadLetters
from aios.abi.mail import Letter
from aios.errors import NotFound
from aios.kernel.access.manager import AccessManager
from aios.kernel.journal.disk import JournalDisk
from aios.kernel.mail import tables
from aios.kernel.mail.box import letter_bytes
from aios.kernel.process import INIT_PID, Process, Run
from aios.kernel.process_table import ProcessTable
from aios.kernel.taint import take

MAX_PAGE_BYTES = 4 << 20


class DeadBox:
    """The letters themselves, by number. Pure."""

    def __init__(self, max_letters: int, max_bytes: int) -> None:
        self._max_letters = max_letters
        self._max_bytes = max_bytes
        self._dead: OrderedDict[int, DeadLetter] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._dead)

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(self._dead.values())

    def find(self, number: int) -> DeadLetter | None:
        """The letter of that number."""
        return self._dead.get(number)

    def put(self, dead: Iterable[DeadLetter]) -> list[DeadLetter]:
        """Add letters. Returns: the oldest, which had to go for them; one letter always fits."""
        dead = list(dead)
        assert all(each.letter.id not in self._dead for each in dead), "a letter dies once"
        self.put_back(dead)
        gone = []
        while len(self._dead) > 1 and self._is_over():
            gone.append(self.remove(next(iter(self._dead))))
        return gone

    def remove(self, number: int) -> DeadLetter:
        """Take a letter out."""
        dead = self._dead.pop(number)
        self.size_bytes -= letter_bytes(dead.letter)
        return dead

    def put_back(self, dead: Iterable[DeadLetter]) -> None:
        """Letters that were taken out were not, after all."""
        for each in dead:
            is_last = not self._dead or next(reversed(self._dead)) < each.letter.id
            self._dead[each.letter.id] = each
            self.size_bytes += letter_bytes(each.letter)
            if (
                not is_last
            ):  # it was sent before others and died after them; pages of the list go by number
                self._dead = OrderedDict(sorted(self._dead.items()))

    def _is_over(self) -> bool:
        return len(self._dead) > self._max_letters or self.size_bytes > self._max_bytes

    def check_invariants(self) -> None:
        """Raise AssertionError if the box counts wrong, lost its order or holds too much."""
        assert self.size_bytes == sum(letter_bytes(each.letter) for each in self._dead.values())
        assert list(self._dead) == sorted(self._dead), "dead letters are not in order"
        assert len(self._dead) <= 1 or not self._is_over(), "too many dead letters"


class DeadLetterOffice:
    """The handlers of the calls that read and drop dead letters, and where they lie."""

    def __init__(
        self,
        box: DeadBox,
        table: ProcessTable,
        access: AccessManager,
        *,
        disk: JournalDisk | None,
    ) -> None:
        self.box = box
        self._table = table
        self._access = access
        self._disk = disk

    async def list_all(self, run: Run, call: DeadLetters) -> DeadLetterList:
        """Those that the caller may see, page by page."""
        page, size_bytes = list[DeadLetter](), 0
        for dead in self.box:
            if dead.letter.id <= call.after or not self._sees(run.process, dead.letter):
                continue
            size_bytes += letter_bytes(dead.letter)
            if len(page) == call.limit or (page and size_bytes > MAX_PAGE_BYTES):
                return DeadLetterList(tuple(page), page[-1].letter.id)
            page.append(dead)
            take(run, dead.letter.taint, f"dead letter {dead.letter.id}")
        return DeadLetterList(tuple(page), None)

    async def drop(self, run: Run, call: DeadLetterDrop) -> Done:
        """Forget one."""
        self.get(run.process, call.id)
        await self.write(run, Done(), removed=[call.id])
        return Done()

    def get(self, process: Process, number: int) -> DeadLetter:
        """A dead letter that a process may see.

        Raises:
            NotFound: There is none of that number for it.
        """
        dead = self.box.find(number)
        if dead is None or not self._sees(process, dead.letter):
            raise NotFound(f"no dead letter {number}", hint="`aios mail dead` lists them")
        return dead

    async def write(
        self,
        run: Run,
        answer: Answer,
        *,
        buried: Sequence[DeadLetter] = (),
        removed: Sequence[int] = (),
        also: Callable[[apsw.Connection], None] = lambda _: None,
    ) -> None:
        """Return when letters are dead, or no longer, and `also` is written, all of it on disk; or raise, and nothing has changed."""
        taken = [self.box.remove(number) for number in removed]
        gone = self.box.put(buried)
        if self._disk is None:
            return

        def write(connection: apsw.Connection) -> None:
            tables.bury(connection, buried)
            tables.forget_dead(connection, [*removed, *(each.letter.id for each in gone)])
            also(connection)
            run.sealed(connection, answer)

        with ExitStack() as undo:
            undo.callback(self._undo, buried, [*taken, *gone])
            await self._disk.write(write)
            undo.pop_all()

    def bury_soon(self, dead: Sequence[DeadLetter]) -> None:
        """Letters have died with their receiver; never waits."""
        gone = self.box.put(dead)
        if self._disk is not None and dead:
            ids = [each.letter.id for each in gone]
            self._disk.add(lambda connection: tables.bury(connection, dead))
            self._disk.add(lambda connection: tables.forget_dead(connection, ids))

    def _undo(self, buried: Sequence[DeadLetter], removed: Sequence[DeadLetter]) -> None:
        for each in buried:
            if self.box.find(each.letter.id) is not None:
                self.box.remove(each.letter.id)
        self.box.put_back(removed)

    def _sees(self, process: Process, letter: Letter) -> bool:
        """The owner sees all; others what they or those below them sent or should have got."""
        if process.pid == INIT_PID:
            return True
        ends = (self._table.find(pid) for pid in (letter.sender, letter.to))
        return any(end is not None and self._access.may_reach(process, end) for end in ends)
