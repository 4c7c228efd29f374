"""`access`: what a decision of the access manager costs among 200 policies, when it is remembered and when it is not."""

from collections.abc import Iterator, Sequence
from itertools import count
from time import perf_counter

from aios.abi.access import Principal, Request, Resource
from aios.bench.bench import Bench, Settings
from aios.bench.rows import Bar, Report, Spec, quantile
from aios.kernel.access.policy import Policies, Source
from aios.kernel.access.policyfiles import profile_source

NAME = "access"
N_POLICIES = 200
N_REQUESTS, N_REQUESTS_QUICK = 5_000, 500
KNOWN = 100
"""Different requests that come again and again in the remembered case."""
AGENT = Principal("ann", "owner", "program", "/programs/ann")
ABOVE = (Principal("boss", "owner", "program", "/programs/boss"), AGENT)

SPECS = (
    Spec(NAME, "cached", "us", Bar(50), f"{N_POLICIES} policies, one of {KNOWN} known requests"),
    Spec(NAME, "cached-p99", "us", None, "the same checks"),
    Spec(NAME, "uncached", "us", Bar(300), f"{N_POLICIES} policies, a path that is new each time"),
    Spec(NAME, "uncached-p99", "us", None, "the same checks"),
    Spec(NAME, "uncached-child", "us", None, "the same for a child: two principals are judged"),
    Spec(
        NAME,
        "uncached-open",
        "us",
        None,
        f"{N_POLICIES} policies whose heads name nobody: all are looked at",
    ),
    Spec(NAME, "parse", "ms", None, f"{N_POLICIES} policies and the profile, once at the start"),
)


async def measure(settings: Settings, report: Report) -> None:
    """Without a kernel: the decision alone. All policies apply to the action that is asked about."""
    n = N_REQUESTS_QUICK if settings.quick else N_REQUESTS
    sources = [profile_source("workspace"), Source("bench", policies_text(N_POLICIES))]
    begun_s = perf_counter()
    policies = Policies(sources)
    report.add("parse", 1e3 * (perf_counter() - begun_s))
    fresh = _requests(count())
    settings.say(f"{n} checks of each kind")
    new = _seconds(policies, (AGENT,), [next(fresh) for _ in range(n)])
    report.add("uncached", 1e6 * quantile(new, 0.5))
    report.add("uncached-p99", 1e6 * quantile(new, 0.99))
    child = _seconds(policies, ABOVE, [next(fresh) for _ in range(n)])
    report.add("uncached-child", 1e6 * quantile(child, 0.5))
    open_ = Policies([profile_source("workspace"), Source("bench", open_policies_text(N_POLICIES))])
    all_ = _seconds(open_, (AGENT,), [next(fresh) for _ in range(n)])
    report.add("uncached-open", 1e6 * quantile(all_, 0.5))
    known = _requests(i % KNOWN for i in count())
    again = _seconds(policies, (AGENT,), [next(known) for _ in range(n + KNOWN)])[KNOWN:]
    report.add("cached", 1e6 * quantile(again, 0.5))
    report.add("cached-p99", 1e6 * quantile(again, 0.99))


def policies_text(n: int) -> str:
    """Policies of three kinds that people write: bans on folders, permits for agents, questions for programs."""
    kinds = (
        'forbid(principal, action, resource in Path::"/shared/vault{0}");',
        'permit(principal == Agent::"agent{0}", action == Action::"file.read", resource);',
        '@decide("ask") permit(principal in Program::"/programs/p{0}", action, resource);',
    )
    return "\n".join(f'@id("p{i}") {kinds[i % len(kinds)].format(i)}' for i in range(n))


def open_policies_text(n: int) -> str:
    """Policies that say in a condition what others say in their heads, so that none can be left out beforehand."""
    line = 'forbid(principal, action, resource) when {{ principal.name == "agent{0}" && resource has path }};'
    return "\n".join(f'@id("p{i}") {line.format(i)}' for i in range(n))


def _requests(numbers: Iterator[int]) -> Iterator[Request]:
    return (Request("file.read", Resource("Path", f"/shared/deep/er/file{i}")) for i in numbers)


def _seconds(
    policies: Policies, principals: tuple[Principal, ...], requests: Sequence[Request]
) -> list[float]:
    found = []
    for request in requests:
        begun_s = perf_counter()
        policies.decide(principals, request)
        found.append(perf_counter() - begun_s)
    return found


BENCH = Bench(NAME, "decisions of the access manager", 60, SPECS, measure)
