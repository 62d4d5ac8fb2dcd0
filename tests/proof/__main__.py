"""``make proof``: the long version of the fault programme, by a seed and within a time budget; ends with a report.

    python -m tests.proof [--seconds 1800] [--seed N] [--only PART ...] [--report proof-report.md]

Every part runs alone with ``--only``; a run that found something says the command that repeats it and exits with 1.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.proof import elsewhere, faults
from tests.proof.part import Context, Part, Result
from tests.proof.report import write

PARTS: list[Part] = [*faults.PARTS, *elsewhere.PARTS]
DEFAULT_SECONDS = 1800.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description="Run the fault programme at length.")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("PROOF_SECONDS") or DEFAULT_SECONDS))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("PROOF_SEED") or secrets.randbelow(1 << 31)))
    parser.add_argument("--only", action="append", choices=[part.name for part in PARTS], help="may be repeated")
    parser.add_argument("--report", type=Path, default=Path("proof-report.md"))
    return parser.parse_args()


def run_part(part: Part, seed: int, seconds: float) -> Result:
    """Its result; a part that breaks is a violation of its own."""
    begun = time.monotonic()
    if reason := part.unavailable():
        result = Result(skipped=reason)
    else:
        with tempfile.TemporaryDirectory(prefix=f"proof-{part.name}-") as folder:
            context = Context(part.name, Path(folder), seed, begun + seconds)
            try:
                result = part.run(context)
            except Exception as error:
                context.say(f"broke: {error!r}")
                result = Result(wrong=[f"the part itself broke: {error!r}"])
    result.seconds = time.monotonic() - begun
    return result


def main() -> int:
    options = arguments()
    chosen = [part for part in PARTS if not options.only or part.name in options.only]
    whole = sum(part.share for part in chosen)
    print(f"proof: seed {options.seed}, {options.seconds:g} s, {', '.join(part.name for part in chosen)}", flush=True)
    results: dict[str, Result] = {}
    left, shares = options.seconds, whole
    for part in chosen:
        # What an earlier part did not use is shared out among those that follow.
        result = run_part(part, options.seed, left * part.share / shares)
        results[part.name] = result
        left, shares = max(0.0, left - result.seconds), shares - part.share
        state = f"skipped: {result.skipped}" if result.skipped else f"{len(result.wrong)} violations"
        print(f"proof: {part.name}: {state} in {result.seconds:.0f} s", flush=True)
        for line in result.wrong[:5]:
            print(f"proof:   {line[:600]}", flush=True)
        write(options.report, options.seed, options.seconds, results)
    print(f"proof: the report is {options.report}", flush=True)
    failed = [name for name, result in results.items() if result.wrong]
    for name in failed:
        print(f"proof: again: python -m tests.proof --only {name} --seed {options.seed} --seconds {options.seconds:g}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
