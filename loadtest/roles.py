"""One measured run against one server, with its CPU divided by role: front, worker, supervisor.

Promises:
1. The CPU of a role is that of all living processes of that role below the server's root; the client's is its own.
2. Clients written in Python count their CPU and their calls within the same stretch of time, without their start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median

import psutil
from actord.loadtest.measure import ERROR_KINDS, MeasureError, WrkResult, process_tree, role_of

READY = "ready"
ELSEWHERE = ("client", "kernel", "neighbours")


@dataclass(frozen=True, slots=True)
class RoleSample:
    """``cpu_s``: CPU seconds by role: those of the server, "client", "kernel" (its threads, which run the syncs; where
    they can be seen), "neighbours" (everything else on the machine)."""

    system: str
    connections: int
    round: int
    result: WrkResult
    cpu_s: dict[str, float]

    @property
    def rate(self) -> float:
        return self.result.answered / self.result.seconds

    def us(self, role: str) -> float:
        """CPU microseconds of a role for one answered call."""
        return self.cpu_s.get(role, 0.0) * 1e6 / max(1, self.result.answered)

    @property
    def server_us(self) -> float:
        return sum(self.us(role) for role in self.cpu_s if role not in ELSEWHERE)

    def busy(self, role: str) -> float:
        """Cores that a role used."""
        return self.cpu_s.get(role, 0.0) / self.result.seconds

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"calls_per_second": round(self.rate, 1)}


def cpu_by_role(roots: Sequence[int]) -> dict[str, float]:
    """CPU seconds so far of the processes below ``roots``, by role."""
    found: defaultdict[str, float] = defaultdict(float)
    for process in process_tree(roots):
        try:
            used, role = process.cpu_times(), role_of(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        found[role if role in ("front", "worker") else "supervisor"] += used.user + used.system
    return found


def measured(
    system: str, roots: Sequence[int], run: Callable[[], tuple[WrkResult, float]], *, connections: int, round: int
) -> RoleSample:
    """``run`` gives what the client saw, and the client's CPU seconds."""
    before, kernel, busy = cpu_by_role(roots), _kernel_threads(), _machine()
    result, client = run()
    after, kernel, busy = cpu_by_role(roots), _kernel_threads() - kernel, _machine() - busy
    cpu = {
        **{role: seconds - before.get(role, 0.0) for role, seconds in after.items()},
        "client": client,
        "kernel": max(0.0, kernel),
    }  # one that ended takes its time along
    cpu["neighbours"] = max(0.0, busy - sum(cpu.values()))
    return RoleSample(system, connections, round, result, cpu)


def run_clients(commands: Sequence[Sequence[str]], seconds: float) -> tuple[WrkResult, float]:
    """Run Python clients side by side: all begin when the last one is ready. Raises MeasureError.

    A client says "ready", begins at a byte on its standard input, and ends with a line of JSON like wrk's script, with
    its own ``cpu_us`` in it. Percentiles of several are averaged, but for the largest of the 99th.
    """
    children = [
        subprocess.Popen(
            [sys.executable, "-P", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for command in commands
    ]
    try:
        for child in children:
            assert child.stdout is not None
            if child.stdout.readline().strip() != READY:
                raise MeasureError("a client did not start")
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        results = [json.loads(child.communicate(timeout=seconds + 60)[0]) for child in children]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise MeasureError(f"a client did not end well: {error}") from error
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()
    merged = WrkResult(
        requests=sum(each["requests"] for each in results),
        seconds=max(each["duration_us"] for each in results) / 1e6,
        errors=dict.fromkeys(ERROR_KINDS, 0) | {"status": sum(each["status"] for each in results)},
        p50_ms=mean(each["p50"] for each in results) / 1e3,
        p90_ms=mean(each["p90"] for each in results) / 1e3,
        p99_ms=max(each["p99"] for each in results) / 1e3,
        max_ms=max(each["max"] for each in results) / 1e3,
    )
    return merged, sum(each["cpu_us"] for each in results) / 1e6


def wait_for_start() -> None:
    """A client's side of ``run_clients``: it is ready; returns when all are."""
    print(READY, flush=True)
    sys.stdin.readline()


def print_result(times: list[float], errors: int, began: float, cpu_began: float) -> None:
    """A client's last line. ``times``: seconds of each call; ``began``: perf_counter and process_time at the start."""
    cpu, seconds = time.process_time() - cpu_began, time.perf_counter() - began
    times.sort()
    at = {share: int(times[int(share * (len(times) - 1))] * 1e6) for share in (0.5, 0.9, 0.99, 1.0)}
    line = {"requests": len(times), "duration_us": int(seconds * 1e6), "status": errors, "cpu_us": int(cpu * 1e6)}
    print(json.dumps(line | {"p50": at[0.5], "p90": at[0.9], "p99": at[0.99], "max": at[1.0]}), flush=True)


def medians(samples: Sequence[RoleSample], value: Callable[[RoleSample], float]) -> float:
    return median(value(sample) for sample in samples)


def children_cpu() -> float:
    """CPU seconds of the children that were reaped: wrk's."""
    used = os.times()
    return used.children_user + used.children_system


def _kernel_threads() -> float:
    """CPU seconds of the kernel's own threads: the children of process 2."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == "2":
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def _machine() -> float:
    used = psutil.cpu_times()
    return float(used.user + used.nice + used.system + used.irq + used.softirq)
