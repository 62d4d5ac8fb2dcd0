"""The rounds of a benchmark: start the systems, fill and warm them, run every cell on each in turn, audit, collect.

Promises:
1. In every round each cell (spread of names x connections) is run on every system in turn, so that a slow phase of the
   machine hits all of them; a round begins one system further on than the one before.
2. Sound means: every answered debit was found, each traced reply came after its flush, and no call failed.
3. With ``skip`` a system other than actord that is missing, does not come up or falls out is left out, with the
   reason in the results; without, its error is raised.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from actord.loadtest import machine, peer_systems, report, systems
from actord.loadtest.audit import HOT, AuditError, Verdict
from actord.loadtest.durability import TraceUnavailable, flush_rate, prove
from actord.loadtest.measure import MeasureError, Sample, sample, tree_memory
from actord.loadtest.systems import System, SystemFailed
from rich.console import Console

SPREADS = ("uniform", "hot", "read")
# Between two runs, so that what wrk left under way when it hung up is not in the CPU or the balances of the next one.
SETTLE_SECONDS = 0.25
EX_UNAVAILABLE, EX_CONFIG = 69, 78

Options = argparse.Namespace
STARTERS: dict[str, Callable[[Options, Path], AbstractContextManager[System]]] = {
    "hello": lambda _, folder: systems.hello(folder),
    "fastapi": lambda _, folder: systems.fastapi(folder),
    "fastapi-update": lambda _, folder: systems.fastapi(folder, update=True),
    "redis": lambda _, folder: peer_systems.redis(folder),
    "pgbench": lambda _, folder: peer_systems.pgbench(folder),
    "workerd": lambda options, folder: peer_systems.workerd(folder, options.modules),
    "restate": lambda options, folder: peer_systems.restate(folder, options.modules),
    "actord": lambda options, folder: systems.actord(folder, options.actord, options.app),
    "actord-compiled": lambda options, folder: systems.compiled(folder, options.actord, options.app),
}
FAILURES = (SystemFailed, MeasureError, AuditError)


def add_options(parser: argparse.ArgumentParser, known: Sequence[str]) -> None:
    """The options that every benchmark of rounds has; ``known``: the systems of this one, all taken by default."""

    def chosen(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known are {', '.join(known)}")
        return [name for name in known if name in names]

    parser.add_argument("--rounds", type=int, default=5, help="rounds over all cells (5)")
    parser.add_argument("--seconds", type=int, default=5, help="length of one run of the client (5)")
    parser.add_argument("--cells", type=_cells, help="such as uniform:64,hot:64,read:64", metavar="NAMES:CONNECTIONS,…")
    parser.add_argument("--only", default=list(known), type=chosen, help=f"of {','.join(known)}", metavar="NAME,NAME")
    parser.add_argument("--quick", action="store_true", help="one round, runs of 2 seconds: a check, not a measurement")
    parser.add_argument("--out", type=Path, help="JSON file (below bench-results/)")
    parser.add_argument("--dir", type=Path, default="/var/tmp", help="where the systems keep their data (/var/tmp)")
    parser.add_argument("--actord", help="command that starts actord (the one beside this Python)")
    parser.add_argument("--app", default="examples/account.py", help="the program that actord serves")
    parser.add_argument("--no-strace", action="store_true", help="leave the flush count out")
    parser.add_argument("--strict", action="store_true", help="exit status 1 also when a figure is missed")
    parser.set_defaults(modules=Path(".peers/node_modules").absolute())


def check_options(parser: argparse.ArgumentParser, options: Options, name: str) -> None:
    """Complete the options after parsing; ``name`` begins the name of the file of results."""
    if options.quick:
        options.rounds, options.seconds = 1, 2
    if options.rounds < 1 or options.seconds < 1 or any(connections < 1 for _, connections in options.cells):
        parser.error("rounds, seconds and connections are at least 1")
    options.out = options.out or Path("bench-results", f"{name}{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json")
    options.actord = shlex.split(options.actord) if options.actord else [str(Path(sys.executable).with_name("actord"))]


@dataclass(slots=True)
class Outcome:
    """What a benchmark found. ``skipped``: systems that were left out, each with its reason."""

    facts: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    verdicts: list[tuple[str, Verdict]] = field(default_factory=list)
    proofs: dict[str, dict[str, object]] = field(default_factory=dict)
    proofs_hold: bool = True
    memory: dict[str, dict[str, list[dict[str, object]]]] = field(default_factory=dict)
    systems: list[System] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def lost(self) -> list[tuple[str, Verdict]]:
        return [(name, verdict) for name, verdict in self.verdicts if not verdict.holds]

    @property
    def sound(self) -> bool:
        failed = any(any(sample.wrk.errors.values()) for sample in self.samples)
        return self.proofs_hold and not self.lost and not failed

    def to_json(self) -> dict[str, Any]:
        return self.facts | {
            "systems": {
                system.name: {
                    "speaks": system.speaks,
                    "keeps": system.keeps,
                    "names": system.names,
                    "settings": system.settings,
                    "memory": self.memory.get(system.name, {}),
                    "durability": self.proofs.get(system.name),
                }
                for system in self.systems
            },
            "skipped": self.skipped,
            "audit": [{"system": name, **verdict.to_json()} for name, verdict in self.verdicts],
            "cells": [asdict(cell) for cell in report.cells(self.samples).values()],
            "samples": [sample.to_json() for sample in self.samples],
        }


def carry_out(options: Options, console: Console, *, skip: bool = False) -> Outcome | int:
    """Run the benchmark in a folder of its own below ``options.dir``. Out: what it found, or an exit status."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="actord-bench-", dir=options.dir)))
        directory.chmod(0o711)  # PostgreSQL runs as another user when this runs as root
        if machine.file_system(directory) in machine.VOLATILE:
            console.print(f"{options.dir} is kept in memory: choose a folder on a disk with --dir")
            return EX_CONFIG
        signal.signal(signal.SIGTERM, leave)  # so that the stack ends the servers
        try:
            return _run(options, directory, stack, console, skip)
        except (*FAILURES, OSError) as error:
            console.print(f"bench: {error}", markup=False)
            return EX_UNAVAILABLE


def _run(options: Options, directory: Path, stack: ExitStack, console: Console, skip: bool) -> Outcome:
    facts, flush = machine.facts(directory), flush_rate(directory)
    console.print(
        f"{facts['cores_allowed']} of {facts['cores']} cores ({facts['cpu']}), Linux {facts['kernel']}, "
        f"Python {facts['python']}, {facts['file_system']}, {flush['per_second']:,.0f} flushes/s"
    )
    plain = {name: value if isinstance(value, int | list) else str(value) for name, value in vars(options).items()}
    started = datetime.now(UTC).isoformat(timespec="seconds")
    outcome = Outcome({"started": started, "machine": facts | {"flush_before": flush}, "options": plain})
    taking_part: list[System] = []

    def attempt(name: str, step: Callable[[], None]) -> None:
        try:
            step()
        except FAILURES as error:
            if not skip or name == "actord":
                raise
            outcome.skipped[name] = str(error)
            console.print(f"SKIPPED: {name}: {error}", markup=False)
            taking_part[:] = [system for system in taking_part if system.name != name]

    def start(name: str) -> None:
        console.print(f"starting {name}")
        system = stack.enter_context(STARTERS[name](options, directory))
        outcome.memory[name] = {"idle": tree_memory(system.roots)}
        _warm_up(system, options.cells, console)
        taking_part.append(system)

    for name in options.only:
        attempt(name, partial(start, name))
    for number in range(options.rounds):
        for spread, connections in options.cells:
            turn = [taking_part[(number + i) % len(taking_part)] for i in range(len(taking_part))]
            for system in [one for one in turn if one.has(spread)]:
                words = f"round {number + 1}/{options.rounds}"
                step = _Step(system, spread, connections, options.seconds, number, words)
                attempt(system.name, partial(step.run, outcome, console))
    for system in list(taking_part):
        outcome.memory[system.name]["after_the_run"] = tree_memory(system.roots)
        attempt(system.name, partial(_check, system, options, outcome, console))
    outcome.systems = taking_part
    outcome.facts["flush_after"] = flush_rate(directory)
    for name, verdict in outcome.lost:
        console.print(f"AUDIT FAILED: {name}: {verdict}", markup=False)
    held, count = len(outcome.verdicts) - len(outcome.lost), len(outcome.verdicts)
    console.print(f"audit: {held} of {count} comparisons of answers with balances hold")
    return outcome


def _warm_up(system: System, cells: Sequence[tuple[str, int]], console: Console) -> None:
    """Fill what has no opening balances yet, then short runs: code is loaded, names were touched, logs have grown."""
    if system.accounts and not system.filled:
        console.print(f"opening {system.names:,} accounts: {system.name}")
        system.accounts.open()
    # A client of its own learns each cell's rate here; for wrk one run is enough.
    for spread, connections in [cell for cell in cells if system.has(cell[0])] if system.client else [("uniform", 64)]:
        result = system.load(spread, connections, 1 if system.client else 4)
        if system.accounts:
            system.accounts.ledger.add(result, connections)


@dataclass(frozen=True, slots=True)
class _Step:
    """One run of one cell on one system."""

    system: System
    spread: str
    connections: int
    seconds: int
    number: int
    words: str

    def run(self, outcome: Outcome, console: Console) -> None:
        time.sleep(SETTLE_SECONDS)
        system, accounts = self.system, self.system.accounts
        before = accounts.balance(HOT) if accounts and self.spread == "hot" else None
        found = sample(
            system.name,
            system.roots,
            lambda: system.load(self.spread, self.connections, self.seconds),
            spread=self.spread,
            connections=self.connections,
            round=self.number,
        )
        outcome.samples.append(found)
        if accounts and self.spread != "read":
            accounts.ledger.add(found.wrk, self.connections)
            if before is not None:
                outcome.verdicts.append((system.name, accounts.audit_hot(before, found.wrk, self.connections)))
        console.print(
            f"{self.words} {self.spread:7} {self.connections:3} {system.name:8} "
            f"{found.rate:9,.0f} calls/s  {found.cpu_us:6.1f} µs CPU/call  errors {sum(found.wrk.errors.values())}"
        )


def _check(system: System, options: Options, outcome: Outcome, console: Console) -> None:
    """Count flushes beside answers, then compare all balances with all answers."""
    if not system.accounts:
        return
    if not options.no_strace:
        try:
            proof = prove(system)
        except TraceUnavailable as reason:  # said, and no failure
            outcome.proofs[system.name] = {"not_measured": str(reason)}
            console.print(f"flushes of {system.name}: NOT MEASURED, {reason}", markup=False)
        else:
            outcome.proofs_hold = outcome.proofs_hold and proof.holds
            outcome.proofs[system.name] = proof.to_json()
            console.print(
                f"flushes of {system.name} under strace: {proof.single_flushes} for {proof.single_calls} calls one by "
                f"one, {proof.single_ordered} of them in the order write, flush, reply; {proof.group_flushes} for "
                f"{proof.group_calls} on 64 connections{'' if proof.holds else ': NOT DURABLE'}"
            )
    outcome.verdicts.append((system.name, system.accounts.audit()))


def _cells(text: str) -> list[tuple[str, int]]:
    found = []
    for part in text.split(","):
        spread, _, connections = part.partition(":")
        if spread not in SPREADS or not connections.isdigit():
            raise argparse.ArgumentTypeError(f"not a cell: {part!r}; one is {', '.join(SPREADS)} and a number: hot:64")
        found.append((spread, int(connections)))
    return found


def leave(number: int, _: object) -> NoReturn:
    """The handler of a signal: end by way of the ``with`` blocks."""
    sys.exit(128 + number)
