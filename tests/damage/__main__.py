"""``python -m tests.damage --flips 5000 --seed 1``: the long version; exit code 1 when a flip was missed."""

from __future__ import annotations

import argparse
import sys

from tests.damage.flips import Result, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description=__doc__)
    parser.add_argument("--flips", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    def progress(done: int, result: Result) -> None:
        if done % 50 == 0 or done == options.flips:
            end = "\r" if sys.stderr.isatty() and done < options.flips else "\n"
            print(f"{done} flips, {len(result.missed)} missed", end=end, file=sys.stderr, flush=True)

    result = run(options.flips, options.seed, progress)
    print(result.table())
    print(f"noticed by: {dict(result.noticed)}; detection rate {result.rate:.4f}; seed {options.seed}")
    for place in result.missed:
        print(f"MISSED {place}")
    return 1 if result.missed else 0


if __name__ == "__main__":
    sys.exit(main())
