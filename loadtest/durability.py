"""Is it durable? Flushes counted under strace, beside the answers; and what a flush costs on this disk.

strace slows a server down, so this is a run of its own and never a timed one. It looks at two things:
1. One connection, each call sent after the answer to the one before: no two calls can share a flush, so there must be
   at least as many flushes as answers. A server that never syncs, or not for each, fails here. And each answer must
   come after a write to a file and a flush of its own (``order.py``).
2. 64 connections: how many calls share a flush, which is group commit at work.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from actord.loadtest import order
from actord.loadtest.measure import process_tree
from actord.loadtest.systems import System

SINGLE_CALLS = 200
GROUP_CONNECTIONS = 64
GROUP_SECONDS = 2  # a slow system with strace attached needs more than one to answer anything
ATTACH_SECONDS = 20
ATTEMPTS = 5
# A call that begins; the line of one that was interrupted and resumed has no opening parenthesis after the name.
# A sync may also be asked of the kernel as asynchronous I/O.
FLUSH = re.compile(r"\b(?:fdatasync|fsync|sync_file_range|msync)\(|IOCB_CMD_FD?SYNC\b")


class TraceUnavailable(Exception):
    """strace is missing or may not attach here."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Flushes beside answers. ``holds``: no answer on the single connection went out without a flush of its own.

    ``single_ordered``: how many of those answers were seen to leave after a write to a file and then its flush.
    """

    single_calls: int
    single_flushes: int
    group_calls: int
    group_flushes: int
    single_ordered: int

    def to_json(self) -> dict[str, object]:
        return {
            "single_connection": {
                "answers": self.single_calls,
                "flushes": self.single_flushes,
                "answers_after_write_and_flush": self.single_ordered,
            },
            f"connections_{GROUP_CONNECTIONS}": {
                "answers": self.group_calls,
                "flushes": self.group_flushes,
                "answers_per_flush": round(self.group_calls / max(1, self.group_flushes), 1),
            },
            "each_answer_had_its_flush": self.holds,
        }

    @property
    def holds(self) -> bool:
        counted = 0 < self.single_calls <= self.single_flushes and self.group_flushes > 0
        return counted and self.single_ordered >= self.single_calls


def prove(system: System) -> Proof:
    """Count flushes of all processes of a system that keeps accounts. Raises TraceUnavailable."""
    accounts = system.accounts
    assert accounts is not None
    trace = traced(system.roots, lambda: accounts.debit_one_by_one(SINGLE_CALLS), order.TRACED)
    ordered = order.order(trace, system.port)
    answered = 0

    def group() -> None:
        nonlocal answered
        result = system.load("uniform", GROUP_CONNECTIONS, GROUP_SECONDS)
        accounts.ledger.add(result, GROUP_CONNECTIONS)
        answered = result.answered

    flushes = count_flushes(system.roots, group)
    return Proof(SINGLE_CALLS, len(FLUSH.findall(trace)), answered, flushes, ordered.after_sync)


def count_flushes(roots: Sequence[int], work: Callable[[], None]) -> int:
    """Run ``work`` with strace attached to the trees of ``roots``; the flushes that began meanwhile."""
    return len(FLUSH.findall(traced(roots, work, order.SYNCS)))


def traced(roots: Sequence[int], work: Callable[[], None], calls: str) -> str:
    """Run ``work`` with strace attached to the trees of ``roots``: its lines about those system calls."""
    for attempt in range(ATTEMPTS):
        with tempfile.TemporaryDirectory() as folder:
            lines = Path(folder, "lines")
            tracer = _attach(roots, calls, lines, last=attempt == ATTEMPTS - 1)
            if tracer is None:
                continue
            try:
                work()
            finally:
                _detach(tracer)
            return lines.read_text(errors="replace")
    raise AssertionError("unreachable: the last attempt raises")


def _attach(roots: Sequence[int], calls: str, lines: Path, *, last: bool) -> subprocess.Popen[bytes] | None:
    """Begin to trace the trees. None: it failed, once more may do: some of PostgreSQL's processes end at any time."""
    strace = shutil.which("strace")
    if not strace:
        raise TraceUnavailable("strace is not installed")
    pids = [process.pid for process in process_tree(roots)]
    command = [strace, "-f", "-yy", "-s", "2", "-e", f"trace={calls}", "-e", "signal=none", "-o", str(lines)]
    command += [argument for pid in pids for argument in ("-p", str(pid))]
    words = lines.with_name("words")
    with words.open("wb") as stderr:
        tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, start_new_session=True)
    deadline = time.monotonic() + ATTACH_SECONDS
    while True:
        said = words.read_text(errors="replace")
        if all(re.search(rf"\b{pid} attached\b", said) for pid in pids):
            return tracer
        if tracer.poll() is not None or time.monotonic() > deadline:
            _detach(tracer)
            if not last:
                return None
            raise TraceUnavailable(f"strace could not attach: {said.strip()[-300:]}")
        time.sleep(0.02)


def _detach(tracer: subprocess.Popen[bytes]) -> None:
    tracer.send_signal(signal.SIGINT)  # strace lets go of its processes and ends
    tracer.wait(ATTACH_SECONDS)


def flush_rate(directory: Path, seconds: float = 1.0) -> dict[str, float]:
    """Append 4 KiB and fdatasync, again and again, to a file in ``directory``: flushes a second, p50 and p99 in ms."""
    page, took = b"x" * 4096, []
    with tempfile.TemporaryFile(dir=directory) as file:
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            os.write(file.fileno(), page)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - start) * 1e3)
    p99 = quantiles(took, n=100)[-1] if len(took) > 1 else took[0]
    return {"per_second": round(len(took) / seconds), "p50_ms": round(median(took), 3), "p99_ms": round(p99, 3)}
