"""``python -m tests.simulation --seeds 10000 --start 0``, or ``--seed N`` for one that failed, with what it did."""

from __future__ import annotations

import argparse
import sys

from tests.simulation.loop import virtual_clocks
from tests.simulation.run import Result, play, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    if options.seed is not None:
        return one(options.seed)

    def progress(done: int, result: Result) -> None:
        if done % 100 == 0 or done == options.seeds:
            end = "\r" if sys.stderr.isatty() and done < options.seeds else "\n"
            print(f"{done} seeds, {len(result.violations)} failed", end=end, file=sys.stderr, flush=True)

    result = run(range(options.start, options.start + options.seeds), progress)
    for violation in result.violations:
        print(violation)
    for name in result.planted_missed:
        print(f"the planted bug was not caught: {name}")
    print(
        f"{result.seeds} seeds from {options.start}, {result.operations} calls, {result.answered} answered, "
        f"{result.crashes} crashes, {len(result.violations)} violations, "
        f"{len(result.planted_caught)} of {len(result.planted_caught) + len(result.planted_missed)} planted bugs caught"
    )
    return 1 if result.violations or result.planted_missed else 0


def one(seed: int) -> int:
    with virtual_clocks():
        world = play(seed)
    for op in world.ops.values():
        print(op.number, "/".join(op.key), op.answer or "no answer", op.plan)
    for violation in world.violations:
        print(f"VIOLATION {violation}")
    return 1 if world.violations else 0


if __name__ == "__main__":
    sys.exit(main())
