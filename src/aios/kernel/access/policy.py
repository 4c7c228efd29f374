"""The policies, parsed once: a request in, a decision out. Pure: no clock, no I/O.

A policy is Cedar's: what none permits is denied, and one that forbids wins over all that permit. Two annotations are ours: `@id`
names a policy, and `@decide("ask")` on a permit lets a human decide. Asking wins over permitting; forbidding over both.

A check looks at those policies alone that can apply (`slices.py`).
Source: Cutler et al., "Cedar: A New Language for Expressive, Fast, Safe, and Analyzable Authorization", OOPSLA 2024.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import cedarpy
import msgspec
from msgspec import Struct

from aios.abi.access import Decision, Principal, Request, Verdict
from aios.abi.types import Right
from aios.errors import ConfigError
from aios.kernel.access.entities import Entities, asked_of, chain_of, groups
from aios.kernel.access.naming import find_unknown
from aios.kernel.access.slices import Slices, actions_of

TOOL_RUN = "tool.run"
ACTIONS = (*(right.value for right in Right), TOOL_RUN)
ANNOTATIONS = frozenset({"id", "decide"})
ATTRIBUTES = {
    "principal": ("name", "owner", "kind", "program"),
    "resource": ("name", "path"),
    "context": ("effect", "is_tainted", "is_own", "is_installed"),
}
MAX_POLICIES = 10_000
MAX_KEPT = 8_192
"""Decisions that are remembered; past that all are forgotten, for paths are without end."""
SOME = "\0"
"""A name that no file has, in the place of all that no policy names."""
SHARED_ATTRIBUTES = frozenset({"kind", "owner", "program"})
"""What an agent has in common with others."""
STRICTNESS = {Verdict.ALLOW: 0, Verdict.ASK: 1, Verdict.DENY: 2}
GRANTED, BROKEN = "kernel.granted", "kernel.cannot-evaluate"
TAINTED = "kernel.tainted-irreversible"
"""The one rule that no profile and no policy switches off."""


class Source(Struct, frozen=True):
    """A text of policies and the name under which its policies are told."""

    name: str
    text: str


class _Answer(NamedTuple):
    """What Cedar says."""

    is_permitted: bool
    policies: tuple[str, ...]
    errors: tuple[str, ...]


class Policies:
    """All policies of a kernel, and the decisions that were taken by them."""

    def __init__(self, sources: Iterable[Source]) -> None:
        """Parse them.

        Raises:
            ConfigError: One cannot be read; the message names the file, the policy and what is wrong.
        """
        found: dict[str, dict[str, object]] = {}
        for source in sources:
            found |= _parsed(source)
        if len(found) > MAX_POLICIES:
            raise ConfigError(
                f"there are {len(found)} policies, the limit is {MAX_POLICIES}",
                hint="write one policy about a folder or a group instead of many",
            )
        self.names = tuple(found)
        self._asking = frozenset(name for name, each in found.items() if _asks(each))
        self._slices = Slices(found, ACTIONS)
        self._entities = Entities()
        self._named = _named_paths(found)
        self._named_agents = _named_agents(found)
        self._likes: dict[tuple[Principal, ...], tuple[Principal, ...]] = {}
        self._kept: dict[tuple[tuple[Principal, ...], Request], Decision] = {}
        self.n_evaluated = 0

    def decide(self, principals: Sequence[Principal], request: Request) -> Decision:
        """What holds for a process.

        Args:
            principals: The process itself last, before it those that started it: no child may what one of them may not.
            request: What it asks for.

        Cost: about 2 us when the same was asked before; else one evaluation for each principal.
        """
        key = (tuple(principals), _without_digest(request))
        decision = self._kept.get(key)
        if decision is None:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            decision = self._kept[key] = self._judged(principals, request)
        return decision

    def like_agents(self, principals: tuple[Principal, ...]) -> tuple[Principal, ...]:
        """Principals that these policies cannot tell from these: few decisions then answer for all agents of a kind.

        They are allowed exactly what the others are. Their names are made up, so a denial should be told of the agents themselves.
        """
        named = self._named_agents
        if named is None:
            return principals
        like = self._likes.get(principals)
        if like is None:
            if len(self._likes) >= MAX_KEPT:
                self._likes.clear()
            some = (
                each if each.name in named else msgspec.structs.replace(each, name=SOME)
                for each in principals
            )
            like = self._likes[principals] = tuple(dict.fromkeys(some))  # Cedar takes long for each
        return like

    def like(self, action: str, path: str) -> str:
        """A path that these policies cannot tell from this one: few decisions then answer for all files of a folder.

        It is allowed exactly if the other is. Its name is made up, so a denial should be told of the path itself.
        """
        named = self._named[action]
        if named is None or path in named:
            return path
        above = path.rpartition("/")[0] if named else ""
        while above and above not in named:
            above = above.rpartition("/")[0]
        return f"{above}/{SOME}"

    def _judged(self, principals: Sequence[Principal], request: Request) -> Decision:
        """The strictest of what holds for each of them."""
        assert principals, "somebody asks"
        decisions = [self._decide(each, request) for each in principals]
        strictest = max(decisions, key=lambda each: STRICTNESS[each.verdict])
        if strictest.is_allowed and request.is_tainted and request.effect == "irreversible":
            why = f"`{request.action}` cannot be undone, and data from outside has reached the process"
            return Decision(Verdict.ASK, (why,), (TAINTED,))
        return strictest

    def _decide(self, principal: Principal, request: Request) -> Decision:
        self.n_evaluated += 1
        decision = self._said(principal, request)
        is_open = decision.verdict is Verdict.ASK or not decision.policies
        if decision.is_allowed or not is_open:
            return decision
        for right in principal.granted:
            if _covers(right, request):
                why = f"the owner granted `{right}` to {principal.program}"
                return Decision(Verdict.ALLOW, (why,), (GRANTED,))
        return decision

    def _said(self, principal: Principal, request: Request) -> Decision:
        """What the policies alone say to one principal."""
        who, what = f"{principal.name} ({principal.kind})", _told(request)
        answer = self._ask(principal, request)
        if answer.errors:  # a policy that cannot be evaluated may have been one that forbids
            why = f"a policy cannot be evaluated: {'; '.join(answer.errors)}"
            return Decision(Verdict.DENY, (why,), answer.policies or (BROKEN,))
        if not answer.is_permitted:
            named = ", ".join(answer.policies)
            why = f"{named} forbids {who} {what}" if named else f"no policy permits {who} {what}"
            return Decision(Verdict.DENY, (why,), answer.policies)
        asking = tuple(name for name in answer.policies if name in self._asking)
        if asking:
            why = f"{', '.join(asking)} lets a human decide whether {who} may {what}"
            return Decision(Verdict.ASK, (why,), asking)
        why = f"{', '.join(answer.policies)} permits {who} {what}"
        return Decision(Verdict.ALLOW, (why,), answer.policies)

    def _ask(self, principal: Principal, request: Request) -> _Answer:
        resource, chain = request.resource, chain_of(request.resource)
        places = ((resource.type, each) for each in chain)
        about = (("Agent", principal.name), *groups(principal), *places)
        policies = self._slices.find(request.action, about)
        if policies is None:
            return _Answer(False, (), (f"{request.action!r} is no action",))
        entities = self._entities.of(principal, resource, chain)
        result = cedarpy.is_authorized(asked_of(principal, request), policies, entities)
        said = result.diagnostics
        return _Answer(result.allowed, tuple(sorted(said.reasons)), tuple(sorted(said.errors)))

    def statistics(self) -> dict[str, int]:
        """How many policies there are, how many decisions are remembered, how many evaluations it took."""
        counts = {"n_policies": len(self.names), "n_kept": len(self._kept)}
        return counts | {"n_evaluated": self.n_evaluated}


def digest_of(arguments: object) -> str:
    """What binds an answer to exact arguments. Nobody finds two that share one, also who chooses both."""
    text = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def _without_digest(request: Request) -> Request:
    if not request.digest:
        return request
    return msgspec.structs.replace(request, digest="")


def _covers(right: str, request: Request) -> bool:
    """Whether a granted right answers a request; one about a folder answers for all below it."""
    action, _, resource = right.partition(" ")
    if action != request.action or not resource:
        return action == request.action
    kind, _, name = resource.partition("::")
    asked = request.resource
    if kind != asked.type:
        return False
    return asked.id == name or (kind == "Path" and asked.id.startswith(f"{name.rstrip('/')}/"))


def _told(request: Request) -> str:
    on = f" on {request.resource.type} {request.resource.id}" if request.resource.id else ""
    return f"`{request.action}`{on} (effect {request.effect})"


def _parsed(source: Source) -> dict[str, dict[str, object]]:
    """The policies of a text by their full names."""
    try:
        document = json.loads(cedarpy.policies_to_json_str(source.text))
    except ValueError as error:
        raise ConfigError(
            f"the policies in {source.name} cannot be read: {error}",
            hint="`aios policy check FILE` reads one; the language is that of cedarpolicy.com",
        ) from error
    if document.get("templates") or document.get("templateLinks"):
        raise ConfigError(
            f"{source.name} has templates, which nothing here fills in",
            hint="write policies without ?principal and ?resource",
        )
    found: dict[str, dict[str, object]] = {}
    for number, policy in enumerate(document["staticPolicies"].values(), 1):
        notes = policy.get("annotations", {})
        name = f"{source.name}.{notes.get('id') or number}"
        _check(name, policy, notes)
        if name in found:
            raise ConfigError(f"two policies are called {name}", hint="give each its own @id")
        found[name] = policy
    return found


def _check(name: str, policy: Mapping[str, object], notes: Mapping[str, object]) -> None:
    """Refuse what would silently mean nothing."""
    unknown = set(notes) - ANNOTATIONS
    if unknown:
        raise ConfigError(
            f"policy {name} has the annotation @{min(unknown)}, which means nothing here",
            hint="the annotations are @id and @decide",
        )
    if notes.get("decide", "ask") != "ask" or ("decide" in notes and policy["effect"] != "permit"):
        raise ConfigError(
            f'policy {name}: @decide("ask") on a permit is the only one',
            hint="`permit` without it allows, `forbid` denies",
        )
    nobody = find_unknown(policy, ACTIONS)
    if nobody is not None:
        raise ConfigError(
            f"policy {name} names {nobody[0]}, which no request has, so it would mean nothing",
            hint=nobody[1],
        )
    for variable, attribute in _attributes_in(policy["conditions"]):
        if attribute not in ATTRIBUTES.get(variable, ()):
            raise ConfigError(
                f"policy {name} looks at {variable}.{attribute}, which does not exist, so it would deny all that it is about",
                hint=f"{variable} has {', '.join(ATTRIBUTES.get(variable, ())) or 'nothing to look at'}",
            )


def _attributes_in(value: object) -> Iterator[tuple[str, str]]:
    """What a part of a policy looks at of who asks, of what is asked about, and of the request."""
    if isinstance(value, list):
        for part in value:
            yield from _attributes_in(part)
    if not isinstance(value, dict):
        return
    for operator in (".", "has"):
        match value.get(operator):
            case {"left": {"Var": str(variable)}, "attr": str(attribute)}:
                yield variable, attribute
    for part in value.values():
        yield from _attributes_in(part)


def _asks(policy: Mapping[str, object]) -> bool:
    notes = policy.get("annotations", {})
    return isinstance(notes, dict) and "decide" in notes


def _named_paths(found: Mapping[str, dict[str, object]]) -> dict[str, frozenset[str] | None]:
    """For each action the paths that a policy names in its head; None if one looks at the path in its conditions."""
    named: dict[str, frozenset[str] | None] = {}
    for action in ACTIONS:
        those = [each for each in found.values() if action in (actions_of(each) or ACTIONS)]
        heads: set[str] = set()
        for policy in those:
            heads |= _ids_in(policy["resource"])
        looks = any(_looks_at_resource(each.get("conditions", [])) for each in those)
        is_clear = not looks and not any(SOME in each for each in heads)
        named[action] = frozenset(heads) if is_clear else None
    return named


def _named_agents(found: Mapping[str, dict[str, object]]) -> frozenset[str] | None:
    """The names that some policy has in its head for who asks; None if one looks at names in its conditions."""
    if any(_looks_at_name(each.get("conditions", [])) for each in found.values()):
        return None
    heads: set[str] = set()
    for each in found.values():
        heads |= _ids_in(each["principal"])
    return None if SOME in heads else frozenset(heads)


def _looks_at_name(value: object) -> bool:
    """Whether a part of a policy uses the principal otherwise than for its kind, owner or program."""
    if isinstance(value, list):
        return any(map(_looks_at_name, value))
    if not isinstance(value, dict):
        return False
    field = value.get(".")
    if isinstance(field, dict) and field.get("attr") in SHARED_ATTRIBUTES:
        return field.get("left") != {"Var": "principal"} and _looks_at_name(field.get("left"))
    return value.get("Var") == "principal" or any(map(_looks_at_name, value.values()))


def _ids_in(value: object) -> set[str]:
    """The ids of all entities in a part of a policy."""
    if isinstance(value, list):
        return {each for part in value for each in _ids_in(part)}
    if not isinstance(value, dict):
        return set()
    found = {each for part in value.values() for each in _ids_in(part)}
    return found | {value["id"]} if isinstance(value.get("id"), str) else found


def _looks_at_resource(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_looks_at_resource, value))
    if not isinstance(value, dict):
        return False
    return value.get("Var") == "resource" or any(map(_looks_at_resource, value.values()))
