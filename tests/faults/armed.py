"""Workers that fail or die at the k-th call of a system call: strace from their first instruction, on a live server.

A ``Series`` is one kind of fault, as "pwrite64 on the log fails with EIO"; its points are k = 1, 2, 3 ... until a life
of the worker no longer makes so many calls. ``Chain`` runs points on one server under load, a life of the worker for
each: the armed file waits for the next life, and whoever survives its fault is killed with SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.history.audit import audit_run
from tests.history.recorder import History, deposits, registers
from tests.support.server import PATIENCE_SECONDS, Server, ended, shards_of, until

SUCCESSES = 40  # calls that a life gets to reach its fault
AT_AUDIT = 30  # points between two audits
SETTINGS = {
    "server.workers": 1,
    "server.restart_delay_max": 0.01,
    "storage.shards": 1,
    "storage.checkpoint_wal": 65_536,
    "storage.ballast": 262_144,
    "runtime.idle_after": 1,
}
EXPECTED = (
    r"was ended by SIGKILL; it is started again$",
    r"ended with exit code 74; it is started again$",
    r"the store .* failed",
    r"failed and this worker stops",
    r"can't be (made ready|opened|locked|read): .*; it is started again$",
    r"the disk is full",
)


def unavailable() -> str:
    return "" if shutil.which("strace") else "strace is not installed"


@dataclass
class Series:
    """``fault``: strace's words, as ``error=EIO``. ``files``: endings of the shard's files; none: every call counts."""

    name: str
    calls: str
    fault: str
    files: tuple[str, ...] = ()
    flush: str = "thread"
    number: int = 0
    reached: int = 0
    missed: int = 0
    limit: int = sys.maxsize

    @property
    def over(self) -> bool:
        return self.missed >= 3 or self.number >= self.limit

    def arm(self, shard: Path) -> list[str]:
        """The next point, as strace's arguments."""
        self.number += 1
        paths = [word for ending in self.files for word in ("-P", f"{shard}{ending}")]
        return [*paths, "-e", f"trace={self.calls}", "-e", f"inject={self.calls}:{self.fault}:when={self.number}"]

    def result(self, fired: bool) -> None:
        self.reached += fired
        self.missed = 0 if fired else self.missed + 1


DB, LOG = ".db", ".db-wal"
ALL = (DB, LOG, ".db.lock", ".db.clean", ".db.clean.tmp", ".ballast")


def io_errors(flush: str) -> list[Series]:
    """Every call to the shard's files that can fail."""
    if flush == "kernel":
        return [
            Series("io_submit EIO", "io_submit", "error=EIO", flush="kernel"),
            Series("io_submit EAGAIN", "io_submit", "error=EAGAIN", flush="kernel"),
            Series("fdatasync EIO beside io_submit", "fdatasync", "error=EIO", (DB, LOG), flush="kernel"),
        ]
    return [
        Series("fdatasync EIO", "fdatasync", "error=EIO", (DB, LOG)),
        Series("fsync EIO", "fsync", "error=EIO", ALL),
        Series("pwrite64 EIO, log", "pwrite64", "error=EIO", (LOG,)),
        Series("pwrite64 EIO, database", "pwrite64", "error=EIO", (DB,)),
        Series("pwrite64 ENOSPC, log", "pwrite64", "error=ENOSPC", (LOG,)),
        Series("pwrite64 ENOSPC, database", "pwrite64", "error=ENOSPC", (DB,)),
        Series("pread64 EIO", "pread64", "error=EIO", (DB, LOG)),
        Series("openat EIO", "openat", "error=EIO", ALL),
        Series("openat EMFILE", "openat", "error=EMFILE", ALL),
        Series("ftruncate EIO", "ftruncate", "error=EIO", ALL),
        Series("unlink EIO", "unlink", "error=EIO", ALL),
        Series("fallocate ENOSPC", "fallocate", "error=ENOSPC", ALL),
    ]


def kill_points() -> list[Series]:
    """SIGKILL where a call begins: named places between two steps of the disk, or of a reply."""
    die = "signal=SIGKILL"
    return [
        Series("before a write to the log", "pwrite64", die, (LOG,)),
        Series("before a sync of the log", "fdatasync", die, (LOG,)),
        Series("before a write of a checkpoint", "pwrite64", die, (DB,)),
        Series("before the sync of a checkpoint", "fdatasync", die, (DB,)),
        Series("before recovery's sync", "fsync", die, ALL),
        Series("before a file is opened", "openat", die, ALL),
        Series("before the log is cut", "ftruncate", die, ALL),
        Series("before a file is removed", "unlink", die, ALL),
        Series("before a reply leaves", "write,writev,sendmsg,sendto", die),
        Series("before a call is read", "read,recvmsg,recvfrom", die, limit=60),
        Series("before the ballast is taken", "fallocate", die, ALL),
    ]


@dataclass
class Outcome:
    """What a chain has seen."""

    points: int = 0  # lives that were armed
    fired: int = 0  # and reached their fault
    kills: int = 0  # ends by SIGKILL, injected or sent
    calls: int = 0  # acknowledged
    checked: int = 0  # operations checked for linearizability
    wrong: list[str] = field(default_factory=list)
    by_series: dict[str, int] = field(default_factory=dict)


class Chain:
    """One server on ``data_dir``, and the points that are run on it."""

    def __init__(self, folder: Path, *, flush: str = "thread", history_file: Path | None = None) -> None:
        folder = Path(os.path.realpath(folder))
        self.armed = folder / "armed"
        self.shard = folder / "data" / "shards" / "0000"
        self.history_file = history_file
        self.server = Server(
            "books.py",
            folder / "data",
            settings=SETTINGS | {"storage.flush": flush},
            environment={"ACTORD_TEST_ARMED": str(self.armed)},
            variant="armed",
        )
        self.outcome = Outcome()
        self.floors: dict[int, int] = {}
        self._epoch = 0

    def run(self, series: list[Series], seed: int, *, until_: float, clock, most: int = sys.maxsize) -> Outcome:
        """Points of all series in turn, until ``clock()`` is past ``until_``, ``most`` are run or all are over."""
        rng = random.Random(seed)
        with self.server:
            while any(not one.over for one in series) and clock() < until_ and self.outcome.points < most:
                asyncio.run(self._epoch_of(series, rng, until_, clock, min(AT_AUDIT, most - self.outcome.points)))
                if self.outcome.wrong:
                    break
        self.outcome.by_series = {one.name: one.reached for one in series}
        return self.outcome

    async def _epoch_of(self, series, rng, until_, clock, count: int) -> None:
        self._epoch += 1
        history = History()
        if self.history_file is not None:
            history.keep(self.history_file)
        since = self.server.mark()
        keys = [f"{self._epoch}-{number}" for number in range(5)]
        places = [f"{self._epoch}-r{number}" for number in range(2)]
        stop = asyncio.Event()
        port = self.server.port
        clients = [asyncio.create_task(deposits(history, port, keys, n, stop)) for n in range(6)]
        clients += [asyncio.create_task(registers(history, port, places, n, stop)) for n in range(10, 12)]
        before = self.outcome.points
        try:
            await history.successes(SUCCESSES)
            points = self._points(series, rng, until_, clock, count)
            await self._lives(points, history)
            await history.successes(SUCCESSES)
        except (TimeoutError, AssertionError) as error:
            self.outcome.wrong.append(f"not healthy again: {error!r} {self.server.text(since)[-2000:]}")
        finally:
            stop.set()
            await asyncio.gather(*clients)
            history.close()
        least = (self.outcome.points - before) * 5
        if not self.outcome.wrong:
            self.outcome.wrong += await asyncio.to_thread(
                audit_run, history, self.server, keys, least=least, expected=EXPECTED, since=since, floors=self.floors
            )
        self.outcome.calls += history.count
        self.outcome.checked += len(history.operations)

    def _points(self, series, rng, until_, clock, count: int) -> Iterator[Series]:
        done = 0
        while done < count:
            ready = [one for one in series if not one.over]
            rng.shuffle(ready)
            if not ready:
                return
            for one in ready[: count - done]:
                if clock() >= until_:
                    return
                done += 1
                yield one

    async def _lives(self, points: Iterator[Series], history: History) -> None:
        """Each point a life of the worker; the next one is armed while the last one still lives."""
        pid = await asyncio.to_thread(self.server.worker_of, 0)
        current: Series | None = None
        while True:
            following = next(points, None)
            if following is not None:
                self._arm(following)
            survived = await self._live(pid, history if current is not None else None)
            if current is not None:
                self._note(current, pid, survived)
            if following is None:
                return
            current = following
            pid = await asyncio.to_thread(self._taken)

    async def _live(self, pid: int, history: History | None) -> bool:
        """Wait until the process has ended, or has served so many calls and is killed: True."""
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            ending = asyncio.ensure_future(asyncio.to_thread(ended, fd, 3 * PATIENCE_SECONDS))
            if history is not None:
                served = asyncio.ensure_future(history.successes(SUCCESSES))
                await asyncio.wait([ending, served], return_when=asyncio.FIRST_COMPLETED)
                served.cancel()
                await asyncio.gather(served, return_exceptions=True)
            survived = not ending.done()
            if survived:
                try:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                except ProcessLookupError:
                    survived = False  # its fault was quicker
            assert await ending, f"process {pid} does not end"
            return survived
        finally:
            os.close(fd)

    def _arm(self, series: Series) -> None:
        waiting = self.armed.with_name("waiting")
        waiting.write_text("\n".join(series.arm(self.shard)))
        os.rename(waiting, self.armed)

    def _taken(self) -> int:
        """Wait for the life that took the armed file; its process id."""
        found: list[int] = []

        looks = 0

        def look() -> bool:
            nonlocal looks
            looks += 1
            found[:] = [int(path.suffix[1:]) for path in self.armed.parent.glob("armed.*") if path.suffix != ".trace"]
            if not found and looks % 50 == 0:  # a life that had begun before the file was there
                for child in self.server.children("worker"):
                    if 0 in shards_of(child.pid) and self.armed.exists():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(child.pid, signal.SIGKILL)
            return bool(found)

        until(look, "a worker to take its fault")
        until(self.armed.with_name(f"armed.{found[0]}.trace").exists, "strace to begin")
        self.armed.with_name(f"armed.{found[0]}").unlink()
        return found[0]

    def _note(self, series: Series, pid: int, survived: bool) -> None:
        trace = self.armed.with_name(f"armed.{pid}.trace")
        fired = "INJECTED" in trace.read_text() or (not survived and "SIGKILL" in series.fault)
        trace.unlink()
        series.result(fired)
        self.outcome.points += 1
        self.outcome.fired += fired
        self.outcome.kills += survived or "SIGKILL" in series.fault
