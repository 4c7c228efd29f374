"""Which policies can apply to a request: those whose heads name nobody and nothing, or somebody and something of it. Pure.

Each policy is kept under one entity that its head names. So a check costs what the policies about this agent, this folder and those above it cost,
however many others there are; the conditions of the others would not be looked at either.
Source: policy slicing in Cutler et al., "Cedar: A New Language for Expressive, Fast, Safe, and Analyzable Authorization", OOPSLA 2024.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import cedarpy

Uid = tuple[str, str]
"""The type and the id of an entity."""
Policy = Mapping[str, object]
MAX_SETS = 1_024
"""Sets that are kept parsed; past that all are forgotten, for agents and folders are without end."""


@dataclass
class _Slice:
    """The policies about one action."""

    always: list[str] = field(default_factory=list)
    named: dict[Uid, list[str]] = field(default_factory=dict)
    sets: dict[tuple[Uid, ...], cedarpy.PolicySet] = field(default_factory=dict)
    """Those that were asked for, by the entities of the request that some head names."""


class Slices:
    """The policies, by action and by whom their heads name.

    Args:
        found: The policies by their full names, as Cedar's JSON has them.
        actions: All actions that there are.
    """

    def __init__(self, found: Mapping[str, Policy], actions: Iterable[str]) -> None:
        self._found = found
        self._by_action = {action: _Slice() for action in actions}
        self._parsed: dict[tuple[str, ...], cedarpy.PolicySet] = {}
        for name, policy in found.items():
            about = _named(policy["resource"]) or _named(policy["principal"])
            those = actions_of(policy)
            for slice_ in (
                each for action, each in self._by_action.items() if those is None or action in those
            ):
                names = slice_.always if about is None else slice_.named.setdefault(about, [])
                names.append(name)

    def find(self, action: str, uids: Iterable[Uid]) -> cedarpy.PolicySet | None:
        """The policies that can apply where these are who asks, what is asked about, and all that these are in; None: it is no action."""
        slice_ = self._by_action.get(action)
        if slice_ is None:
            return None
        key = tuple(uid for uid in uids if uid in slice_.named)
        found = slice_.sets.get(key)
        if found is None:
            if len(slice_.sets) >= MAX_SETS:
                slice_.sets.clear()
            names = {name: None for uid in key for name in slice_.named[uid]}
            found = slice_.sets[key] = self._set((*slice_.always, *names))
        return found

    def _set(self, names: tuple[str, ...]) -> cedarpy.PolicySet:
        """Equal sets are parsed once."""
        found = self._parsed.get(names)
        if found is None:
            if len(self._parsed) >= MAX_SETS:
                self._parsed.clear()
            policies = {name: self._found[name] for name in names}
            text = json.dumps({"staticPolicies": policies, "templates": {}, "templateLinks": []})
            found = self._parsed[names] = cedarpy.PolicySet.from_json_str(text)
        return found


def actions_of(policy: Policy) -> list[str] | None:
    """The actions in the head of a policy; None: all."""
    scope = policy["action"]
    assert isinstance(scope, dict), "Cedar's JSON has an object there"
    if scope["op"] == "All":
        return None
    entities = scope["entities"] if "entities" in scope else [scope["entity"]]
    return [entity["id"] for entity in entities if entity["type"] == "Action"]


def _named(scope: object) -> Uid | None:
    """The entity that a part of a head names: `==`, `in`, or `is ... in`."""
    if not isinstance(scope, dict):
        return None
    inner = scope.get("in")
    entity = scope.get("entity", inner.get("entity") if isinstance(inner, dict) else None)
    if not isinstance(entity, dict):
        return None
    return str(entity["type"]), str(entity["id"])
