"""``make proof``: the long version of the fault programme, by a seed and within a time budget; ends with a report.

Two parts run at a time, in lanes (``part.py``), and those that measure time alone at the end.

    python -m tests.proof [--seconds 1800] [--seed N] [--only PART ...] [--report proof-report.md]

Every part runs alone with ``--only``; a run that found something says the command that repeats it and exits with 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import sys
import tempfile
import threading
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


class Run:
    """The chosen parts in their lanes; the report is written anew after each of them."""

    def __init__(self, options: argparse.Namespace, chosen: list[Part]) -> None:
        self.options = options
        self.chosen = chosen
        self.results: dict[str, Result] = {}
        self._lock = threading.Lock()

    def lane(self, name: str, seconds: float) -> None:
        """Its parts, one after the other. What one does not use is shared out among those that follow."""
        until = time.monotonic() + seconds
        parts = self._of(name)
        for number, part in enumerate(parts):
            left = max(0.0, until - time.monotonic())
            result = run_part(part, self.options.seed, left * part.share / sum(one.share for one in parts[number:]))
            self._keep(part.name, result)

    def all(self) -> None:
        last = sum(part.share for part in self._of("alone"))
        others = max(sum(part.share for part in self._of(name)) for name in ("servers", "beside"))
        seconds = self.options.seconds * others / (last + others)
        beside = threading.Thread(target=self.lane, args=("beside", seconds), daemon=True)
        beside.start()
        self.lane("servers", seconds)
        beside.join()
        self.lane("alone", self.options.seconds - seconds)

    def _of(self, lane: str) -> list[Part]:
        return [part for part in self.chosen if part.lane == lane]

    def _keep(self, name: str, result: Result) -> None:
        with self._lock:
            self.results[name] = result
            state = f"skipped: {result.skipped}" if result.skipped else f"{len(result.wrong)} violations"
            print(f"proof: {name}: {state} in {result.seconds:.0f} s", flush=True)
            for line in result.wrong[:5]:
                print(f"proof:   {line[:600]}", flush=True)
            in_order = {part.name: self.results[part.name] for part in PARTS if part.name in self.results}
            write(self.options.report, self.options.seed, self.options.seconds, in_order)


def main() -> int:
    options = arguments()
    logging.getLogger("actord").addHandler(logging.NullHandler())  # what damaged states of a disk let the store say
    chosen = [part for part in PARTS if not options.only or part.name in options.only]
    print(f"proof: seed {options.seed}, {options.seconds:g} s, {', '.join(part.name for part in chosen)}", flush=True)
    run = Run(options, chosen)
    run.all()
    print(f"proof: the report is {options.report}", flush=True)
    failed = [part.name for part in chosen if run.results[part.name].wrong]
    for name in failed:
        print(f"proof: again: python -m tests.proof --only {name} --seed {options.seed} --seconds {options.seconds:g}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
