"""`python -m aios.testing SEED...`: run seeds and tell what they found; `python -m aios.testing A-B` a whole range."""

import sys
from collections import Counter
from time import perf_counter

from aios.testing.simulation import Simulator


def main(words: list[str]) -> int:
    """Run the seeds that the words name. Returns: the exit status, 1 if an invariant broke."""
    simulator, begun_s, n_seeds, failed = Simulator(), perf_counter(), 0, list[int]()
    injected: Counter[str] = Counter()
    try:
        for seed in seeds_of(words):
            outcome = simulator.run(seed)
            n_seeds += 1
            injected.update(outcome.injected)
            if outcome.violations or words == [str(seed)]:
                _say(
                    f"seed {seed}: {outcome.trace}, {outcome.n_steps} steps, "
                    f"{outcome.n_lives} lives, {dict(outcome.injected)}"
                )
            for violation in outcome.violations:
                _say(f"  {violation}")
            failed += [seed] * bool(outcome.violations)
    finally:
        simulator.close()
    spent_s = perf_counter() - begun_s
    _say(
        f"{n_seeds} seeds, {n_seeds / spent_s:.1f} seeds/s, "
        f"{injected.total()} faults {dict(injected)}, broken: {failed}"
    )
    return int(bool(failed))


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


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
