"""Which calls of tools may run now: readers share, writers exclude, a tool runs no more often at once than it says. Pure.

A call gets all that it needs at once or nothing, so no two calls ever wait for each other. It waits behind every call of a better
rank that wants the same, even one that waits itself. One thing is let by: a reader joins readers that run, since who waits for
those waits anyhow; but it joins them early, not when they are about to end (calls of a tool are taken to last as they last lately), and no
waiting call is passed more than `MAX_PASSED` times, so a stream of readers cannot keep a writer out.

The rank is by *start tags*: the n-th call of an agent has the tag n, counted from the least tag of a call that runs or waits when the
agent is new; one that comes back keeps its count, but at most `CREDIT` below that. So who had less comes first, and who asks for a
hundred things at once lets others in between. Each arrival adds `1 / AGE` to the ranks after it, so that everybody is first some day.
Source: start-time fair queueing, Goyal et al., 1996. In the bench's load this and the joining of readers bring the makespan from
1.07 to 1.26 times that of the best schedule found by search, which knows all that will be asked, to 1.06 to 1.10 times (seven shapes, ten loads each);
where calls end a little apart, that readers join early alone brings 1.10 to 1.08, and two calls at once from 1.17 to 1.13.

The scheduler's lanes could hold the parallel limits, but then a call would hold its footprint while it queues for a turn, and keep
out all that need the one and not the other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec import Struct

from aios.abi.types import Pid
from aios.kernel.tools.footprint import Footprint, Key, overlap

CREDIT = 4
"""Calls that an agent may be behind the others and still get when it comes back."""
AGE = 64
"""Arrivals that weigh as much as one call more."""
MAX_PASSED = 8
LATE = 0.5
"""A reader may outlast those that it joins by so much of the time that it takes."""
RECENT = 0.2
"""What the last call of a tool weighs in what is known of how long they take."""
MAX_TOOLS = 4_096
"""Of which that is known."""

Rank = tuple[float, int]


class Claim(Struct, frozen=True):
    """What a call needs: its footprint, and one of the `max_parallel` places (0: no limit) of its tool, or of its family at the tool."""

    id: int
    pid: Pid
    tool: str
    footprint: Footprint
    max_parallel: int = 0
    family: str = ""
    """Of the caller, if each family has places of its own."""

    @property
    def places(self) -> tuple[str, str]:
        """Whose places are counted together."""
        return self.tool, self.family


@dataclass
class Keys:
    """Keys that are taken, counted here and for each folder above them, so that a look-up costs the depth of a key."""

    _at: dict[Key, list[int]] = field(default_factory=dict)
    _below: dict[Key, list[int]] = field(default_factory=dict)

    def add(self, footprint: Footprint, step: int = 1) -> None:
        """Take a footprint in, or out again with `step` -1."""
        for is_write, keys in ((0, footprint.reads), (1, footprint.writes)):
            for key in keys:
                _count(self._at, key, is_write, step)
                for i in range(len(key)):
                    _count(self._below, key[:i], is_write, step)

    def is_free(self, footprint: Footprint) -> bool:
        """Whether nothing in here conflicts with the footprint."""
        return not (
            any(self._is_taken(key, readers=True) for key in footprint.writes)
            or any(self._is_taken(key, readers=False) for key in footprint.reads)
        )

    def has_reader(self, key: Key) -> bool:
        """Whether somebody reads what the key covers, or something that covers it."""
        ways = [self._at.get(key[:i]) for i in range(len(key) + 1)]
        return any(count is not None and count[0] for count in (*ways, self._below.get(key)))

    def _is_taken(self, key: Key, *, readers: bool) -> bool:
        for i in range(len(key) + 1):
            count = self._at.get(key[:i])
            if count is not None and (count[1] or (readers and count[0])):
                return True
        count = self._below.get(key)
        return count is not None and bool(count[1] or (readers and count[0]))

    def __bool__(self) -> bool:
        return bool(self._at)


class Conflicts:
    """The calls that run and those that wait."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._running: dict[int, Claim] = {}
        self._waiting: dict[int, Claim] = {}
        self._ranks: dict[int, Rank] = {}
        self._taken = Keys()
        self._n_running: dict[tuple[str, str], int] = {}
        self._n_passed: dict[int, int] = {}
        """How often each waiting call was passed by readers that joined others."""
        self._tags: dict[int, int] = {}
        self._next_tag: dict[Pid, int] = {}
        self._n_arrived = 0
        self._now_s = 0.0
        self._begun_s: dict[int, float] = {}
        self._usual_s: dict[str, float] = {}
        """How long calls of a tool take, lately."""

    def arrive(self, claim: Claim, now_s: float = 0.0) -> list[int] | None:
        """A call wants to run. Returns: the calls that begin now, perhaps just it; None if too many wait already."""
        self._now_s = now_s
        if len(self._waiting) >= self._max_waiting:
            return None
        self._n_arrived += 1
        least = min(self._tags.values(), default=self._next_tag.get(claim.pid, 0))
        tag = max(self._next_tag.get(claim.pid, least), least - CREDIT)
        self._next_tag[claim.pid] = tag + 1
        self._tags[claim.id] = tag
        self._waiting[claim.id] = claim
        self._n_passed[claim.id] = 0
        self._ranks[claim.id] = (tag + self._n_arrived / AGE, self._n_arrived)
        return self._admit_new(claim)

    def leave(self, claim_id: int, now_s: float = 0.0) -> list[int]:
        """A call is done, or no longer wants to run. Returns: the calls that begin now."""
        self._now_s = now_s
        del self._tags[claim_id]
        running = self._running.pop(claim_id, None)
        if running is not None:
            self._learn(running.tool, now_s - self._begun_s.pop(claim_id))
            self._taken.add(running.footprint, -1)
            self._n_running[running.places] -= 1
            if not self._n_running[running.places]:
                del self._n_running[running.places]
        else:
            self._stop_waiting(self._waiting[claim_id])
        return self._admit()

    def forget(self, pid: Pid) -> None:
        """An agent has ended; it has no calls."""
        self._next_tag.pop(pid, None)

    def blockers(self, claim_id: int) -> list[Claim]:
        """The running calls for which a waiting one waits; none if it waits for its place behind others that wait."""
        claim = self._waiting[claim_id]
        return [
            other
            for other in self._running.values()
            if claim.footprint.conflicts(other.footprint)
            or (claim.max_parallel and other.places == claim.places)
        ]

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """For each tool how many calls run and how many wait."""
        found: dict[str, list[int]] = {}
        for i, claims in enumerate((self._running, self._waiting)):
            for claim in claims.values():
                found.setdefault(claim.tool, [0, 0])[i] += 1
        return {tool: (running, waiting) for tool, (running, waiting) in found.items()}

    def _admit_new(self, claim: Claim) -> list[int]:
        """Begin a call that has just come, if it may; nothing was let go for those that wait. Cost: linear in these."""
        if not self._may_begin(claim):
            return []
        rank = self._ranks[claim.id]
        before = [
            each
            for each in self._waiting.values()
            if self._ranks[each.id] < rank and each.footprint.conflicts(claim.footprint)
        ]
        if before and not self._may_join(claim, before):
            return []
        self._begin(claim)
        return [claim.id]

    def _admit(self) -> list[int]:
        """Begin all that may begin, by rank. Cost: linear in those that wait, and the depth of their keys."""
        begun: list[int] = []
        before: list[Claim] = []
        wanted, n_wanted = Keys(), 0
        for claim_id in sorted(self._waiting, key=self._ranks.__getitem__):
            claim = self._waiting[claim_id]
            if self._may_begin(claim):
                for each in before[n_wanted:]:
                    wanted.add(each.footprint)
                n_wanted = len(before)
                if wanted.is_free(claim.footprint) or self._may_join(claim, before):
                    self._begin(claim)
                    begun.append(claim_id)
                    continue
            before.append(claim)
        return begun

    def _may_join(self, claim: Claim, before: list[Claim]) -> bool:
        """Whether a reader may pass those that wait before it and join readers that run; then they were passed once more."""
        reads = claim.footprint.reads
        if claim.footprint.writes or not all(self._taken.has_reader(key) for key in reads):
            return False
        if self._is_late(claim):
            return False
        passed = [each.id for each in before if each.footprint.conflicts(claim.footprint)]
        if any(self._n_passed[each] >= MAX_PASSED for each in passed):
            return False
        for each in passed:
            self._n_passed[each] += 1
        return True

    def _is_late(self, claim: Claim) -> bool:
        """Whether it would go on for long when all whose reads it joins have ended, so that who waits for those waits longer."""
        usual_s = self._usual_s.get(claim.tool, 0.0)
        joined = [
            each
            for each in self._running.values()
            if any(overlap(one, other) for one in claim.footprint.reads for other in each.footprint.reads)
        ]  # fmt: skip
        ends_s = [self._begun_s[each.id] + self._usual_s.get(each.tool, usual_s) for each in joined]
        return self._now_s + usual_s - max(ends_s, default=self._now_s) > LATE * usual_s

    def _learn(self, tool: str, took_s: float) -> None:
        if len(self._usual_s) >= MAX_TOOLS:
            self._usual_s.clear()
        before_s = self._usual_s.get(tool, took_s)
        self._usual_s[tool] = before_s + RECENT * (took_s - before_s)

    def _may_begin(self, claim: Claim) -> bool:
        n_running = self._n_running.get(claim.places, 0)
        if claim.max_parallel and n_running >= claim.max_parallel:
            return False
        return self._taken.is_free(claim.footprint)

    def _begin(self, claim: Claim) -> None:
        self._stop_waiting(claim)
        self._running[claim.id] = claim
        self._begun_s[claim.id] = self._now_s
        self._taken.add(claim.footprint)
        self._n_running[claim.places] = self._n_running.get(claim.places, 0) + 1

    def _stop_waiting(self, claim: Claim) -> None:
        del self._waiting[claim.id], self._ranks[claim.id], self._n_passed[claim.id]

    def check_invariants(self) -> None:
        """Raise AssertionError if two that conflict run, or one that could run waits for no reason."""
        running = list(self._running.values())
        for i, claim in enumerate(running):
            for other in running[:i]:
                assert not claim.footprint.conflicts(other.footprint), "two run that conflict"
            assert not claim.max_parallel or self._n_running[claim.places] <= claim.max_parallel
        assert not set(self._running) & set(self._waiting), "a call runs and waits"
        assert set(self._begun_s) == set(self._running)
        assert set(self._ranks) == set(self._n_passed) == set(self._waiting)
        assert set(self._tags) == {*self._running, *self._waiting}
        assert max(self._n_passed.values(), default=0) <= MAX_PASSED
        assert bool(self._taken) == any(_keys(claim.footprint) for claim in running)
        first = min(self._waiting, key=self._ranks.__getitem__, default=None)
        assert first is None or self.blockers(first), "the first waits for nobody"


def _count(counts: dict[Key, list[int]], key: Key, is_write: int, step: int) -> None:
    found = counts.setdefault(key, [0, 0])
    found[is_write] += step
    if not any(found):
        del counts[key]


def _keys(footprint: Footprint) -> Iterable[Key]:
    return footprint.reads | footprint.writes
