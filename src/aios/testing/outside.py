"""The world outside on which tools act: what they did there stays, whatever becomes of the kernel.

One tool for each effect class, one that another undoes, one that may be called twice, and one that looks. Each takes its time before and
after its effect, and may fail on either side of it. What a kernel is still about to do when its power fails does not happen.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from aios.abi.tools import EffectName, Traits
from aios.errors import ToolFailed
from aios.kernel.tools.builtin.making import make, string
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job, Tool

LOOK, UNDONE, UNDO, TWICE = "look", "undoable", "undo", "twice"
EFFECTS: tuple[EffectName, ...] = ("reversible", "compensable", "irreversible")
TAKES_S = 0.05
"""The longest that a tool takes on each side of its effect."""

Strikes = Callable[[str], bool]
"""Whether a fault of that name happens now."""


class Outside:
    """What is done there, in order: by whom, and what."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.n_begun = 0
        self._last: dict[str, str] = {}
        self._by_key: dict[str, tuple[str, str]] = {}
        self.n_undone = 0

    def begin(self, who: str, what: str, effect: EffectName) -> None:
        """Somebody is about to do something."""
        self.n_begun += 1
        if effect == "irreversible":
            self._last[who] = what

    def do(self, who: str, what: str, key: str = "") -> None:
        """It is done; what is done again with its key is there once."""
        if not key or key not in self._by_key:
            self.done.append((who, what))
            self._by_key[key] = who, what

    def undo(self, key: str) -> bool:
        """Take back what was done with that key. Returns: whether anything was."""
        done = self._by_key.pop(key, None)
        if done is not None:
            self.done.remove(done)
        return done is not None

    def of(self, who: str) -> list[str]:
        """What somebody did, in order, each as often as it was done."""
        return [what for name, what in self.done if name == who]

    def is_last_done(self, who: str) -> bool:
        """Whether the last act of somebody that cannot be undone was done."""
        return (who, self._last.get(who, "")) in self.done


class Hands:
    """Carries tools out.

    Args:
        outside: Where they act.
        wait: Waits for a part of the time that a tool takes; for ever once the power has failed.
        strikes: Whether a tool fails now.
    """

    def __init__(
        self, outside: Outside, wait: Callable[[], Awaitable[None]], strikes: Strikes
    ) -> None:
        self._outside = outside
        self._wait = wait
        self._strikes = strikes

    def tools(self) -> list[Tool]:
        """All of them, to be installed in a kernel."""
        what = {"what": string("What is to be there.")}
        keyed = {**what, "key": string("Of the call.")}
        look = make(
            LOOK,
            "Look whether it is there.",
            self._look,
            parameters=what,
            traits=Traits(effect="pure"),
        )
        undoable = Traits(effect="compensable", undo=UNDO, key="key")
        twice = Traits(effect="reversible", is_idempotent=True, key="key")
        act = partial(self._do, effect="compensable")
        return [
            look,
            make(UNDONE, "Do it; it can be undone.", act, parameters=keyed, traits=undoable),
            make(TWICE, "Do it; twice is once.", act, parameters=keyed, traits=twice),
            make(
                UNDO,
                "Undo it.",
                self._undo,
                parameters=keyed,
                traits=Traits(effect="compensable", key="key"),
            ),
            *(
                make(
                    effect,
                    f"Do it; {effect}.",
                    partial(self._do, effect=effect),
                    parameters=what,
                    traits=Traits(effect=effect),
                )
                for effect in EFFECTS
            ),
        ]

    async def _look(self, job: Job) -> Outcome:
        await self._wait()
        found = (job.run.process.name, job.text("what")) in self._outside.done
        return Outcome("yes" if found else "no")

    async def act(self, who: str, what: str, *, effect: EffectName, key: str = "") -> str:
        """Do something for somebody. Returns: what was done.

        Raises:
            ToolFailed: It failed, before it was done or behind that.
        """
        await self._wait()
        self._outside.begin(who, what, effect)
        if self._strikes("tool failed before"):
            raise ToolFailed("it did nothing", hint="ask again")
        self._outside.do(who, what, key)
        await self._wait()
        if self._strikes("tool failed after"):
            raise ToolFailed("who knows", hint="look")
        return what

    async def undo(self, key: str) -> str:
        """Undo what was done with that key.

        Raises:
            ToolFailed: It failed, before it was undone or behind that.
        """
        await self._wait()
        if self._strikes("undo failed before"):
            raise ToolFailed("it undid nothing", hint="look")
        self._outside.n_undone += self._outside.undo(key)
        await self._wait()
        if self._strikes("undo failed after"):
            raise ToolFailed("who knows", hint="look")
        return "undone"

    async def _do(self, job: Job, effect: EffectName) -> Outcome:
        who, what, key = job.run.process.name, job.text("what"), job.text("key")
        return Outcome(await self.act(who, what, effect=effect, key=key))

    async def _undo(self, job: Job) -> Outcome:
        return Outcome(await self.undo(job.text("key")))


async def takes(seconds: float, is_over: Callable[[], bool]) -> None:
    """Let time pass; where the power has failed meanwhile, nothing comes after."""
    await anyio.sleep(seconds)
    if is_over():
        await anyio.sleep_forever()
