"""`python -m aios.testing SEED...`: run seeds and tell what they found; `python -m aios.testing A-B` a whole range.

It says how far it has come, and after Ctrl-C what came of those before. With `--crashes` each is run once for every write and
sync that it does, with the power failing at that one.
"""

import os
import sys
from argparse import ArgumentParser
from collections import Counter

import msgspec

from aios.testing.campaign import Tally, run_crashes, run_seeds
from aios.testing.simulation import Outcome, Simulator

READER_GONE = 141
"""As a shell shows a program that SIGPIPE ended; 1 would say that an invariant broke."""
INTERRUPTED = 130
PROGRESS_SEEDS = 100
"""After so many it is said on stderr how far it has come."""


def main(words: list[str]) -> int:
    """Run what the words ask for. Returns: the exit status, 1 if an invariant broke, 130 after Ctrl-C, 141 if who reads has gone."""
    try:
        return _run(words)
    except BrokenPipeError:
        # Python writes what is left at its end, and would complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(words: list[str]) -> int:
    parser = ArgumentParser(prog="python -m aios.testing", description="Simulate the whole kernel.")
    parser.add_argument("seeds", nargs="+", help="a number, or a range such as 1-20000")
    parser.add_argument("--crashes", action="store_true", help="at every write and sync of each")
    parser.add_argument("--every", type=int, default=1, help="with --crashes: at each so many")
    parser.add_argument("--json", action="store_true", help="say the sum as JSON, and no more")
    asked = parser.parse_args(words)
    try:
        seeds = seeds_of(asked.seeds)
    except ValueError:
        parser.error(
            f"{' '.join(asked.seeds)}: a seed is a number such as 7, or a range such as 1-20000"
        )

    def told(outcome: Outcome) -> None:
        if not asked.json and (outcome.violations or (len(seeds) == 1 and not asked.crashes)):
            _tell(outcome)

    def sum_up(tallies: list[Tally]) -> Tally:
        tally = added(tallies)
        _say(msgspec.json.encode(tally).decode() if asked.json else _summed(tally, asked.crashes))
        return tally

    simulator = Simulator()
    tallies: list[Tally] = []
    n_at_once = 1 if asked.crashes else PROGRESS_SEEDS
    try:
        for start in range(0, len(seeds), n_at_once):
            part = seeds[start : start + n_at_once]
            if asked.crashes:
                tallies.append(run_crashes(simulator, part[0], told, every=asked.every))
            else:
                tallies.append(run_seeds(simulator, part, told))
            if len(seeds) > n_at_once:
                n_broken = sum(len(tally.broken) for tally in tallies)
                sys.stderr.write(f"{start + len(part)} of {len(seeds)} seeds, {n_broken} broken\n")
    except KeyboardInterrupt:
        sum_up(tallies)
        raise
    finally:
        simulator.close()
    return int(bool(sum_up(tallies).broken))


def seeds_of(words: list[str]) -> list[int]:
    """The seeds that `7` and `100-200` stand for.

    Raises:
        ValueError: A word is no number and no range.
    """
    found: list[int] = []
    for word in words:
        first, _, last = word.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def added(tallies: list[Tally]) -> Tally:
    """Several sums as one."""
    injected = Counter[str]()
    for tally in tallies:
        injected.update(tally.injected)
    return Tally(
        sum(tally.n_runs for tally in tallies),
        sum(tally.spent_s for tally in tallies),
        dict(injected),
        tuple(each for tally in tallies for each in tally.broken),
    )


def _tell(outcome: Outcome) -> None:
    _say(
        f"seed {outcome.seed}: {outcome.trace}, {outcome.n_steps} steps, "
        f"{outcome.n_lives} lives, {dict(outcome.injected)}"
    )
    for violation in outcome.violations:
        _say(f"  {violation}")


def _summed(tally: Tally, is_crashes: bool) -> str:
    what = "points" if is_crashes else "seeds"
    rate = tally.n_runs / tally.spent_s if tally.n_runs else 0.0
    return (
        f"{tally.n_runs} {what}, {rate:.1f} {what}/s, "
        f"{tally.n_faults} faults {dict(tally.injected)}, broken: {list(tally.broken)}"
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
