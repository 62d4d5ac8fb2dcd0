"""What a call costs while something grows: names, values, keys of an actor, the database, its log.

Each curve is a run of servers of its own on a data directory of its own. Before a point is measured, what has to be
there is written by calls; then its rounds follow each other, and its figures are their medians. CPU is that of all
the server's processes; bytes are those that these processes had the kernel write to files (``write_bytes`` of
/proc/PID/io: whole pages, the log and the checkpoints).
"""

from __future__ import annotations

import http.client
import json
import shutil
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
VALUE_CONNECTIONS = 16  # a commit of 64 values of 1 MB would be as long as the log may become
FEW_NAMES = 1_000
FILLERS = 4  # clients that fill, each with one call at a time
SETTLE_SECONDS = 0.25
COLD_STRIDE = 7919  # a prime: names in no order that the database has
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
    """Medians of one point. ``written``: bytes that a call had written to files."""

    curve: str
    x: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    written: float
    rate: float

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long and how often: seconds of one run, rounds of a point, and how far each curve goes."""

    seconds: int
    rounds: int
    names: Sequence[int]
    cold: Sequence[int]
    values: Sequence[int]
    keys: Sequence[int]
    database: Sequence[int]
    log: Sequence[int]


FULL = Pace(
    seconds=1,
    rounds=3,
    names=(1, 10, 100, 1_000, 10_000, 100_000, 1_000_000),
    cold=(100_000, 1_000_000),
    values=(10, 100, 1_000, 10_000, 100_000, 1_000_000),
    keys=(1, 10, 100, 1_000, 10_000),
    database=(MIB, 10 * MIB, 100 * MIB, 1024 * MIB, 10 * 1024 * MIB),
    log=(MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB),
)
QUICK = Pace(
    seconds=1,
    rounds=1,
    names=(1, 1_000),
    cold=(),
    values=(10, 100_000),
    keys=(1, 1_000),
    database=(MIB, 20 * MIB),
    log=(MIB,),
)
Say = Callable[[Point], None]


class Server:
    """A running server with the program above. ``say`` hears each point."""

    def __init__(self, port: int, pid: int, pace: Pace, say: Say) -> None:
        self.port = port
        self._pid = pid
        self._pace = pace
        self._say = say

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
            done = self.load("add", names=wanted, seconds=1 if wanted <= 10_000 else 4, walk=(there + 1, 1))
            there += max(0, done.answered - CONNECTIONS)  # those under way at its end are called again

    def fill(self, jobs: Sequence[tuple[str, dict[str, int]]]) -> None:
        """Make calls of ``fill``: name and arguments of each."""

        def share(first: int) -> None:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
                for name, arguments in jobs[first::FILLERS]:
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


@contextmanager
def serve(
    directory: Path, command: Sequence[str], pace: Pace, say: Say, *, checkpoint_wal: int = 64 * MIB
) -> Iterator[Server]:
    """actord on ``directory``, which may hold data; instances stay in memory as long as the server runs."""
    directory.mkdir(exist_ok=True)
    program, port, log = directory / "growth.py", systems.free_port(), directory / "actord.log"
    program.write_text(PROGRAM)
    words = [*command, "serve", str(program), "--port", str(port), "--data-dir", str(directory / "data")]
    kept, limit = "86400", str(checkpoint_wal)
    with systems.process(words, log, ACTORD_RUNTIME_IDLE_AFTER=kept, ACTORD_STORAGE_CHECKPOINT_WAL=limit) as pid:
        systems.wait_until(lambda: _answers(port), pid, log, "actord")
        yield Server(port, pid, pace, say)


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


def names(folder: Path, command: Sequence[str], pace: Pace, say: Say) -> None:
    """Calls over all names, over a thousand of them, and the first call of names that are not in memory."""
    there, place = 0, folder / "names"
    with serve(place, command, pace, say) as server:
        for count in pace.names:
            server.make_names(there, count)
            there = count
            server.point("names", count, "add", names=count)
            if count >= FEW_NAMES:
                server.point("names-few", count, "add", names=FEW_NAMES)
    for count in pace.cold:
        with serve(place, command, pace, say) as server:
            server.load("add", names=FEW_NAMES, seconds=1)  # its code is warm, and few of its names
            server.point("names-cold", count, "add", names=count, walk=(1, COLD_STRIDE))
    shutil.rmtree(place)


def values(folder: Path, command: Sequence[str], pace: Pace, say: Say) -> None:
    """A call that writes a value, and one that reads it."""
    with serve(folder / "values", command, pace, say) as server:
        for size in pace.values:
            body, few = json.dumps({"size": size}), 64
            server.point("values", size, "write", names=few, body=body, connections=VALUE_CONNECTIONS)
            server.point("values-read", size, "read", names=few, body=body, connections=VALUE_CONNECTIONS)
    shutil.rmtree(folder / "values")


def keys(folder: Path, command: Sequence[str], pace: Pace, say: Say) -> None:
    """A call that reads and writes one of an actor's keys."""
    few, there = 20, 0
    with serve(folder / "keys", command, pace, say) as server:
        for count in pace.keys:
            for first in range(there, count, 1_000):
                wanted = {"first": first, "count": min(1_000, count - first)}
                server.fill([(f"n{number}", wanted) for number in range(1, few + 1)])
            there = count
            server.point("keys", count, "one_of", names=few, body=json.dumps({"keys": count}))
    shutil.rmtree(folder / "keys")


def database(folder: Path, command: Sequence[str], pace: Pace, say: Say) -> None:
    """A call over a thousand names while other actors' data fills the database: values of 4,000 bytes."""
    size, each, there, job = 4_000, 500, 0, 0
    with serve(folder / "database", command, pace, say) as server:
        server.make_names(0, FEW_NAMES)
        for wanted in pace.database:
            if shutil.disk_usage(folder).free < 1.5 * (wanted - there) + 1024 * MIB:
                break
            jobs = []
            while there + size * each < wanted:
                jobs.append((f"fill-{job}", {"first": 0, "count": each, "size": size}))
                there, job = there + size * each, job + 1
            server.fill(jobs)
            server.point("database", wanted, "add", names=FEW_NAMES)
    shutil.rmtree(folder / "database")


def log(folder: Path, command: Sequence[str], pace: Pace, say: Say) -> None:
    """A call while the log is at its limit: it was filled before, and is folded into the database again and again."""
    for limit in pace.log:
        with serve(folder / "log", command, pace, say, checkpoint_wal=limit) as server:
            server.make_names(0, 10_000)
            server.point("log", limit, "add", names=10_000)
        shutil.rmtree(folder / "log")


RUNS = {"names": names, "values": values, "keys": keys, "database": database, "log": log}
