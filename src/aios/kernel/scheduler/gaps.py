"""Tool gaps: what becomes of an agent's pages while it is elsewhere between two of its calls. Pure.

Between two calls of an agent a tool runs, or somebody reads. How long that takes is learned by program and by the tools that
the model has just asked for. Then:

    keep       the agent is back before memory turns over: its pages are evicted after those of all that are not expected
    page out   it stays away for longer: its pages are written to disk now, so that nobody has to wait for that later
    fetch      shortly before it is expected back, what left memory is read again

Memory turns over in the time in which as many pages are evicted as it holds. A page that is kept through a longer gap takes
the place of one that somebody else would have used meanwhile; this is the five-minute rule of Gray and Putzolu, 1987, applied
to what the agents do. Slots are not kept: to fill one again from memory takes 3 us a token, and a slot that waits serves
nobody.
Source: choosing what to do by its cost, InferCept, arXiv 2402.01869; keeping for a time that is learned by tool, Continuum,
2511.02230.
"""

from collections import OrderedDict, deque
from math import inf

from msgspec import Struct

from aios.abi.types import Pid

N_GAPS = 15
"""Gaps that are remembered of each kind; older ones say less."""
N_FEWEST = 3
"""Gaps before which nothing is said of a kind."""
N_KINDS = 1024
SOONEST, USUAL, LATEST = 0.25, 0.5, 0.9
"""Quantiles. What makes agents late (a tool that hangs, a human) has no bound: a mean would follow it."""
FETCH_MARGIN = 2.0
"""Pages are fetched so many times sooner than reading them takes."""
TURNOVER_WINDOW_S, TURNOVER_STEP_S = 60.0, 1.0


class GapKind(Struct, frozen=True):
    """Which gaps are alike: the program that makes the calls, and the tools that the model asked for last, if any."""

    program: str
    tools: tuple[str, ...] = ()


class Stay(Struct, frozen=True):
    """How long an agent is usually elsewhere: a quarter is back before `soonest_s`, half `usual_s`, all but a tenth `latest_s`."""

    soonest_s: float
    usual_s: float
    latest_s: float


class Plan(Struct, frozen=True):
    """What to do with the pages of an agent that has just gone elsewhere. Times are from now on."""

    is_kept: bool
    is_paged_out: bool
    fetch_after_s: float
    """When to bring back what is not in memory by then."""
    expect_until_s: float
    """When it is no longer expected, and its pages are as good as any others."""


def plan_gap(stay: Stay, *, n_pages: int, page_read_s: float, turnover_s: float) -> Plan:
    """Decide by cost.

    Args:
        stay: How long it will be elsewhere.
        n_pages: How many pages it has.
        page_read_s: What reading one from disk takes.
        turnover_s: In which time memory turns over; infinity if nothing is evicted.
    """
    is_kept = stay.usual_s <= turnover_s
    read_s = FETCH_MARGIN * n_pages * page_read_s
    return Plan(
        is_kept=is_kept,
        is_paged_out=not is_kept,
        fetch_after_s=max(0.0, stay.soonest_s - read_s),
        expect_until_s=stay.latest_s,
    )


class Gaps:
    """What is known of gaps, and who is in one."""

    def __init__(self) -> None:
        self._known: OrderedDict[GapKind, deque[float]] = OrderedDict()
        """The last gaps of each kind, the kind that was seen last at the end."""
        self._open: dict[Pid, tuple[float, GapKind]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def leave(self, pid: Pid, kind: GapKind, now_s: float) -> Stay | None:
        """An agent has its answer and goes elsewhere. Returns: for how long, if that is known."""
        self._open[pid] = (now_s, kind)
        return self.expected(kind)

    def come_back(self, pid: Pid, now_s: float) -> None:
        """It makes its next call: how long it was elsewhere is learned. One that was not elsewhere is nothing."""
        left = self._open.pop(pid, None)
        if left is not None:
            begun_s, kind = left
            for each in {kind, GapKind(kind.program)}:
                self._learn(each, now_s - begun_s)

    def forget(self, pid: Pid) -> None:
        """The process has ended. Nothing is learned from that."""
        self._open.pop(pid, None)

    def expected(self, kind: GapKind) -> Stay | None:
        """How long gaps of a kind are; where too few are known, those of its program."""
        for each in (kind, GapKind(kind.program)):
            known = self._known.get(each, ())
            if len(known) >= N_FEWEST:
                ordered = sorted(known)
                at = [ordered[int(q * (len(ordered) - 1) + 0.5)] for q in (SOONEST, USUAL, LATEST)]
                return Stay(*at)
        return None

    def _learn(self, kind: GapKind, gap_s: float) -> None:
        known = self._known.setdefault(kind, deque(maxlen=N_GAPS))
        self._known.move_to_end(kind)
        known.append(max(0.0, gap_s))
        if len(self._known) > N_KINDS:
            self._known.popitem(last=False)

    def check_invariants(self) -> None:
        """Raise AssertionError if more is remembered than may be."""
        assert len(self._known) <= N_KINDS
        assert all(0 < len(known) <= N_GAPS for known in self._known.values())


class Turnover:
    """In which time a memory turns over, by what it has evicted of late."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def after_s(self, *, n_frames: int, n_evicted: int, now_s: float) -> float:
        """The time, as of now; `n_evicted` counts since the memory began. Infinity while nothing is evicted."""
        if not self._seen or now_s - self._seen[-1][0] >= TURNOVER_STEP_S:
            self._seen.append((now_s, n_evicted))
        while now_s - self._seen[0][0] > TURNOVER_WINDOW_S and len(self._seen) > 2:
            self._seen.popleft()
        begun_s, n_before = self._seen[0]
        n_lately = n_evicted - n_before
        return n_frames * (now_s - begun_s) / n_lately if n_lately else inf
