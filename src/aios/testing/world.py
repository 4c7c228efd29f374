"""The world around a simulated kernel: its clock, its disk, its faults, and the ledger of what it did.

Everything is decided by one seed. `Faults` says when what fails; the world counts steps and writes and lets it happen.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import apsw
from msgspec import Struct

from aios.testing.disk import FaultyDisk, Kind
from aios.testing.ledger import Ledger, Trace
from aios.testing.loop import VirtualClock, VirtualSelector
from aios.testing.outside import TAKES_S, Hands, Outside, takes

if TYPE_CHECKING:
    from collections.abc import Callable

CALM_AFTER_S = 400.0
"""From then on nothing fails by chance any more, so that everything can come to its end."""
MAX_STEPS = 60_000
SERVING_DIGITS = (1, 5)
"""Seeds that end so have a program that serves its functions as tools. No older seed of a bug does: each still means the run that found it."""
ENDLESS_DIGITS = (5,)
"""Seeds that end so have programs, too, which always start again until the owner kills them. No older seed of a bug does."""
PROGRAM = Path(__file__).with_name("program")
"""Runs are given a copy: a grant holds for no folder with compiled Python, which a checkout has or has not."""
"""Not in the scratch folder, whose name is random: it is in what the journal keeps, and so in the order of its index."""


class Faults(Struct, frozen=True):
    """What one seed lets happen; 0 or () leaves it out."""

    crash_at_writes: tuple[int, ...] = ()
    """The power fails before this write or sync, counted within one life of the kernel; one life each."""
    crash_at_steps: tuple[int, ...] = ()
    """The same by steps of the loop: at any await. The lives after those above."""
    disk_share: float = 0.0
    """Of writes and syncs, so many are answered with an error."""
    is_disk_full: bool = False
    """What it says then: that it is full, else that it failed."""
    engine_share: float = 0.0
    """Of generations, so many break off."""
    cut_share: float = 0.0
    """Of a client's calls, so many are cancelled at some step: the client is gone."""
    program_share: float = 0.0
    """Of a program's calls, so many crash the program at some step of theirs."""
    tool_share: float = 0.0
    """Of runs of tools, so many fail, on either side of their effect."""
    thread_s: float = 0.0
    """The mean time that work in a thread takes."""
    sweep_s: float = 0.0
    """So often the journal forgets all that no living process needs, as long as programs run; 0: never."""
    function_share: float = 0.0
    """Of calls of functions that a program serves, so many crash that program at some step of theirs."""


def draw_faults(draw: random.Random) -> Faults:
    """The faults of a seed: each kind in a part of the seeds, so that some runs have one alone."""

    def sometimes(share: float, most: float) -> float:
        return draw.uniform(0, most) if draw.random() < share else 0.0

    n_crashes = draw.choice((0, 1, 1, 2))
    by_write = draw.random() < 0.5
    moments = tuple(draw.randrange(1, 250 if by_write else 2_500) for _ in range(n_crashes))
    return Faults(
        crash_at_writes=moments if by_write else (),
        crash_at_steps=() if by_write else moments,
        disk_share=sometimes(0.25, 0.1),
        is_disk_full=draw.random() < 0.5,
        engine_share=sometimes(0.4, 0.4),
        cut_share=sometimes(0.5, 0.5),
        program_share=sometimes(0.3, 0.1),
        thread_s=sometimes(0.7, 0.2),
        sweep_s=draw.choice((0.0, draw.uniform(0.5, 8.0))),
        tool_share=sometimes(0.4, 0.3),
        function_share=sometimes(0.6, 0.4),
    )


def draw_errands(draw: random.Random) -> list[str]:
    """What the owner does in a seed, in order."""
    kinds = (
        (),
        ("fork",),
        ("put away", "bring back", "throw away"),
        ("branch", "discard"),
        ("timer", "end timer"),
        ("cron", "end cron"),
    )
    return list(*draw.choices(kinds, (9, 3, 3, 2, 2, 1)))


@dataclass(eq=False)
class Life:
    """One life of a kernel, from its start to a crash or the end of the run."""

    number: int
    folder: Path
    """Where its files are."""
    crashed: anyio.Event = field(default_factory=anyio.Event)
    image: dict[str, bytes] | None = None
    """What the disk held when the power failed."""
    n_writes: int = 0
    n_steps: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the power has failed: what happens after that has not happened."""
        return self.image is not None


class World:
    """All that is outside the kernel in one run.

    Args:
        seed: Of what happens by chance.
        faults: What fails, and how often.
        program: The folder of the program that all agents run.
    """

    def __init__(self, seed: int, faults: Faults, program: Path) -> None:
        self.seed = seed
        self.faults = faults
        self.program = program
        self.draw = random.Random(f"world {seed}")  # noqa: S311 - repeatable on purpose
        self.ledger = Ledger()
        self.trace = Trace()
        self.injected: Counter[str] = Counter()
        self.selector = VirtualSelector(self._on_step)
        self.disk = FaultyDisk(f"sim-{seed}", before=self._before_write, is_default=True)
        self.clock = VirtualClock(self.selector)
        self.outside = Outside()
        self.errands = draw_errands(random.Random(f"errands {seed}"))  # noqa: S311 - repeatable on purpose
        """What the owner has still to do."""
        if seed % 10 in ENDLESS_DIGITS:
            self.errands += ["endless", "end endless"]
        self.served: set[int] = set()
        """The calls of tools that were carried out by a function, by their numbers."""
        self.life: Life | None = None
        self.check: Callable[[], None] | None = None
        """Looked at after each step of the kernel."""
        self.doomed: list[tuple[int, anyio.CancelScope]] = []
        """Scopes that are cancelled at a step."""

    @property
    def is_calm(self) -> bool:
        """Whether faults by chance are over."""
        return self.selector.now_s > CALM_AFTER_S

    @property
    def has_server(self) -> bool:
        """Whether a program serves its functions as tools."""
        return self.seed % 10 in SERVING_DIGITS

    def hands(self) -> Hands:
        """What acts outside in this life of the kernel."""
        life = self.life
        assert life is not None, "tools run within a life of the kernel"

        async def wait() -> None:
            await takes(self.draw.uniform(0, TAKES_S), lambda: life.is_over)

        return Hands(self.outside, wait, partial(self.strikes, self.faults.tool_share))

    def strikes(self, share: float, what: str) -> bool:
        """Whether a fault of this kind happens now."""
        if self.is_calm or self.draw.random() >= share:
            return False
        self.note(what)
        return True

    def note(self, what: str) -> None:
        """A fault was injected."""
        self.injected[what] += 1
        self.trace.add("fault", what, self.selector.n_steps)

    def doom(self, scope: anyio.CancelScope) -> None:
        """Cancel a scope within the next steps."""
        self.doomed.append((self.selector.n_steps + self.draw.randrange(1, 60), scope))

    def begin_life(self, number: int, folder: Path) -> Life:
        """A kernel starts, on the files in a folder."""
        self.life = Life(number, folder)
        return self.life

    def _on_step(self, n_steps: int) -> None:
        if n_steps > MAX_STEPS:
            raise AssertionError(f"no end after {MAX_STEPS} steps")
        for step, scope in self.doomed:
            if step <= n_steps:
                scope.cancel()
        self.doomed = [each for each in self.doomed if each[0] > n_steps]
        life = self.life
        if life is None or life.is_over:
            return
        life.n_steps += 1
        if life.n_steps in self._moments(self.faults.crash_at_steps, life):
            self._crash(life, "crash at a step")
        elif self.check is not None:
            self.check()

    def _before_write(self, kind: Kind, name: str, offset: int, size: int) -> None:
        life = self.life
        if life is None or life.is_over:  # the machine is off: where this goes, nobody looks
            return
        life.n_writes += 1
        self.trace.add(kind, name, offset, size)
        if life.n_writes in self._moments(self.faults.crash_at_writes, life):
            self._crash(life, f"crash at a {kind}")
        elif self.strikes(self.faults.disk_share, "disk error"):
            raise apsw.FullError("full") if self.faults.is_disk_full else apsw.IOError("failed")

    def _moments(self, moments: tuple[int, ...], life: Life) -> tuple[int, ...]:
        return moments[life.number : life.number + 1]

    def _crash(self, life: Life, what: str) -> None:
        self.note(what)
        life.image = files_in(life.folder)  # those that it has not opened yet are as they were
        for path, content in self.disk.contents(self.draw, life.folder).items():
            life.image[path.relative_to(life.folder).as_posix()] = content
        life.crashed.set()


def files_in(folder: Path) -> dict[str, bytes]:
    """The databases of a home with their logs, and its snapshots of contexts, by their paths in it."""
    found = (
        path for pattern in ("*.db", "*.db-wal", "contexts/*/*") for path in folder.glob(pattern)
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(found)}
