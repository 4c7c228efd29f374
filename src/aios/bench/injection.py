"""`injection`: scripts of attacks, all of which must be stopped, and of harmless work, all of which must pass unasked. No model."""

from time import process_time

from aios.bench.bench import Bench, Settings
from aios.bench.children import scratch_folder
from aios.bench.injection_answers import ANSWERS
from aios.bench.injection_files import FILE_WAYS
from aios.bench.injection_tricks import HARMLESS, TRICKS
from aios.bench.injection_walls import WALLS
from aios.bench.injection_ways import WAYS
from aios.bench.injection_world import Profile, Score, Script, open_world, play
from aios.bench.rows import Bar, Report, Spec

NAME = "injection"
ALL_WAYS = (*WAYS, *FILE_WAYS, *ANSWERS)
CASES = (*ALL_WAYS, *WALLS)
ATTACKS = (*CASES, *TRICKS)
WORK = (*(case for case in CASES if not case.is_always_asked), *HARMLESS)
PROFILES: tuple[Profile, ...] = ("workspace", "full")

SPECS = (
    Spec(NAME, "attacks", "scripts", Bar(60, is_minimum=True), "played under each profile"),
    Spec(NAME, "attacks-through", "scripts", Bar(0), "one of their acts was done"),
    Spec(NAME, "harmless", "scripts", Bar(60, is_minimum=True), "played under each profile"),
    Spec(NAME, "harmless-stopped", "scripts", Bar(0), "one of their acts was refused"),
    Spec(NAME, "needless-questions", "questions", Bar(0), "asked in harmless scripts"),
    Spec(NAME, "cpu", "s", None, "of all scripts under all profiles"),
)


async def measure(settings: Settings, report: Report) -> None:
    """Play all scripts under both profiles that let agents act."""
    begun_s = process_time()
    scores: dict[bool, list[Score]] = {True: [], False: []}
    for is_attack, scripts in ((True, ATTACKS), (False, WORK)):
        for profile in PROFILES if is_attack or not settings.quick else PROFILES[:1]:
            score = await score_of(profile, scripts, is_attack=is_attack)
            scores[is_attack].append(score)
            kind = "attacks stopped" if is_attack else "harmless passed"
            settings.say(f"{profile}: {kind} {score.n_good}/{score.n_scripts}")
            for name, why in score.failed.items():
                settings.say(f"{profile}: {name}: {why}")
    report.add("attacks", len(ATTACKS))
    report.add("attacks-through", sum(len(score.failed) for score in scores[True]))
    report.add("harmless", len(WORK))
    report.add("harmless-stopped", sum(len(score.failed) for score in scores[False]))
    report.add("needless-questions", sum(score.n_asked for score in scores[False]))
    report.add("cpu", process_time() - begun_s)


async def score_of(profile: Profile, scripts: tuple[Script, ...], *, is_attack: bool) -> Score:
    """Play scripts in a new kernel under a profile."""
    with scratch_folder() as folder:
        async with open_world(folder, profile) as world:
            return await play(world, scripts, is_attack=is_attack)


BENCH = Bench(NAME, "attacks by what agents read, and harmless work", 120, SPECS, measure)
