"""Commands about files as people say them, and what each means: how many of them a model plans right. A part of the bench `storage`.

`TRIED` was looked at while the planner was written, `UNSEEN` was not. What is in `OPEN` is more than the rules can read: there a model chooses.
"""

from collections.abc import Sequence

from msgspec import Struct

from aios.abi.gate import Gate
from aios.bench.rows import Bar, Report, Spec
from aios.errors import AiosError
from aios.sdk.fileplan import FilePlan
from aios.sdk.files import Files
from aios.sdk.filewords import Do

FILES = {
    "/shared/trips/travel-notes.md": "The train to Rome leaves at nine.",
    "/shared/recipes/soup.md": "Boil the carrots and two onions for an hour.",
    "/shared/recipes/bread.md": "Flour, water, salt, and a night of patience.",
    "/shared/budget-2026.csv": "month,rent,food\n1,700,250\n",
    "/shared/draft-1.md": "A first try at a story.",
    "/shared/draft-2.md": "A second try at a story.",
    "/shared/old-report.txt": "What was sold in spring.",
    "/shared/diary.md": "It rained all day.",
    "/shared/archive/letter.md": "Dear aunt, thank you for the scarf.",
    "/agents/ann/plan.md": "Paint the kitchen, then the hall.",
    "/agents/ann/todo.txt": "water the plants\n",
}


class Meant(Struct, frozen=True):
    """A step that a command means; of a search, the file that must come first."""

    do: Do
    paths: tuple[str, ...] = ()
    target: str = ""
    text: str = ""


class Said(Struct, frozen=True):
    """A command, and the steps that it means."""

    command: str
    steps: tuple[Meant, ...]

    def is_met_by(self, plan: FilePlan) -> bool:
        """Whether a plan is ready and does just that."""
        return plan.is_ready and self.steps == tuple(
            Meant(
                each.do,
                each.paths[:1] if each.do is Do.FIND else tuple(sorted(each.paths)),
                each.target,
                each.text,
            )
            for each in plan.steps
        )


async def count_right(gate: Gate, said: Sequence[Said]) -> tuple[int, list[str]]:
    """How many commands are planned as they are meant, and the others. The files are there."""
    files, wrong = Files(gate), []
    for each in said:
        try:
            plan = await files.plan(each.command)
        except AiosError as error:
            wrong.append(f"{each.command}: {error.message}")
            continue
        if not each.is_met_by(plan):
            wrong.append(
                f"{each.command}: {'; '.join([*(step.said() for step in plan.steps), *plan.problems])}"
            )
    return len(said) - len(wrong), wrong


async def write_files(gate: Gate) -> None:
    """The files that the commands are about."""
    files = Files(gate)
    for path, text in FILES.items():
        await files.write(path, text)
    await files.index(is_waiting=True)


async def measure_commands(gate: Gate, report: Report) -> None:
    """In a kernel without an engine: whatever would ask a model counts as wrong."""
    await write_files(gate)
    said = (*TRIED, *UNSEEN)
    n_right, wrong = await count_right(gate, said)
    report.add("commands", 100 * n_right / len(said), note="; ".join(wrong[:3]))


def _said(command: str, *steps: tuple[str, ...]) -> Said:
    """Each step as (do, paths with spaces between, target, text)."""
    meant = []
    for do, paths, *rest in steps:
        target, text = [*rest, "", ""][:2]
        meant.append(Meant(Do(do), tuple(sorted(paths.split())), target, text))
    return Said(command, tuple(meant))


_NOTES, _SOUP, _BREAD = (
    "/shared/trips/travel-notes.md",
    "/shared/recipes/soup.md",
    "/shared/recipes/bread.md",
)
_DRAFTS = "/shared/draft-1.md /shared/draft-2.md"

TRIED = (
    _said("move the travel notes to archive", ("move", _NOTES, "/shared/archive/travel-notes.md")),
    _said("delete all drafts", ("delete", _DRAFTS)),
    _said("delete /shared/old-report.txt", ("delete", "/shared/old-report.txt")),
    _said(
        "copy the budget to /agents/ann",
        ("copy", "/shared/budget-2026.csv", "/agents/ann/budget-2026.csv"),
    ),
    _said("where is the recipe for soup?", ("find", _SOUP)),
    _said("append 'buy milk' to todo.txt", ("append", "", "/agents/ann/todo.txt", "buy milk")),
    _said(
        "rename the old report to report-2025.txt",
        ("move", "/shared/old-report.txt", "/shared/report-2025.txt"),
    ),
    _said("put the soup recipe into archive", ("move", _SOUP, "/shared/archive/soup.md")),
    _said("find the train to Rome", ("find", _NOTES)),
    _said("purge draft-1.md", ("purge", "/shared/draft-1.md")),
    _said(
        "write 'see you at nine' to /shared/note.txt",
        ("write", "", "/shared/note.txt", "see you at nine"),
    ),
    _said("remove the diary", ("delete", "/shared/diary.md")),
    _said("please move bread.md to /shared/archive", ("move", _BREAD, "/shared/archive/bread.md")),
    _said("add 'call Bob' to the diary", ("append", "", "/shared/diary.md", "call Bob")),
    _said(
        "copy the plan to /shared/plan-copy.md",
        ("copy", "/agents/ann/plan.md", "/shared/plan-copy.md"),
    ),
    _said("move all recipes to archive", ("move", f"{_SOUP} {_BREAD}", "/shared/archive")),
    _said("delete draft-1.md and draft-2.md", ("delete", _DRAFTS)),
    _said(
        "move the letter out of archive to /shared/trips",
        ("move", "/shared/archive/letter.md", "/shared/trips/letter.md"),
    ),
    _said(
        "copy diary.md to archive and delete old-report.txt",
        ("copy", "/shared/diary.md", "/shared/archive/diary.md"),
        ("delete", "/shared/old-report.txt"),
    ),
    _said("show me the files about carrots", ("find", _SOUP)),
)

UNSEEN = (
    _said(
        "Move the diary to the archive.", ("move", "/shared/diary.md", "/shared/archive/diary.md")
    ),
    _said("throw away the old report", ("delete", "/shared/old-report.txt")),
    _said("get rid of draft-2.md", ("delete", "/shared/draft-2.md")),
    _said(
        "duplicate the travel notes as /shared/trips/notes-backup.md",
        ("copy", _NOTES, "/shared/trips/notes-backup.md"),
    ),
    _said("which file mentions Rome?", ("find", _NOTES)),
    _said(
        "create /shared/hello.txt with the text 'hello world'",
        ("write", "", "/shared/hello.txt", "hello world"),
    ),
    _said(
        'append "pack an umbrella" to the travel notes', ("append", "", _NOTES, "pack an umbrella")
    ),
    _said("move todo.txt to /shared", ("move", "/agents/ann/todo.txt", "/shared/todo.txt")),
    _said("erase both drafts", ("delete", _DRAFTS)),
    _said("look for bread", ("find", _BREAD)),
    _said("could you copy soup.md to /agents/ann", ("copy", _SOUP, "/agents/ann/soup.md")),
    _said("permanently remove draft-1.md", ("purge", "/shared/draft-1.md")),
    _said("rename diary.md to journal.md", ("move", "/shared/diary.md", "/shared/journal.md")),
    _said(
        "move the budget and the plan to archive",
        ("move", "/shared/budget-2026.csv /agents/ann/plan.md", "/shared/archive"),
    ),
    _said("add the line 'eggs' to todo.txt", ("append", "", "/agents/ann/todo.txt", "eggs")),
    _said(
        "save 'meeting at ten' in /agents/ann/meeting.txt",
        ("write", "", "/agents/ann/meeting.txt", "meeting at ten"),
    ),
    _said("delete the letter in the archive", ("delete", "/shared/archive/letter.md")),
    _said("find everything about rent", ("find", "/shared/budget-2026.csv")),
    _said(
        "put the travel notes and soup.md into /shared/box",
        ("move", f"{_NOTES} {_SOUP}", "/shared/box"),
    ),
    _said(
        "copy the letter to /shared and delete the diary",
        ("copy", "/shared/archive/letter.md", "/shared/letter.md"),
        ("delete", "/shared/diary.md"),
    ),
)

OPEN = (
    _said(
        "the travel notes belong in the archive",
        ("move", _NOTES, "/shared/archive/travel-notes.md"),
    ),
    _said(
        "archive the old report",
        ("move", "/shared/old-report.txt", "/shared/archive/old-report.txt"),
    ),
    _said(
        "copy the plan to /shared as plan-copy.md",
        ("copy", "/agents/ann/plan.md", "/shared/plan-copy.md"),
    ),
    _said("is there anything about onions?", ("find", _SOUP)),
    _said("do I have a recipe with carrots", ("find", _SOUP)),
    _said(
        "move the letter to my aunt to /shared/trips",
        ("move", "/shared/archive/letter.md", "/shared/trips/letter.md"),
    ),
    _said("bring soup.md to /agents/ann", ("move", _SOUP, "/agents/ann/soup.md")),
    _said(
        "back up the diary in /shared/archive",
        ("copy", "/shared/diary.md", "/shared/archive/diary.md"),
    ),
    _said(
        "note 'feed the cat' in todo.txt", ("append", "", "/agents/ann/todo.txt", "feed the cat")
    ),
    _said(
        "the diary should be in /shared/trips",
        ("move", "/shared/diary.md", "/shared/trips/diary.md"),
    ),
)

SPEC = Spec(
    "storage",
    "commands",
    "%",
    Bar(95, is_minimum=True),
    f"of {len(TRIED) + len(UNSEEN)} plain commands about files, those planned as they are meant, without a model",
)
