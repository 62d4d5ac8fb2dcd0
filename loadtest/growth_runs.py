"""What a call costs while something grows: names, values, keys of an actor, the database, its log.

Each run has servers of its own on a data directory of its own (``growth_server.py``), and a share of the time.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from actord.loadtest.growth_server import MIB, Pace, Run, Say, TimeUp

FEW_NAMES = 1_000
VALUE_CONNECTIONS = 16  # a commit of 64 values of 1 MB would be as long as the log may become
COLD_STRIDE = 7919  # a prime: names in no order that the database has

FULL = Pace(
    minutes=8,
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
    minutes=4,
    seconds=1,
    rounds=1,
    names=(1, 1_000),
    cold=(),
    values=(10, 100_000),
    keys=(1, 1_000),
    database=(MIB, 20 * MIB),
    log=(MIB,),
)


def carry_out(name: str, folder: Path, command: Sequence[str], pace: Pace, say: Say) -> bool:
    """Do one of RUNS in a new folder below ``folder``, which is gone afterwards. Out: whether the time was enough."""
    work, share = RUNS[name]
    place = folder / name
    place.mkdir()
    try:
        work(Run(place, command, pace, say, time.monotonic() + 60 * share * pace.minutes))
    except TimeUp:
        return False
    finally:
        shutil.rmtree(place)
    return True


def names(run: Run) -> None:
    """Calls over all names, over a thousand of them, and the first call of names that are not in memory."""
    there, room = 0, 2048 * MIB
    with run.serve(memory_target=room) as server:
        for count in run.pace.names:
            server.make_names(there, count)
            there = count
            server.point("names", count, "add", names=count)
            if count >= FEW_NAMES:
                server.point("names-few", count, "add", names=FEW_NAMES)
    for count in run.pace.cold:
        with run.serve(memory_target=room) as server:
            server.load("add", names=FEW_NAMES, seconds=1)  # its code is warm, and few of its names
            server.point("names-cold", count, "add", names=count, walk=(1, COLD_STRIDE))


def values(run: Run) -> None:
    """A call that writes a value, and one that reads it."""
    few, connections = 64, VALUE_CONNECTIONS
    with run.serve() as server:
        for size in run.pace.values:
            body = json.dumps({"size": size})
            server.point("values", size, "write", names=few, body=body, connections=connections)
            server.point("values-read", size, "read", names=few, body=body, connections=connections)


def keys(run: Run) -> None:
    """A call that reads and writes one of an actor's keys."""
    few, there = 20, 0
    with run.serve() as server:
        for count in run.pace.keys:
            for first in range(there, count, 1_000):
                wanted = {"first": first, "count": min(1_000, count - first)}
                server.fill([(f"n{number}", wanted) for number in range(1, few + 1)])
            there = count
            server.point("keys", count, "one_of", names=few, body=json.dumps({"keys": count}))


def database(run: Run) -> None:
    """A call over a thousand names while other actors' data fills the database: values of 4,000 bytes."""
    size, each, there, job = 4_000, 500, 0, 0
    with run.serve() as server:
        server.make_names(0, FEW_NAMES)
        for wanted in run.pace.database:
            if shutil.disk_usage(run.folder).free < 1.5 * (wanted - there) + 1024 * MIB:
                break
            jobs = []
            while there + size * each < wanted:
                jobs.append((f"fill-{job}", {"first": 0, "count": each, "size": size}))
                there, job = there + size * each, job + 1
            server.fill(jobs)
            server.point("database", wanted, "add", names=FEW_NAMES)


def log(run: Run) -> None:
    """A call while the log is at its limit: it was filled before, and is folded into the database again and again."""
    for limit in run.pace.log:
        with run.serve(checkpoint_wal=limit) as server:
            server.make_names(0, 10_000)
            server.point("log", limit, "add", names=10_000)
        shutil.rmtree(run.folder / "data")


# Each with its share of the time.
RUNS: dict[str, tuple[Callable[[Run], None], float]] = {
    "names": (names, 0.35),
    "values": (values, 0.15),
    "keys": (keys, 0.1),
    "database": (database, 0.3),
    "log": (log, 0.1),
}
