"""Power cuts over a whole running server: what it had acknowledged or served when the power went is there afterwards.

1. A deposit whose reply had begun to leave its worker is there, under the number that the reply gave.
2. So is every deposit that a statement had counted: what was once served stays.
3. Keys, rows of SQL and the alarm of each ledger are those of one and the same number of deposits.
4. The data directory, names of files included, can be opened by the server's own code, and works on.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import apsw
from actord.codec import decode
from actord.errors import ActordError
from actord.shards.slots import shard_of_slot, slot_of, slot_range
from actord.shards.sql_database import Database
from actord.storage.datadir import open_data_dir, shard_paths
from actord.storage.sqlite import SqliteStore

from tests.faults import powercut
from tests.faults.server_workload import CHECKPOINT_BYTES, LEDGERS, SERVER_SETTINGS, SHARDS
from tests.history.offline import events_problem, ledger_problem
from tests.support.server import Server

WORKLOAD = Path(__file__).with_name("server_workload.py")
# A worker's reply, and the same bytes when the front sends them on. JSON of ours has no white space.
_DEPOSIT = re.compile(rb'\{"name":"([^"]+)","mark":"([^"]+)","number":(\d+),"total":\d+\}')
_STATEMENT = re.compile(rb'\{"name":"([^"]+)","count":(\d+),"total":\d+,"swept":\d+,')

Promise = tuple[str, str, int]  # ledger, mark (or nothing, when it was counted only), number


class ServerAudit:
    """The promises in a trace in their order, and what a state of the disk has to hold after so many of them."""

    def __init__(self, log: powercut.Log) -> None:
        self.promises: list[Promise] = []
        self.commits: set[tuple[int, int]] = set()
        self._made: dict[int, int] = {}
        seen = set()
        for event in log.events:
            if not isinstance(event, powercut.Send):
                continue
            found = [(n.decode(), m.decode(), int(k)) for n, m, k in _DEPOSIT.findall(event.data)]
            found += [(n.decode(), "", int(k)) for n, k in _STATEMENT.findall(event.data)]
            fresh = [promise for promise in found if promise not in seen]
            seen.update(fresh)
            self._made[id(event)] = len(fresh)
            self.promises += fresh

    @property
    def deposits(self) -> int:
        return sum(1 for _, mark, _ in self.promises if mark)

    def acks(self, send: powercut.Send) -> int:
        return self._made.get(id(send), 0)

    def check(self, directory: str, state: powercut.State) -> str | None:
        promised: dict[str, dict[str, int]] = {name: {} for name in LEDGERS}
        counted = dict.fromkeys(LEDGERS, 0)
        for name, mark, number in self.promises[: state.ack_count]:
            counted[name] = max(counted[name], number)
            if mark:
                promised[name][mark] = number
        try:
            data_dir = open_data_dir(directory, shards=SHARDS, ballast=0)
        except ActordError as error:
            return f"the directory can't be opened: {error}"
        try:
            if data_dir.shards != SHARDS:
                return f"the directory has {data_dir.shards} shards"
            for shard in range(SHARDS):
                problem = self._check_shard(directory, data_dir.identity, shard, promised, counted)
                if problem is not None:
                    return problem
        finally:
            data_dir.close()
        return None

    def _check_shard(self, directory, identity, shard, promised, counted) -> str | None:
        try:
            store = SqliteStore.open(
                shard_paths(directory, shard)[0],
                shard=shard,
                identity=identity,
                slots=slot_range(shard, SHARDS),
                checkpoint_wal=CHECKPOINT_BYTES,
                page_cache=1024 * 1024,
                lock_wait=0,
            )
        except ActordError as error:
            return f"shard {shard} can't be opened: {error}"
        try:
            self.commits.add((shard, store.commit_seq))
            for name in LEDGERS:
                if shard_of_slot(slot_of("Ledger", name), SHARDS) == shard:
                    problem = check_ledger(store, name, promised[name], counted[name])
                    if problem is not None:
                        return problem
        except ActordError as error:
            return f"shard {shard} can't be read: {error}"
        finally:
            store.abandon()
        return None


def check_ledger(store: SqliteStore, name: str, promised: dict[str, int], counted: int) -> str | None:
    actor = store.find_actor(slot_of("Ledger", name), "Ledger", name)
    if actor is None:
        return f"{counted} acknowledged deposits of {name} are lost with all of it" if counted else None
    kv = {key: decode(raw) for key, raw in store.scan(actor)[0]}
    database = Database(lambda number: store.read_page(actor, number), store.page_count(actor), lambda: False)
    try:
        cursor = database.cursor()
        if kv and cursor.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            return f"the SQL database of {name} is damaged"
        rows = cursor.execute("SELECT mark, number, amount FROM deposit").fetchall() if kv else []
    except apsw.Error as error:
        return f"{name} is torn: its SQL database says {error}"
    finally:
        database.close()
    problem = ledger_problem(name, kv, rows, store.read_alarm(actor) is not None)
    if problem is not None:
        return problem
    events = store.read_events(actor, after=0, batch=store.commit_seq, limit=99, limit_bytes=1 << 20)
    problem = events_problem(name, kv, {event.seq: json.loads(event.data) for event in events})
    if problem is not None:
        return problem
    lost = [mark for mark, number in promised.items() if kv.get(f"mark/{mark}", [0])[0] != number]
    if lost:
        return f"{len(lost)} acknowledged deposits of {name} are lost, as {lost[0]}"
    if kv.get("count", 0) < counted:
        return f"{name} had served {counted} deposits and holds {kv.get('count', 0)}: what was served is lost"
    return None


def record(
    folder: Path,
    seed: int,
    *,
    phase: int = 60,
    variant: str = "",
    inject: list[str] | None = None,
    settings: dict[str, object] | None = None,
) -> tuple[powercut.Log, ServerAudit]:
    """Run a server under strace and drive it. Its own working files (sockets, begun marks) are no part of the data."""
    folder = Path(os.path.realpath(folder))
    data = folder / "data"
    data.mkdir()
    if inject:  # its creation is no part of the run: a first start that fails ends the server
        with Server("books.py", data, settings=SERVER_SETTINGS) as server:
            server.stop()
    options = {"seed": seed, "phase": phase, "variant": variant, "settings": settings or {}}
    log = powercut.record(
        [sys.executable, str(WORKLOAD), str(data), json.dumps(options)], str(data), inject=inject, ignore=("run",)
    )
    if log.returncode != 0:
        raise RuntimeError(f"the workload ended with exit code {log.returncode}")
    return log, ServerAudit(log)


def failed_syncs(log: powercut.Log) -> int:
    return sum(isinstance(event, powercut.Sync) and event.end and event.failed for event in log.events)


def never_synced(log: powercut.Log) -> powercut.Log:
    """A planted bug: the same run by a server that never syncs a database or its log."""
    events = [
        event
        for event in log.events
        if not (isinstance(event, powercut.Sync) and event.path.endswith((".db", ".db-wal")))
    ]
    return replace(log, events=events)


def replied_too_early(log: powercut.Log, audit: ServerAudit) -> powercut.Log:
    """A planted bug: every reply leaves before the sync that ended last when it left."""
    events: list = []
    last_sync = 0
    for event in log.events:
        if isinstance(event, powercut.Send) and audit.acks(event):
            events.insert(last_sync, event)
        else:
            if isinstance(event, powercut.Sync) and event.end:
                last_sync = len(events)
            events.append(event)
    return replace(log, events=events)


def replay(
    log: powercut.Log,
    audit: ServerAudit,
    seed: int,
    scratch: str,
    most: int,
    kinds: tuple[str, ...] = powercut.KINDS,
    limit=None,
) -> tuple[int, list[str]]:
    """At most ``most`` points; ``limit()`` True ends it early. Returns the number of states, and what was wrong."""
    points = powercut.points_of(log, seed, most, acks=audit.acks)
    found = powercut.states(log, seed, acks=audit.acks, points=points, kinds=kinds)

    def some():
        for state in found:
            if limit is not None and limit():
                return
            yield state

    return powercut.audit(some(), audit.check, scratch=scratch)
