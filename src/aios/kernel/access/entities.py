"""What Cedar is told of a request: who asks, what is asked about, and all that these are in. Pure.

A path is in all folders above it, so a policy about a folder holds at any depth. An agent is in the group of its owner, in its kind, and in its program.
"""

from collections.abc import Iterable, Sequence
from functools import cache

import cedarpy
import msgspec

from aios.abi.access import Principal, Request, Resource
from aios.kernel.access.slices import Uid

MAX_BASES = 1_024
"""Agents in folders that are kept parsed; past that all are forgotten, for folders are without end."""


class Entities:
    """Tells Cedar of agents and resources. An agent and the folders above a path are parsed once, for they come again; the path is added to them."""

    def __init__(self) -> None:
        self._bases: dict[tuple[Principal, str, str], cedarpy.Entities] = {}

    def of(
        self, principal: Principal, resource: Resource, chain: Sequence[str]
    ) -> cedarpy.Entities:
        """Who asks and what is asked about; `chain` is that of the resource."""
        above = chain[1] if len(chain) > 1 else ""
        key = (principal, resource.type, above)
        base = self._bases.get(key)
        if base is None:
            if len(self._bases) >= MAX_BASES:
                self._bases.clear()
            text = _text([_agent(principal), *_places(resource.type, chain[1:])])
            base = self._bases[key] = cedarpy.Entities.from_json_str(text)
        (leaf,) = _places(resource.type, (resource.id,), above)
        leaf["attrs"] = {"path" if resource.type == "Path" else "name": resource.id}
        return base.with_added_json_str(_text([leaf]))


def groups_of(principal: Principal) -> tuple[str, ...]:
    """The groups that it is in, as `TYPE::ID`: of its owner, its kind, and its program if it has one."""
    return tuple(f"{kind}::{name}" for kind, name in groups(principal))


def groups(principal: Principal) -> tuple[Uid, ...]:
    """The same as entities."""
    program = (("Program", principal.program),) * bool(principal.program)
    return (("Group", principal.owner), ("Kind", principal.kind), *program)


def chain_of(resource: Resource) -> list[str]:
    """The ids of a resource and of all that it is in, from the inside out."""
    chain = [resource.id]
    if resource.type == "Path":
        while (last := chain[-1]) != "/":
            chain.append(last.rpartition("/")[0] or "/")
    return chain


def asked_of(principal: Principal, request: Request) -> dict[str, object]:
    """The request as Cedar takes it."""
    resource = request.resource
    context = _context(
        request.effect, request.is_tainted, is_own=request.is_own, is_installed=request.is_installed
    )
    return {
        "principal": _uid("Agent", principal.name),
        "action": _uid("Action", request.action),
        "resource": _uid(resource.type, resource.id),
        "context": context,
    }


def _agent(principal: Principal) -> dict[str, object]:
    attributes = {
        "name": principal.name,
        "owner": principal.owner,
        "kind": principal.kind,
        "program": principal.program,
    }
    parents = [_uid(*group) for group in groups(principal)]
    return {"uid": _uid("Agent", principal.name), "attrs": attributes, "parents": parents}


def _places(kind: str, chain: Sequence[str], above: str = "") -> list[dict[str, object]]:
    """The entities of a chain, of which the last is in `above`, if that is anything."""
    return [
        {"uid": _uid(kind, each), "attrs": {}, "parents": [_uid(kind, outer)] if outer else []}
        for each, outer in zip(chain, [*chain[1:], above], strict=False)
    ]


@cache
def _context(effect: str, is_tainted: bool, *, is_own: bool, is_installed: bool) -> str:
    """What a request says besides."""
    return _text(
        {
            "effect": effect,
            "is_tainted": is_tainted,
            "is_own": is_own,
            "is_installed": is_installed,
        }
    )


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _text(value: dict[str, object] | Iterable[dict[str, object]]) -> str:
    return msgspec.json.encode(value).decode()
