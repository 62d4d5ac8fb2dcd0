"""The server that the curves of growth are measured on: its program, how it is filled, and how a point is taken.

1. A point is the median of its rounds, which follow each other after a run that warms. CPU is that of all the server's
   processes; bytes are those that these had the kernel write to files (``write_bytes`` of /proc/PID/io: whole pages,
   the log and the checkpoints).
2. What has to be there is written by calls. A call that fails raises MeasureError: a figure has no failed calls in it.
3. Once its time is up a run ends with TimeUp at its next step.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil
from actord.loadtest import systems
from actord.loadtest.measure import MeasureError, WrkResult, process_tree, run_wrk, sample

CONNECTIONS = 64
FILLERS = 4  # clients that fill, each with one call at a time
SETTLE_SECONDS = 0.25
MIB = 1024 * 1024
PROGRAM = """
import random
from actord import StatefulActor

PIECE = b"x" * 1_048_576


class Cell(StatefulActor):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.turns = random.getrandbits(40)

    async def add(self) -> int:
        count = await self.ctx.storage.get("count", 0) + 1
        await self.ctx.storage.put("count", count)
        return count

    async def write(self, size: int) -> None:
        self.turns += 1  # other bytes each time: SQLite writes nothing for the same ones
        await self.ctx.storage.put("value", (b"%010d" % (self.turns % 10**10) + PIECE)[:size])

    async def read(self, size: int) -> int:
        return len(await self.ctx.storage.get("value"))

    async def one_of(self, keys: int) -> int:
        key = f"k{random.randrange(keys)}"
        count = await self.ctx.storage.get(key, 0) + 1
        await self.ctx.storage.put(key, count)
        return count

    async def fill(self, first: int, count: int, size: int = 0) -> None:
        piece = PIECE[:size] if size else 0
        await self.ctx.storage.put_many({f"k{number}": piece for number in range(first, first + count)})
"""


@dataclass(frozen=True, slots=True)
class Point:
    """Medians of one point. ``written``: bytes that a call had written to files; ``other_cores``: what anything else
    on the machine took meanwhile."""

    curve: str
    x: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    written: float
    rate: float
    other_cores: float = 0.0

    def to_json(self) -> dict[str, object]:
        return asdict(self)


class TimeUp(Exception):
    """The time of a run is over: what it has not measured by now is left out."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long and how often: seconds of one run of wrk, rounds of a point, and how far each curve goes. ``minutes``:
    how long all runs together may take, of which each has its share (RUNS)."""

    minutes: float
    seconds: int
    rounds: int
    names: Sequence[int]
    cold: Sequence[int]
    values: Sequence[int]
    keys: Sequence[int]
    database: Sequence[int]
    log: Sequence[int]


Say = Callable[[Point], None]


class Server:
    """A running server with the program above. ``say`` hears each point."""

    def __init__(self, port: int, pid: int, pace: Pace, say: Say, end: float) -> None:
        self.port = port
        self._pid = pid
        self._pace = pace
        self._say = say
        self._end = end

    def _in_time(self) -> None:
        if time.monotonic() > self._end:
            raise TimeUp

    def point(
        self,
        curve: str,
        x: float,
        method: str,
        *,
        names: int,
        body: str = "",
        connections: int = CONNECTIONS,
        walk: tuple[int, int] | None = None,
    ) -> Point:
        """Measure one point: ``method`` of ``names`` actors, after a short run that warms. A ``walk`` is not warmed,
        runs once, and for a name at most once."""
        self._in_time()
        seconds, rounds = (1, 1) if walk else (self._pace.seconds, self._pace.rounds)
        if not walk:
            self.load(method, names=names, body=body, connections=connections, seconds=1)
        found = []
        for number in range(rounds):
            time.sleep(SETTLE_SECONDS)
            before = written_bytes(self._pid)
            one = sample(
                curve,
                [self._pid],
                lambda: self.load(method, names=names, body=body, connections=connections, seconds=seconds, walk=walk),
                spread=curve,
                connections=connections,
                round=number,
            )
            found.append((one, (written_bytes(self._pid) - before) / max(1, one.wrk.answered)))
        if any(any(one.wrk.errors.values()) for one, _ in found):
            raise MeasureError(f"calls of {curve} failed: {[one.wrk.errors for one, _ in found]}")
        result = Point(
            curve,
            x,
            median(one.cpu_us for one, _ in found),
            median(one.wrk.p50_ms for one, _ in found),
            median(one.wrk.p99_ms for one, _ in found),
            median(written for _, written in found),
            median(one.rate for one, _ in found),
            median(one.other_cores for one, _ in found),
        )
        self._say(result)
        return result

    def load(
        self,
        method: str,
        *,
        names: int,
        seconds: int,
        body: str = "",
        connections: int = CONNECTIONS,
        walk: tuple[int, int] | None = None,
    ) -> WrkResult:
        """Let wrk call ``method`` of that many names."""
        path = f"/actors/Cell/n%d/{method}"
        return run_wrk(
            self.port, connections=connections, names=names, seconds=seconds, path=path, body=body, walk=walk
        )

    def make_names(self, there: int, wanted: int) -> None:
        """Call each name from ``there`` + 1 to ``wanted`` at least once."""
        while there < wanted:
            self._in_time()
            done = self.load("add", names=wanted, seconds=1 if wanted <= 10_000 else 4, walk=(there + 1, 1))
            there += max(0, done.answered - CONNECTIONS)  # those under way at its end are called again

    def fill(self, jobs: Sequence[tuple[str, dict[str, int]]]) -> None:
        """Make calls of ``fill``: name and arguments of each."""

        def share(first: int) -> None:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
                for name, arguments in jobs[first::FILLERS]:
                    self._in_time()
                    connection.request(
                        "POST",
                        f"/actors/Cell/{name}/fill",
                        json.dumps(arguments),
                        {"Content-Type": "application/json"},
                    )
                    reply = connection.getresponse()
                    text = reply.read()
                    if reply.status != 200:
                        raise MeasureError(f"a call that fills was answered {reply.status}: {text[:300]!r}")

        with ThreadPoolExecutor(FILLERS) as pool:
            list(pool.map(share, range(FILLERS)))


@dataclass(frozen=True, slots=True)
class Run:
    """One run: where its data goes, what starts actord, how far to go, who hears the points, and when time is up."""

    folder: Path
    command: Sequence[str]
    pace: Pace
    say: Say
    end: float

    @contextmanager
    def serve(self, *, checkpoint_wal: int = 16 * MIB, memory_target: int = 512 * MIB) -> Iterator[Server]:
        """actord on the run's folder, which may hold data; instances stay in memory as long as the server runs."""
        program, port, log = self.folder / "growth.py", systems.free_port(), self.folder / "actord.log"
        program.write_text(PROGRAM)
        words = [*self.command, "serve", str(program), "--port", str(port), "--data-dir", str(self.folder / "data")]
        with systems.process(
            words,
            log,
            ACTORD_RUNTIME_IDLE_AFTER="86400",
            ACTORD_RUNTIME_MEMORY_TARGET=str(memory_target),
            ACTORD_STORAGE_CHECKPOINT_WAL=str(checkpoint_wal),
        ) as pid:
            systems.wait_until(lambda: _answers(port), pid, log, "actord")
            yield Server(port, pid, self.pace, self.say, self.end)


def _answers(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
            connection.request("GET", "/-/health/ready")
            return connection.getresponse().status == 200
    except OSError:
        return False


def written_bytes(root: int) -> int:
    """Bytes that the processes of a tree have had written to files so far; 0 where the system does not say."""
    total = 0
    for process in process_tree([root]):
        try:
            total += process.io_counters().write_bytes
        except (psutil.Error, AttributeError, OSError):
            continue
    return total
