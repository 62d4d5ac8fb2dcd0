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
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from actord.loadtest import machine, report, systems
from actord.loadtest.audit import HOT, NAMES, AuditError, Verdict
from actord.loadtest.durability import TraceUnavailable, flush_rate, prove
from actord.loadtest.measure import MeasureError, Sample, measure, run_wrk, tree_memory
from rich.console import Console

# The order within the first round; each later round begins one further on, so that none always follows the same one.
SYSTEMS = ("hello", "fastapi", "actord")
SPREADS = {"uniform": NAMES, "hot": 1}
# Between two runs, so that what wrk left under way when it hung up is not in the CPU or the balances of the next one.
SETTLE_SECONDS = 0.25
EX_UNAVAILABLE, EX_CONFIG = 69, 78


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="actord-bench-", dir=options.dir)))
        directory.chmod(0o711)  # PostgreSQL runs as another user when this runs as root
        if machine.file_system(directory) in machine.VOLATILE:
            console.print(f"{options.dir} is kept in memory: choose a folder on a disk with --dir")
            return EX_CONFIG
        signal.signal(signal.SIGTERM, _leave)  # so that the stack ends the servers
        try:
            results, sound = run(options, directory, stack, console)
        except (systems.SystemFailed, MeasureError, AuditError, OSError) as error:
            console.print(f"bench: {error}", markup=False)
            return EX_UNAVAILABLE
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    console.print(f"written: {options.out}", markup=False)
    return 0 if sound else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="Durable debits a second, beside what one would use instead."
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds over all cells (5)")
    parser.add_argument("--seconds", type=int, default=5, help="length of one run of wrk (5)")
    parser.add_argument("--connections", default=[1, 64, 256], type=_numbers, help="keep-alive connections (1,64,256)")
    parser.add_argument("--only", default=SYSTEMS, type=_systems, help=f"of {','.join(SYSTEMS)}", metavar="NAME,NAME")
    parser.add_argument("--quick", action="store_true", help="one round, runs of 2 seconds: a check, not a measurement")
    parser.add_argument("--out", type=Path, help="JSON file (bench-results/TIME.json)")
    parser.add_argument("--dir", type=Path, default="/var/tmp", help="where the systems keep their data (/var/tmp)")
    parser.add_argument("--actord", help="command that starts actord (the one beside this Python)")
    parser.add_argument("--app", default="examples/account.py", help="the program that actord serves")
    parser.add_argument("--no-strace", action="store_true", help="leave the flush count out")
    parser.add_argument("--strict", action="store_true", help="exit status 1 also when a figure is missed")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 1, 2
    if options.rounds < 1 or options.seconds < 1 or min(options.connections) < 1:
        parser.error("rounds, seconds and connections are at least 1")
    options.out = options.out or Path("bench-results", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json")
    options.actord = shlex.split(options.actord) if options.actord else [str(Path(sys.executable).with_name("actord"))]
    return options


def run(
    options: argparse.Namespace, directory: Path, stack: ExitStack, console: Console
) -> tuple[dict[str, object], bool]:
    """Start everything, run all rounds, audit, print. Out: the JSON file's content, and whether all of it is sound."""
    facts, flush = machine.facts(directory), flush_rate(directory)
    console.print(
        f"{facts['cores_allowed']} of {facts['cores']} cores ({facts['cpu']}), Linux {facts['kernel']}, "
        f"Python {facts['python']}, {facts['file_system']}, {flush['per_second']:,.0f} flushes/s"
    )
    results: dict[str, object] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": facts | {"flush_before": flush},
        "options": {
            name: value if isinstance(value, int | list) else str(value) for name, value in vars(options).items()
        },
    }
    running = start(options, directory, stack, console)
    memory = {system.name: {"idle": tree_memory(system.roots)} for system in running}
    warm_up(running, console)
    samples, verdicts = rounds(options, running, console)
    for system in running:
        memory[system.name]["after_the_run"] = tree_memory(system.roots)
    proofs, proofs_hold = flush_proofs(options, running, console)
    for system in running:
        if system.accounts:
            verdicts.append((system.name, system.accounts.audit()))
    table = report.cells(samples)
    reach = report.figures(table, memory.get("actord", {}).get("idle", []))
    report.print_report(Console(width=220, highlight=False), table, reach)
    lost = [(name, verdict) for name, verdict in verdicts if not verdict.holds]
    for name, verdict in lost:
        console.print(f"AUDIT FAILED: {name}: {verdict}", markup=False)
    if verdicts:
        console.print(
            f"audit: {len(verdicts) - len(lost)} of {len(verdicts)} comparisons of answers with balances hold"
        )
    results |= {
        "flush_after": flush_rate(directory),
        "systems": {
            system.name: {
                "settings": system.settings,
                "memory": memory[system.name],
                "durability": proofs.get(system.name),
            }
            for system in running
        },
        "audit": [{"system": name, **verdict.to_json()} for name, verdict in verdicts],
        "figures": [figure.to_json() for figure in reach],
        "cells": [asdict(cell) for cell in table.values()],
        "samples": [sample.to_json() for sample in samples],
    }
    failed_calls = any(any(cell.errors.values()) for cell in table.values())
    missed = options.strict and any(figure.reached is False for figure in reach)
    return results, proofs_hold and not (lost or failed_calls or missed)


def start(options: argparse.Namespace, directory: Path, stack: ExitStack, console: Console) -> list[systems.System]:
    """Start the chosen systems, one after the other."""
    starters: dict[str, Callable[[], AbstractContextManager[systems.System]]] = {
        "hello": lambda: systems.hello(directory),
        "fastapi": lambda: systems.fastapi(directory),
        "actord": lambda: systems.actord(directory, options.actord, options.app),
    }
    running = []
    for name in options.only:
        console.print(f"starting {name}")
        running.append(stack.enter_context(starters[name]()))
    return running


def warm_up(running: Sequence[systems.System], console: Console) -> None:
    """Fill what has no opening balances yet, then a short run on each: code is loaded, names were touched."""
    for system in running:
        if system.accounts and not system.filled:
            console.print(f"opening {NAMES:,} accounts: {system.name}")
            system.accounts.open()
        result = run_wrk(system.port, connections=64, names=NAMES, seconds=1)
        if system.accounts:
            system.accounts.ledger.add(result, 64)


def rounds(
    options: argparse.Namespace, running: Sequence[systems.System], console: Console
) -> tuple[list[Sample], list[tuple[str, Verdict]]]:
    """All rounds, interleaved. Out: the samples, and one verdict for each run on the hot name."""
    samples: list[Sample] = []
    verdicts: list[tuple[str, Verdict]] = []
    for number in range(options.rounds):
        turn = [running[(number + i) % len(running)] for i in range(len(running))]
        for spread, names in SPREADS.items():
            for connections in options.connections:
                for system in turn:
                    time.sleep(SETTLE_SECONDS)
                    accounts = system.accounts
                    before = accounts.balance(HOT) if accounts and spread == "hot" else None
                    sample = measure(
                        system.name,
                        system.port,
                        system.roots,
                        spread=spread,
                        connections=connections,
                        names=names,
                        seconds=options.seconds,
                        round=number,
                    )
                    samples.append(sample)
                    if accounts:
                        accounts.ledger.add(sample.wrk, connections)
                        if before is not None:
                            verdicts.append((system.name, accounts.audit_hot(before, sample.wrk, connections)))
                    failed = sum(sample.wrk.errors.values())
                    console.print(
                        f"round {number + 1}/{options.rounds} {spread:7} {connections:3} {system.name:8} "
                        f"{sample.rate:9,.0f} calls/s  {sample.cpu_us:6.1f} µs CPU/call  errors {failed}"
                    )
    return samples, verdicts


def flush_proofs(
    options: argparse.Namespace, running: Sequence[systems.System], console: Console
) -> tuple[dict[str, object], bool]:
    """Count flushes beside answers for each durable system. Where tracing is impossible, that is said; no failure."""
    proofs: dict[str, object] = {}
    hold = True
    for system in running:
        if not system.accounts or options.no_strace:
            continue
        try:
            proof = prove(system, NAMES)
        except TraceUnavailable as reason:
            proofs[system.name] = {"not_measured": str(reason)}
            console.print(f"flushes of {system.name}: NOT MEASURED, {reason}", markup=False)
            continue
        hold = hold and proof.holds
        proofs[system.name] = proof.to_json()
        console.print(
            f"flushes of {system.name} under strace: {proof.single_flushes} for {proof.single_calls} calls one by one, "
            f"{proof.group_flushes} for {proof.group_calls} on 64 connections{'' if proof.holds else ': NOT DURABLE'}"
        )
    return proofs, hold


def _systems(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known are {', '.join(SYSTEMS)}")
    return [name for name in SYSTEMS if name in names]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _leave(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
