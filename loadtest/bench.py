"""The benchmark: durable debits on actord, a hello-world server and FastAPI + PostgreSQL, interleaved in one run.

``python -m actord.loadtest.bench`` (or ``make bench``). In every round each cell (spread of names x connections) is
run on every system in turn, so that a slow phase of the machine hits all of them; only ratios within one run count.
Needs wrk and PostgreSQL's server on the machine. Exit status: 0; 1 when an answered debit was not found, a flush was
missing, a call failed, or (with ``--strict``) a figure was missed; 69 when a system did not come up; 78 when the data
would be kept in memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from actord.loadtest import report, rounds
from rich.console import Console

# The order within the first round; each later round begins one further on, so that none always follows the same one.
SYSTEMS = ("hello", "fastapi", "actord")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    outcome = rounds.carry_out(options, console)
    if isinstance(outcome, int):
        return outcome
    table = report.cells(outcome.samples)
    reach = report.figures(table, outcome.memory.get("actord", {}).get("idle", []))
    report.print_report(Console(width=220, highlight=False), table, reach)
    results = outcome.to_json() | {"figures": [figure.to_json() for figure in reach]}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    console.print(f"written: {options.out}", markup=False)
    missed = options.strict and any(figure.reached is False for figure in reach)
    return 0 if outcome.sound and not missed else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="Durable debits a second, beside what one would use instead."
    )
    rounds.add_options(parser, SYSTEMS)
    parser.add_argument("--connections", default=[1, 64, 256], type=_numbers, help="keep-alive connections (1,64,256)")
    options = parser.parse_args(arguments)
    options.cells = options.cells or [(spread, each) for spread in ("uniform", "hot") for each in options.connections]
    rounds.check_options(parser, options, "")
    return options


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
