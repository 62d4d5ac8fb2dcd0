"""SIGKILL and SIGSTOP of every kind of process of a server under load, by lot; and how long a worker is away.

``Faults.run`` deals faults by a seed and ends each batch of them with the audit. Kills at named points between two
steps are in ``armed``.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import test_kill
from tests.history.audit import audit_run
from tests.history.recorder import History, deposits, registers
from tests.support.server import PATIENCE_SECONDS, Server

BETWEEN = 60  # successes between two faults
AT_AUDIT = 20  # faults between two audits
STUCK_SECONDS = 1.0
SETTINGS = test_kill.SETTINGS | {
    "storage.shards": 2,
    "server.restart_delay_max": 0.05,
    "server.stuck_after": STUCK_SECONDS,
    "runtime.idle_after": 1,
}
EXPECTED = (
    *test_kill.EXPECTED,
    r"has not answered for",
    r"(holds|no turn holds) worker-\d",
    r"has held this worker for",
)

# The fault, and how many processes it kills.
KILLS: dict[str, tuple[Callable[[Server], None], int]] = {
    "worker": (test_kill.kill_worker, 1),
    "front": (test_kill.kill_front, 1),
    "children": (test_kill.kill_children, 3),
    "supervisor": (test_kill.kill_supervisor, 4),  # its children die with it
    "group": (test_kill.kill_group, 4),
}


def stop_and_continue(server: Server, pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)  # the fault itself is that time passes
    finally:
        os.kill(pid, signal.SIGCONT)
    server.wait_ready()


def stop_until_replaced(server: Server, role: str) -> None:
    """Stopped for longer than ``stuck_after``: it is killed and another one serves."""
    since = server.mark()
    pid = server.worker_of(0) if role == "worker" else server.children(role)[0].pid
    os.kill(pid, signal.SIGSTOP)
    server.wait_log(rf"^{role}-\d is ready$", since=since)
    server.wait_ready()
    assert pid not in [child.pid for child in server.children()]


STOPS: dict[str, Callable[[Server, float], None]] = {
    "worker stopped": lambda server, seconds: stop_and_continue(server, server.worker_of(0), STUCK_SECONDS / 3),
    "front stopped": lambda server, seconds: stop_and_continue(
        server, server.children("front")[0].pid, STUCK_SECONDS / 3
    ),
    "supervisor stopped": lambda server, seconds: stop_and_continue(server, server.pid, seconds),
    "worker stopped for good": lambda server, seconds: stop_until_replaced(server, "worker"),
    "front stopped for good": lambda server, seconds: stop_until_replaced(server, "front"),
}


@dataclass
class Outcome:
    kills: int = 0
    stops: int = 0
    calls: int = 0
    checked: int = 0
    wrong: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)


def run(
    folder: Path,
    faults: list[str],
    *,
    stop_seconds: float = 1.0,
    go_on: Callable[[], bool] = lambda: True,
    history_file: Path | None = None,
) -> Outcome:
    """One server, one fault after the other. ``stop_seconds``: how long a supervisor is stopped."""
    outcome = Outcome()
    floors: dict[int, int] = {}
    server = Server("books.py", folder / "data", settings=SETTINGS)
    try:
        server.start()
        for first in range(0, len(faults), AT_AUDIT):
            if outcome.wrong or (first and not go_on()):
                break
            keys = [f"{first}-{number}" for number in range(8)]
            history = History()
            if history_file is not None:
                history.keep(history_file)
            since = server.mark()
            batch = faults[first : first + AT_AUDIT]
            try:
                asyncio.run(_under(server, history, keys, batch, stop_seconds))
            except (TimeoutError, AssertionError) as error:
                outcome.wrong.append(f"not healthy again: {error!r}: {server.text(since)[-2000:]}")
                break
            finally:
                history.close()
            outcome.wrong += audit_run(
                history, server, keys, least=BETWEEN * len(batch), expected=EXPECTED, since=since, floors=floors
            )
            outcome.kinds.update(batch)
            outcome.calls += history.count
            outcome.checked += len(history.operations)
    finally:
        server.close()
    outcome.kills = sum(KILLS[name][1] * number for name, number in outcome.kinds.items() if name in KILLS)
    outcome.kills += sum(number for name, number in outcome.kinds.items() if name.endswith("for good"))
    outcome.stops = sum(number for name, number in outcome.kinds.items() if name in STOPS)
    return outcome


def deal(seed: int, count: int) -> list[str]:
    """So many faults by lot: mostly kills, every kind of them."""
    rng = random.Random(seed)
    return [rng.choice(list(KILLS) if rng.random() < 0.9 else list(STOPS)) for _ in range(count)]


async def _under(server: Server, history: History, keys: list[str], faults: list[str], stop_seconds: float) -> None:
    stop = asyncio.Event()
    clients = [asyncio.create_task(deposits(history, server.port, keys, n, stop)) for n in range(10)]
    places = [f"{keys[0]}-r{number}" for number in range(2)]
    clients += [asyncio.create_task(registers(history, server.port, places, n, stop)) for n in range(20, 23)]
    try:
        for fault in faults:
            await history.successes(BETWEEN)
            if fault in KILLS:
                await asyncio.to_thread(KILLS[fault][0], server)
            else:
                await asyncio.to_thread(STOPS[fault], server, stop_seconds)
        await history.successes(BETWEEN)
    finally:
        stop.set()
        await asyncio.gather(*clients)


# -- how long a worker is away


def recovery_times(folder: Path, wal_bytes: int, samples: int, go_on: Callable[[], bool] = lambda: True) -> list[float]:
    """Seconds from SIGKILL of a worker whose log has this size to the next answer of one of its actors."""
    settings = {
        "server.workers": 1,
        "storage.shards": 1,
        "storage.checkpoint_wal": 4 * wal_bytes,
        "server.restart_delay_max": 0.05,
    }
    log = folder / "data" / "shards" / "0000.db-wal"
    taken: list[float] = []
    with Server("books.py", folder / "data", settings=settings) as server:
        for _ in range(samples):
            if taken and not go_on():
                break
            number = 0
            while log.stat().st_size < wal_bytes:
                number += 1
                last = server.result("Ledger", f"fill-{number % 16}", "fill", number, min(1 << 20, wal_bytes // 8))
                assert last == number
            worker = server.worker_of(0)
            begun = time.monotonic()
            os.kill(worker, signal.SIGKILL)
            while True:
                assert time.monotonic() < begun + PATIENCE_SECONDS
                if server.call("Ledger", "fill-1", "statement").status == 200:
                    break
            taken.append(time.monotonic() - begun)
    return taken


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def median(values: list[float]) -> float:
    return statistics.median(values) if values else 0.0
