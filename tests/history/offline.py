"""Reads the data directory of a stopped server without any code of the server's stores: sqlite-utils on a copy.

``audit_files`` is point 5 of the audit: every checksum fits, SQLite finds nothing wrong in the shards and in the
databases of the actors, commit numbers never go back, and every ledger is of one piece.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlite_utils
from actord.codec import decode
from actord.storage import schema
from actord.storage.alarms import alarm_sum
from actord.storage.api import Alarm, Message
from actord.storage.events import event_sum, log_sum
from actord.storage.outbox import inbox_sum, message_sum
from actord.storage.pages import NUMBER_BITS, page_sum

RESERVED_BYTES = 32  # at the end of each page of an actor's database; not stored


@dataclass
class Found:
    """What one actor has stored."""

    type: str
    name: str
    kv: dict[str, Any] = field(default_factory=dict)
    alarm: Alarm | None = None
    pages: list[bytes] = field(default_factory=list)
    events: dict[int, Any] = field(default_factory=dict)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Of its SQL database, which has to be sound; none when it has no database."""
        if not self.pages:
            return []
        with_reserve = b"".join(page + bytes(RESERVED_BYTES) for page in self.pages)
        database = sqlite3.connect(":memory:")
        try:
            database.deserialize(with_reserve)
            problems = database.execute("PRAGMA integrity_check").fetchall()
            if problems != [("ok",)]:
                raise ValueError(f"the SQL database of {self.name} is damaged: {problems}")
            return database.execute(query).fetchall()
        finally:
            database.close()


def ledger_problem(name: str, kv: Mapping[str, Any], rows: list[tuple[Any, ...]], armed: bool) -> str | None:
    """Is a ledger of ``books.py`` of one piece? ``rows``: mark, number, amount. A sentence about what is wrong."""
    count, total, swept = kv.get("count", 0), kv.get("total", 0), kv.get("swept", 0)
    marks = {key.removeprefix("mark/"): value for key, value in kv.items() if key.startswith("mark/")}
    if sorted(number for number, _ in marks.values()) != list(range(1, count + 1)):
        return f"{name} is torn: {count} counted, {len(marks)} marks"
    if total != sum(amount for _, amount in marks.values()):
        return f"{name} is torn: its sum does not fit its marks"
    if {mark: [number, amount] for mark, number, amount in rows} != marks:
        return f"{name} is torn: {count} counted, {len(rows)} rows of SQL"
    if swept > count or (swept < count and not armed):
        return f"{name} has lost its alarm: {count} counted, {swept} swept, none armed"
    return None


def events_problem(name: str, kv: Mapping[str, Any], events: Mapping[int, Any]) -> str | None:
    """Did each deposit of a ledger emit its event, and are the newest kept? ``events``: number -> data."""
    count = kv.get("count", 0)
    last = {number: [key.removeprefix("mark/"), amount] for key, (number, amount) in _marks(kv) if number > count - 20}
    return None if dict(events) == last else f"{name} is torn: {count} counted, its events are {sorted(events)}"


def _marks(kv: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in kv.items() if key.startswith("mark/")]


def audit_files(data_dir: Path, floors: dict[int, int] | None = None) -> list[str]:
    """What is wrong in the files of a stopped server. ``floors``: commit numbers of an earlier look, brought up."""
    wrong = []
    floors = {} if floors is None else floors
    manifest = json.loads((data_dir / "manifest.json").read_text())
    for shard in range(manifest["shards"]):
        path = data_dir / "shards" / f"{shard:04}.db"
        found, seq, problems = read_shard(path, shard, manifest["identity"])
        wrong += problems
        if seq < floors.get(shard, 0):
            wrong.append(f"shard {shard} went back from commit {floors[shard]} to {seq}")
        floors[shard] = max(seq, floors.get(shard, 0))
        for actor in found:
            if actor.type != "Ledger":
                continue
            try:
                problem = ledger_problem(
                    actor.name, actor.kv, actor.rows("SELECT mark, number, amount FROM deposit"), bool(actor.alarm)
                )
                problem = problem or events_problem(actor.name, actor.kv, actor.events)
            except (ValueError, sqlite3.Error) as error:
                problem = f"{actor.name}: {error}"
            wrong += [problem] if problem else []
    return wrong


def read_shard(path: Path, shard: int, identity: str) -> tuple[list[Found], int, list[str]]:
    """All that a shard's file and its log hold, its commit number, and what is wrong with it."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, path.name)
        for suffix in ("", "-wal"):
            if Path(f"{path}{suffix}").exists():
                shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
        database = sqlite_utils.Database(str(copy))
        try:
            problems = [row[0] for row in database.execute("PRAGMA integrity_check")]
            if problems != ["ok"]:
                wrong.append(f"{path.name}: {problems}")
            meta = {row["name"]: row["value"] for row in database["meta"].rows}
            if (meta["identity"], meta["shard"]) != (identity, shard):
                wrong.append(f"{path.name} belongs to shard {meta['shard']} of {meta['identity']}")
            marker = Path(f"{path}.clean")
            if marker.exists() and json.loads(marker.read_text())["commit_seq"] != meta["commit_seq"]:
                wrong.append(f"{path.name} is not at the commit of its clean stop")
            actors = _actors(database, wrong)
        finally:
            database.close()
    return list(actors.values()), meta["commit_seq"], wrong


def _actors(database: sqlite_utils.Database, wrong: list[str]) -> dict[int, Found]:
    actors: dict[int, Found] = {}
    for row in database["actor"].rows:
        if schema.actor_sum(row["id"], row["slot"], row["type"], row["name"]) != row["sum"]:
            wrong.append(f"the row of actor {row['id']} fails its checksum")
        actors[row["id"]] = Found(row["type"], row["name"])
    nobody = Found("", "nobody")
    for row in database["kv"].rows:
        if schema.row_sum(row["actor"], row["key"], row["value"]) != row["sum"]:
            wrong.append(f"{row['key']!r} of actor {row['actor']} fails its checksum")
        actors.get(row["actor"], nobody).kv[row["key"]] = decode(row["value"])
    for row in database["page"].rows_where(order_by="id"):
        actor = actors.get(row["id"] >> NUMBER_BITS, nobody)
        actor.pages.append(row["data"])
        if page_sum(row["id"], row["data"]) != row["sum"]:
            wrong.append(f"a page of {actor.name} fails its checksum")
        if row["id"] & ((1 << NUMBER_BITS) - 1) != len(actor.pages):
            wrong.append(f"page {len(actor.pages)} of {actor.name} is missing")
    for row in database["alarm"].rows:
        alarm = Alarm(row["due"], row["scheduled"], row["retries"], row["error"])
        actors.get(row["actor"], nobody).alarm = alarm
        if alarm_sum(row["actor"], alarm) != row["sum"]:
            wrong.append(f"the alarm of actor {row['actor']} fails its checksum")
        if alarm.error is not None:
            wrong.append(f"an alarm failed for good: {alarm.error}")
    for row in database["event"].rows:
        actors.get(row["actor"], nobody).events[row["seq"]] = json.loads(row["data"])
        fields = [row["actor"], row["seq"], row["kind"].encode(), row["data"], row["until"], row["batch"]]
        if event_sum(*fields) != row["sum"]:
            wrong.append(f"event {row['seq']} of actor {row['actor']} fails its checksum")
    for row in database["event_log"].rows:
        events = actors.get(row["actor"], nobody).events
        if sorted(events) != list(range(row["first"], row["last"] + 1)):
            wrong.append(f"actor {row['actor']} has not all of its events {row['first']} to {row['last']}")
        if log_sum(row["actor"], row["first"], row["last"]) != row["sum"]:
            wrong.append(f"the log of events of actor {row['actor']} fails its checksum")
    for row in database["outbox"].rows:
        message = Message(*(row[field] for field in Message._fields))
        if message_sum(message) != row["sum"] or message.sender not in actors:
            wrong.append(f"message {message.id} fails its checksum, or has no sender")
    for row in database["inbox"].rows:
        if inbox_sum(row["shard"], row["id"]) != row["sum"]:
            wrong.append(f"the note of message {row['id']} fails its checksum")
    if nobody.kv or nobody.pages or nobody.alarm or nobody.events:
        wrong.append("there are rows of no actor")
    return actors
