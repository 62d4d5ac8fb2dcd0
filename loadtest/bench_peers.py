"""Durable debits on actord beside what one would use instead, in one interleaved run: table, plot and JSON.

``python -m actord.loadtest.bench_peers`` (or ``make bench-peers``, which installs the peers). A peer that is not on
this machine, or does not come up, is left out and named. Everything runs in a network that has the loopback interface
alone, where the machine allows one; Restate runs nowhere else. ``--from FILE`` writes table and plot of a run anew.

Exit status: 0; 1 when an answered debit was not found, a flush was missing, a call failed, or (with ``--strict``) a
figure was missed; 69 when actord did not come up; 78 when the data would be kept in memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actord.loadtest import network, peers_report, report, rounds
from rich.console import Console

CELLS = [("uniform", 1), ("uniform", 64), ("uniform", 256), ("hot", 64), ("read", 64)]
# The order within the first round. Restate, which is busy without any call, comes up last.
SYSTEMS = ("actord", "actord-compiled", "hello", "fastapi", "fastapi-update", "redis", "pgbench", "workerd", "restate")
PUBLISHED = Path("docs/performance/peers.md")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if options.stored:
        results: dict[str, Any] = json.loads(options.stored.read_text())
        write(results, options.stored, options.publish, console)
        return 0
    if not network.is_loopback_only():
        given = sys.argv[1:] if arguments is None else arguments
        network.enter([sys.executable, "-m", "actord.loadtest.bench_peers", *given])
        console.print("no network of its own for this run: Restate is left out")
    outcome = rounds.carry_out(options, console, skip=True)
    if isinstance(outcome, int):
        return outcome
    results = outcome.to_json()
    table = peers_report.table_of(results)
    reach = peers_report.figures(table)
    compiled = peers_report.figures(table, "actord-compiled")
    results["figures"] = [figure.to_json() for figure in reach]
    results["figures_compiled"] = [figure.to_json() for figure in compiled]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    console.print(f"written: {options.out}", markup=False)
    write(results, options.out, options.publish, console)
    words = Console(width=220, highlight=False)
    words.print(report.reached_table(reach))
    if "actord-compiled" in results["systems"]:
        words.print("compiled:", report.reached_table(compiled))
    report.print_disturbed(words, table)
    missed = options.strict and any(figure.reached is False for figure in reach)
    return 0 if outcome.sound and not missed else 1


def write(results: Mapping[str, Any], stored: Path, publish: bool, console: Console) -> None:
    """Print the table; write it and the plot beside the results, or into the documentation."""
    text = peers_report.markdown(results)
    print(text)
    page = PUBLISHED if publish else stored.with_suffix(".md")
    plot = page.with_suffix(".svg")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text if publish else text.replace("(peers.svg)", f"({plot.name})"))
    console.print(f"written: {page}", markup=False)
    try:
        peers_report.plot(results, plot)
    except ImportError:
        console.print("no plot: matplotlib is not installed (the extra `bench` has it)", markup=False)
    else:
        console.print(f"written: {plot}", markup=False)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench_peers", description="Durable debits a second, beside what one would use instead."
    )
    rounds.add_options(parser, SYSTEMS)
    parser.add_argument("--publish", action="store_true", help=f"write {PUBLISHED} and its plot")
    parser.add_argument("--from", dest="stored", type=Path, metavar="FILE", help="no run: the results of this one")
    options = parser.parse_args(arguments)
    options.cells = options.cells or CELLS
    rounds.check_options(parser, options, "peers-")
    return options


if __name__ == "__main__":
    sys.exit(main())
