"""Plans for commands about files in plain words. Pure: rules read the command, a model chooses among what is left, this decides what may be done.

A model may only choose: the files that the words of the command mean, and the pieces of it that say where to and what to write, are what its
grammar has. So a model that is wrong, or a hostile endpoint, can mix up what was said but cannot bring in a path or a text of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from types import MappingProxyType

import msgspec
from msgspec import Struct

from aios.abi.types import JsonObject
from aios.errors import InvalidCall
from aios.malformed import named
from aios.readers import from_json
from aios.sdk.filenames import BY_LIKE_NAME, BY_NAME, root_of, without_filling
from aios.sdk.filewords import Clause, Do, Place

MAX_COMMAND_CHARS = 500
MAX_CLAUSES = 8

FIELDS: Mapping[Do, tuple[str, ...]] = MappingProxyType(
    {
        Do.FIND: (),
        Do.MOVE: ("source", "target"),
        Do.COPY: ("source", "target"),
        Do.DELETE: ("source",),
        Do.WRITE: ("target", "text"),
        Do.APPEND: ("target", "text"),
        Do.PURGE: ("source",),
    }
)
"""What is to be chosen for each kind of step; nothing else may be set. A search has the words of its clause."""

FOUND_EXACTLY = ("by path", BY_NAME)
FOUND_BY_NAME = (*FOUND_EXACTLY, BY_LIKE_NAME)
IRREVERSIBLE = frozenset({Do.PURGE})
HINT = "say it in other words, or use `aios fs mv`, `cp`, `rm`"


class Wish(Struct, frozen=True, forbid_unknown_fields=True):
    """A step as a model chose it."""

    do: Do
    source: str = ""
    target: str = ""
    text: str = ""


class Source(Struct, frozen=True):
    """Files that words mean and how they were found, or what the words could mean."""

    words: str
    paths: tuple[str, ...] = ()
    why: str = ""
    candidates: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What a model chooses it by: the path if it is one, else the words."""
        return self.paths[0] if len(self.paths) == 1 else self.words


class Menu(Struct, frozen=True):
    """What a clause may mean: a model chooses one of each."""

    clause: Clause
    kinds: tuple[Do, ...]
    sources: Mapping[str, Source]
    places: Mapping[str, Place]
    texts: tuple[str, ...]

    def choices(self, field: str) -> tuple[str, ...]:
        """What `source`, `target` or `text` may be."""
        by_field = {"source": self.sources, "target": self.places, "text": self.texts}
        return tuple(by_field[field])


class PlannedStep(Struct, frozen=True):
    """A step with the paths that it is about. `candidates` are the files that its words could mean when that is not clear.

    `is_guess` says that it changes something, and that a model, or what is in a file, not its name, led to it; or that words
    without quotation marks take the place of a file, or name one, and so may not be the text, or that `put` and `save` take the place of a file. `replaces` are the files whose content another takes the place of.
    """

    do: Do
    words: str
    paths: tuple[str, ...] = ()
    target: str = ""
    text: str = ""
    why: str = ""
    candidates: tuple[str, ...] = ()
    is_guess: bool = False
    replaces: tuple[str, ...] = ()

    def said(self) -> str:
        """The step in a line."""
        what = ", ".join(self.paths) or f"{self.words!r}"
        instead = f", in place of what is in {', '.join(self.replaces)}" if self.replaces else ""
        match self.do:
            case Do.MOVE | Do.COPY:
                return f"{self.do} {what} to {self.target}{instead}"
            case Do.WRITE | Do.APPEND:
                return f"{self.do} {self.text!r} to {self.target}{instead}"
            case Do.PURGE:
                return f"purge {what}: delete it with all versions, for good"
            case Do.FIND | Do.DELETE:
                return f"{self.do} {what}"


class FilePlan(Struct, frozen=True):
    """What would be done for a command. Nothing has been done; `problems` say why it cannot be."""

    command: str
    steps: tuple[PlannedStep, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Every step says what it is about, and may be taken."""
        return bool(self.steps) and not self.problems

    @property
    def is_irreversible(self) -> bool:
        """One of the steps cannot be undone."""
        return any(step.do in IRREVERSIBLE for step in self.steps)

    @property
    def is_guess(self) -> bool:
        """One of the steps may not be what was meant: somebody should have seen it first."""
        return any(step.is_guess for step in self.steps)


def menu_of(clause: Clause, sources: Sequence[Source]) -> Menu:
    """What a clause may mean, by what its names mean: a name that was found as one before a description.

    Raises:
        InvalidCall: It does not say what to do, with what, or where to.
    """
    named = [each for each in sources if each.why in FOUND_BY_NAME]
    kinds = clause.kinds
    if not clause.names and Do.FIND in kinds:
        raise InvalidCall(f"{clause.words!r} does not say what", hint=HINT)
    if not clause.is_open and Do.WRITE in kinds and len(kinds) > 1:
        # `put` and `save` are said of files as of texts.
        kinds = tuple(do for do in kinds if (do is not Do.WRITE) is bool(named))
    chosen = named or [each for each in sources if each.paths or each.candidates] or sources
    menu = Menu(
        clause,
        kinds,
        {each.label: each for each in chosen},
        {each.words: each for each in clause.places},
        tuple(dict.fromkeys(clause.texts)),
    )
    fitting = tuple(do for do in kinds if all(menu.choices(field) for field in FIELDS[do]))
    if not fitting:
        lacks = {"source": "what", "target": "where to", "text": "what text"}
        missing = next(field for field in FIELDS[kinds[0]] if not menu.choices(field))
        raise InvalidCall(f"{clause.words!r} does not say {lacks[missing]}", hint=HINT)
    return msgspec.structs.replace(menu, kinds=fitting)


def only_wish(menu: Menu) -> Wish | None:
    """The step, if the words leave only one."""
    if len(menu.kinds) > 1:
        return None
    (do,) = menu.kinds
    chosen = list(product(*(menu.choices(field) for field in FIELDS[do])))
    if len(chosen) > 1:
        return None
    return Wish(do, **dict(zip(FIELDS[do], chosen[0], strict=True)))


def schema_for(menu: Menu) -> JsonObject:
    """The JSON Schema of the steps that a clause may mean."""
    kinds: list[object] = []
    for do in menu.kinds:
        properties: dict[str, object] = {"do": {"const": do.value}}
        properties |= {field: {"$ref": f"#/$defs/{field}"} for field in FIELDS[do]}
        kinds.append(
            {
                "type": "object",
                "properties": properties,
                "required": ["do", *FIELDS[do]],
                "additionalProperties": False,
            }
        )
    fields = dict.fromkeys(field for do in menu.kinds for field in FIELDS[do])
    return {
        "anyOf": kinds,
        "$defs": {field: {"enum": list(menu.choices(field))} for field in fields},
    }


def question_of(menu: Menu) -> str:
    """What a model is asked about a clause: the words, and what there is to choose from."""
    titles = {"source": "Sources", "target": "Targets", "text": "Texts"}
    fields = dict.fromkeys(field for do in menu.kinds for field in FIELDS[do])
    listed = [f"{titles[field]}: {' | '.join(menu.choices(field))}" for field in fields]
    return "\n".join([f"Command: {menu.clause.words}", *listed])


def wish_of(answer: str, menu: Menu) -> Wish:
    """The step that a model chose, if it is one of those that it may.

    Raises:
        InvalidCall: It is no step, or has what the command does not say.
    """
    try:
        wish = from_json(answer, Wish)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidCall(f"the model made no plan of that: {named(error)}", hint=HINT) from error
    if wish.do not in menu.kinds:
        raise InvalidCall(
            f"the model's plan has a `{wish.do}`, which the command does not say", hint=HINT
        )
    for field in ("source", "target", "text"):
        value = getattr(wish, field)
        if field not in FIELDS[wish.do]:
            if value:
                raise InvalidCall(f"a `{wish.do}` with a {field} means nothing", hint=HINT)
        elif value not in menu.choices(field):
            raise InvalidCall(
                f"the model's plan names {value[:80]!r}, which the command does not say", hint=HINT
            )
    return wish


# --- where to -----------------------------------------------------------------------------------------------------


def place_of(place: Place, near: str, *, is_folder: bool = False) -> str:
    """The path that words mean which name none: beside `near` if they are a name for it, else in the folder that all of its owner's is in.

    A file keeps its extension under a name that has none; the name of a folder (`is_folder`) has no extension, and neither has `.profile`.
    """
    bare = place.words if place.is_quoted else without_filling(place.words)
    if bare.startswith("/"):
        return bare.rstrip("/")
    folder, _, own = near.rpartition("/")
    is_as_said = place.is_quoted or "/" in bare
    inside = (bare if is_as_said else bare.replace(" ", "-")).strip("/")
    if not near or "/" in inside:
        return f"{root_of(near)}/{inside}" if near else inside
    if place.is_name and "." not in inside and "." in own[1:] and not is_folder:
        return f"{folder}/{inside}.{own.rpartition('.')[2]}"
    is_name = place.is_name or "." in inside
    return f"{folder if is_name else root_of(near)}/{inside}"


def lands_at(target: str, source: str, *, is_name: bool) -> str:
    """Where a file or folder comes to lie: at the very path if that is a name for it, else inside of it."""
    return target if is_name else f"{target}/{source.rpartition('/')[2]}"


def overlaps(steps: Sequence[PlannedStep]) -> Iterator[str]:
    """What steps of one plan would do to the same path; the plan would not mean what it shows."""
    seen: set[str] = set()
    for step in steps:
        changed = [] if step.do in (Do.FIND, Do.COPY) else list(step.paths)
        for path in (*changed, *targets_of(step)):
            if path in seen:
                yield f"two steps change {path}"
            seen.add(path)


def targets_of(step: PlannedStep) -> tuple[str, ...]:
    """The paths that a step makes or writes to, one for each source; several are put into the target."""
    if len(step.paths) > 1:
        return tuple(
            f"{step.target}/{path.rpartition('/')[2]}" for path in step.paths if step.target
        )
    return (step.target,) if step.target else ()
