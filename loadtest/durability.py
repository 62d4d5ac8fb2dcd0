"""Is it durable? Flushes counted under strace, beside the answers; and what a flush costs on this disk.

strace slows a server down, so this is a run of its own and never a timed one. It looks at two things:
1. One connection, each call sent after the answer to the one before: no two calls can share a flush, so there must be
   at least as many flushes as answers. A server that never syncs, or not for each, fails here.
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

from actord.loadtest.measure import process_tree, run_wrk
from actord.loadtest.systems import System

SINGLE_CALLS = 200
GROUP_CONNECTIONS = 64
ATTACH_SECONDS = 20
# A call that begins; the line of one that was interrupted and resumed has no opening parenthesis after the name.
# A sync may also be asked of the kernel as asynchronous I/O.
FLUSH = re.compile(r"\b(?:fdatasync|fsync|sync_file_range|msync)\(|IOCB_CMD_FD?SYNC\b")


class TraceUnavailable(Exception):
    """strace is missing or may not attach here."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Flushes beside answers. ``holds``: no answer on the single connection went out without a flush of its own."""

    single_calls: int
    single_flushes: int
    group_calls: int
    group_flushes: int

    def to_json(self) -> dict[str, object]:
        return {
            "single_connection": {"answers": self.single_calls, "flushes": self.single_flushes},
            f"connections_{GROUP_CONNECTIONS}": {
                "answers": self.group_calls,
                "flushes": self.group_flushes,
                "answers_per_flush": round(self.group_calls / max(1, self.group_flushes), 1),
            },
            "each_answer_had_its_flush": self.holds,
        }

    @property
    def holds(self) -> bool:
        return 0 < self.single_calls <= self.single_flushes and self.group_flushes > 0


def prove(system: System, names: int) -> Proof:
    """Count flushes of all processes of a system that keeps accounts. Raises TraceUnavailable."""
    accounts = system.accounts
    assert accounts is not None
    single = count_flushes(system.roots, lambda: accounts.debit_one_by_one(SINGLE_CALLS))

    answered = 0

    def group() -> None:
        nonlocal answered
        result = run_wrk(system.port, connections=GROUP_CONNECTIONS, names=names, seconds=1)
        accounts.ledger.add(result, GROUP_CONNECTIONS)
        answered = result.answered

    flushes = count_flushes(system.roots, group)
    return Proof(SINGLE_CALLS, single, answered, flushes)


def count_flushes(roots: Sequence[int], work: Callable[[], None]) -> int:
    """Run ``work`` with strace attached to the trees of ``roots``; the flushes that began meanwhile."""
    strace = shutil.which("strace")
    if not strace:
        raise TraceUnavailable("strace is not installed")
    pids = [process.pid for process in process_tree(roots)]
    with tempfile.TemporaryDirectory() as folder:
        calls, words = Path(folder, "calls"), Path(folder, "words")
        command = [
            strace,
            "-f",
            "-e",
            "trace=fdatasync,fsync,sync_file_range,msync,io_submit",
            "-e",
            "signal=none",
            "-o",
            str(calls),
        ]
        command += [argument for pid in pids for argument in ("-p", str(pid))]
        with words.open("wb") as stderr:
            tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, start_new_session=True)
        try:
            _wait_attached(tracer, words, pids)
            work()
        finally:
            tracer.send_signal(signal.SIGINT)  # strace lets go of its processes and ends
            tracer.wait(ATTACH_SECONDS)
        return len(FLUSH.findall(calls.read_text(errors="replace")))


def _wait_attached(tracer: subprocess.Popen[bytes], words: Path, pids: Sequence[int]) -> None:
    deadline = time.monotonic() + ATTACH_SECONDS
    while True:
        said = words.read_text(errors="replace")
        if all(re.search(rf"\b{pid} attached\b", said) for pid in pids):
            return
        if tracer.poll() is not None or time.monotonic() > deadline:
            raise TraceUnavailable(f"strace could not attach: {said.strip()[-300:]}")
        time.sleep(0.02)


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
