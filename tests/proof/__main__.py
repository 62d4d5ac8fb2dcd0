"""``make proof``: the long version of the fault programme, by a seed and within a time budget; ends with a report.

Parts run beside each other, in lanes (``part.py``) and each in a process of its own.

    python -m tests.proof [--seconds 1800] [--seed N] [--only PART ...] [--report proof-report.md]

Every part runs alone with ``--only``; a run that found something says the command that repeats it and exits with 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import secrets
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tests.proof.part import Lane, Part, Result
from tests.proof.parts import PARTS, run_part
from tests.proof.report import write

DEFAULT_SECONDS = 1800.0
LANES: list[Lane] = ["disks", "servers", "beside"]  # and then what runs alone


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description="Run the fault programme at length.")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("PROOF_SECONDS") or DEFAULT_SECONDS))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("PROOF_SEED") or secrets.randbelow(1 << 31)))
    parser.add_argument("--only", action="append", choices=[part.name for part in PARTS], help="may be repeated")
    parser.add_argument("--report", type=Path, default=Path("proof-report.md"))
    return parser.parse_args()


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
            budget = left * part.share / sum(one.share for one in parts[number:])
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                try:
                    result = process.submit(run_part, part.name, self.options.seed, budget).result()
                except BrokenProcessPool as error:
                    result = Result(wrong=[f"the part's process broke: {error!r}"])
            self._keep(part.name, result)

    def all(self) -> None:
        last = sum(part.share for part in self._of("alone"))
        others = max(sum(part.share for part in self._of(name)) for name in LANES)
        seconds = self.options.seconds * others / (last + others)
        lanes = [threading.Thread(target=self.lane, args=(name, seconds)) for name in LANES]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
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
