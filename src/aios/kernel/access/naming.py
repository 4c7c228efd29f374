"""Which entities a policy may name: those that some request can have. One that no request has makes a ban that bans nothing. Pure."""

from collections.abc import Collection, Iterator, Mapping

RESOURCES = ("Kernel", "Process", "Path", "Tool")
WHO = ("Agent", "Group", "Kind", "Program")
KINDS = ("init", "program", "task", "guest")
EVERYWHERE = (*WHO, "Action", *RESOURCES)
PLACES = {"principal": WHO, "action": ("Action",), "resource": RESOURCES, "conditions": EVERYWHERE}
"""The types that each part of a policy may name."""


def find_unknown(policy: Mapping[str, object], actions: Collection[str]) -> tuple[str, str] | None:
    """The first entity that no request has, and what there is instead; None: there is none.

    Args:
        policy: As Cedar's JSON has it.
        actions: All actions that there are.
    """
    for place, types in PLACES.items():
        for kind, name in _named_in(policy.get(place)):
            if kind not in types:
                return f"{kind}::", f"the types there are {', '.join(types)}"
            hint = _complaint(kind, name, actions)
            if hint:
                return f'{kind}::"{name}"', hint
    return None


def is_whole_path(path: str) -> bool:
    """Whether a path is written as requests have it: from the root, without empty parts and dots, and without a slash at its end."""
    parts = path.split("/")[1:]
    return path == "/" or (
        path.startswith("/") and not any(part in ("", ".", "..") for part in parts)
    )


def _complaint(kind: str, name: str | None, actions: Collection[str]) -> str:
    """What there is instead of an entity that no request has; empty if one may have it."""
    if name is None:
        return ""
    if kind == "Action" and name not in actions:
        return f"the actions are {', '.join(actions)}"
    if kind == "Kind" and name not in KINDS:
        return f"the kinds are {', '.join(KINDS)}"
    if kind == "Path" and not is_whole_path(name):
        return (
            "a path begins with / and has none at its end; one of a folder counts for all below it"
        )
    return ""


def _named_in(value: object) -> Iterator[tuple[str, str | None]]:
    """The entities in a part of a policy; without an id where only the type is named (`is`)."""
    if isinstance(value, list):
        for part in value:
            yield from _named_in(part)
    if not isinstance(value, dict):
        return
    match value:
        case {"type": str(kind), "id": str(name)}:
            yield kind, name
            return
        case {"entity_type": str(kind)}:
            yield kind, None
    for part in value.values():
        yield from _named_in(part)
