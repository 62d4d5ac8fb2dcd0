"""One measured run of wrk against one server: throughput, latency, errors, CPU and memory of the server's processes.

Promises:
1. The server's CPU is that of its root processes and of everything below them, also of children that ended and were
   reaped meanwhile; wrk's own CPU is counted apart and never in it.
2. A call counts as answered only with a status below 400; everything else is in ``errors``, by kind.
3. Other load on the machine is measured as well (``other_cores``): a figure taken beside a busy neighbour can be told.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil

SCRIPT = Path(__file__).with_name("debit.lua")
DEBIT_PATH = "/actors/Account/acct-%d/debit"
DEBIT_BODY = '{"amount":1}'
ERROR_KINDS = ("status", "connect", "read", "write", "timeout")
MIB = 1024 * 1024


class MeasureError(Exception):
    """wrk did not run to its end, or printed something else than its figures."""


@dataclass(frozen=True, slots=True)
class WrkResult:
    """What wrk saw. Times in milliseconds; ``seconds`` is wrk's own clock; ``answered`` leaves error statuses out.

    The clients of stores without HTTP give the same (``clients.py``); a p90 of None: such a client has none.
    """

    requests: int
    seconds: float
    errors: dict[str, int]
    p50_ms: float
    p90_ms: float | None
    p99_ms: float
    max_ms: float

    @property
    def answered(self) -> int:
        return self.requests - self.errors["status"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one cell. ``server_cpu_s`` and ``client_cpu_s`` are CPU seconds of the server's tree and of wrk."""

    system: str
    spread: str
    connections: int
    round: int
    wrk: WrkResult
    server_cpu_s: float
    client_cpu_s: float
    other_cores: float

    @property
    def rate(self) -> float:
        """Answered calls a second."""
        return self.wrk.answered / self.wrk.seconds

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of all the server's processes for one answered call."""
        return self.server_cpu_s * 1e6 / max(1, self.wrk.answered)

    def to_json(self) -> dict[str, object]:
        plain = asdict(self)
        return plain | {"calls_per_second": round(self.rate, 1), "cpu_us_per_call": round(self.cpu_us, 2)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Sample:
        """The sample that ``to_json`` wrote."""
        own = {field.name: stored[field.name] for field in fields(cls)}
        return cls(**own | {"wrk": WrkResult(**stored["wrk"])})


def parse_wrk(output: str) -> WrkResult:
    """Read the line that ``debit.lua`` prints at the end. Raises MeasureError when it is missing or damaged."""
    found = re.search(r"^JSON (\{.*\})$", output, re.MULTILINE)
    if not found:
        raise MeasureError(f"no figures in wrk's output: {output.strip()[-500:] or 'nothing'}")
    try:
        raw = json.loads(found.group(1))
        return WrkResult(
            requests=raw["requests"],
            seconds=raw["duration_us"] / 1e6,
            errors={kind: raw[kind] for kind in ERROR_KINDS},
            p50_ms=raw["p50"] / 1e3,
            p90_ms=raw["p90"] / 1e3,
            p99_ms=raw["p99"] / 1e3,
            max_ms=raw["max"] / 1e3,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise MeasureError(f"damaged figures in wrk's output: {found.group(0)}") from error


def run_wrk(
    port: int,
    *,
    connections: int,
    names: int,
    seconds: int,
    path: str = DEBIT_PATH,
    body: str = DEBIT_BODY,
    keys: bool = False,
    walk: tuple[int, int] | None = None,
) -> WrkResult:
    """Run wrk with one thread for ``seconds`` over ``names`` accounts. Raises MeasureError when it fails.

    ``walk``: the first account's number, and how far it is from one to the next; without, they are picked by chance.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    command += ["-s", str(SCRIPT), f"http://127.0.0.1:{port}"]
    environment = os.environ | {"BENCH_NAMES": str(names), "BENCH_PATH": path, "BENCH_BODY": body}
    environment["BENCH_KEYS"] = "1" if keys else ""
    if walk:
        environment |= {"BENCH_FIRST": str(walk[0]), "BENCH_STRIDE": str(walk[1])}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds + 60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeasureError(f"wrk did not run: {error}") from error
    if done.returncode:
        raise MeasureError(f"wrk ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return parse_wrk(done.stdout)


def measure(
    system: str,
    port: int,
    roots: Sequence[int],
    *,
    spread: str,
    connections: int,
    names: int,
    seconds: int,
    round: int,
    path: str = DEBIT_PATH,
    keys: bool = False,
) -> Sample:
    """Run wrk once against the server whose root processes are ``roots``; with ``keys`` each call has its own."""

    def load() -> WrkResult:
        return run_wrk(port, connections=connections, names=names, seconds=seconds, path=path, keys=keys)

    return sample(system, roots, load, spread=spread, connections=connections, round=round)


def sample(
    system: str, roots: Sequence[int], load: Callable[[], WrkResult], *, spread: str, connections: int, round: int
) -> Sample:
    """Let a client load the server whose root processes are ``roots``; it is a child that ``load`` waits for."""
    server, client, busy, clock = tree_cpu(roots), _reaped_cpu(), _machine_cpu(), time.monotonic()
    result = load()
    # The server's CPU is read first: what it does after its client has left is not a call's.
    server = tree_cpu(roots) - server
    client, busy, clock = _reaped_cpu() - client, _machine_cpu() - busy, time.monotonic() - clock
    other = max(0.0, busy - server - client) / clock
    return Sample(system, spread, connections, round, result, server, client, other)


def process_tree(roots: Sequence[int]) -> list[psutil.Process]:
    """The root processes that live, and everything below them, each once."""
    found: dict[int, psutil.Process] = {}
    for root in roots:
        try:
            process = psutil.Process(root)
            for member in (process, *process.children(recursive=True)):
                found[member.pid] = member
        except psutil.NoSuchProcess:
            continue
    return list(found.values())


def tree_cpu(roots: Sequence[int]) -> float:
    """CPU seconds of the trees so far. A reaped child's time is in its parent's ``children_*``, a living one's not."""
    total = 0.0
    for process in process_tree(roots):
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total


def tree_memory(roots: Sequence[int]) -> list[dict[str, object]]:
    """Resident memory of each process of the trees: pid, role (see ``role_of``), RSS and its private share, in MiB."""
    rows: list[dict[str, object]] = []
    for process in process_tree(roots):
        try:
            memory, role = process.memory_full_info(), role_of(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        row = {"rss_mb": round(memory.rss / MIB, 1), "private_mb": round(memory.uss / MIB, 1)}
        rows.append({"pid": process.pid, "role": role, **row})
    return rows


def role_of(command: Sequence[str]) -> str:
    """``front``, ``worker`` … where the command line names such a module, else the module or program it runs."""
    for part in command:
        last = part.rpartition("/")[2].removesuffix(".py").rpartition(".")[2]
        if last in ("front", "worker", "supervisor"):
            return last
    if "-m" in command[:-1]:
        return command[command.index("-m") + 1]
    if len(command) > 1 and "python" in command[0] and not command[1].startswith("-"):
        return command[1].rpartition("/")[2]  # a script, such as a console command of a package
    # A program that names itself for ps (PostgreSQL: "postgres: walwriter ") has all of it in one word.
    return " ".join(command[0].rpartition("/")[2].split()[:2]) if command else "?"


def _reaped_cpu() -> float:
    """CPU seconds of the children that this process has reaped. During a run that is wrk alone: the servers live on."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _machine_cpu() -> float:
    """CPU seconds that the whole machine was busy."""
    used = psutil.cpu_times()
    return float(used.user + used.nice + used.system + used.irq + used.softirq)
