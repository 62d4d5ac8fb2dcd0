"""What a shard's actors emitted: one row for each event that is kept, and for each actor one that says which they are.

1. The events of an actor are numbered 1, 2, 3 ... without a gap, and a number is never given twice: the newest one
   stands in ``event_log``, whatever became of the events, and the rows of ``event`` are exactly ``first`` to ``last``.
2. A row whose checksum does not fit is never returned: ``StoreCorrupt`` names the event.
3. Each row says which commit brought it, so that a reader can leave out what is written but not yet durable.
4. Events and logs are written by ``SqliteStore.write``, in the transaction of their batch.

Old events are found through an index by the time until which they are kept, the oldest first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import apsw
from actord.errors import StoreCorrupt
from actord.storage.api import Batch, Event, ExpiredEvents
from actord.storage.reads import SqliteReads

_PUT = "INSERT INTO event (actor, seq, kind, data, until, batch, sum) VALUES (?, ?, ?, ?, ?, ?, ?)"
_PUT_LOG = "REPLACE INTO event_log (actor, first, last, sum) VALUES (?, ?, ?, ?)"
_DROP = "DELETE FROM event WHERE actor = ? AND seq < ?"
_LOG = "SELECT first, last, sum FROM event_log WHERE actor = ?"
_READ = "SELECT seq, CAST(kind AS BLOB), data, until, batch, sum FROM event WHERE actor = ? AND seq > ? ORDER BY seq"
_NEWEST = "SELECT seq, batch FROM event WHERE actor = ? ORDER BY seq DESC"
_OLDEST = "SELECT actor, seq FROM event INDEXED BY event_until WHERE until <= ? ORDER BY until LIMIT ?"
_WHOSE = "SELECT slot, CAST(type AS BLOB), CAST(name AS BLOB), sum FROM actor WHERE id = ?"


def event_sum(actor: int, seq: int, kind: bytes, data: bytes, until: int, batch: int) -> int:
    """CRC-32 over everything that a row says, started from the actor's id."""
    return crc32(data, crc32(b"%d %d %d %b\0" % (seq, until, batch, kind), actor))


def log_sum(actor: int, first: int, last: int) -> int:
    return crc32(b"%d %d" % (first, last), actor)


def bytes_of(batch: Batch) -> int:
    return sum(len(event.data) + len(event.kind) for events in batch.events.values() for event in events)


def apply(executemany: Callable[..., Any], batch: Batch) -> None:
    """Write a batch's events and logs, by primary key, and remove what its logs let go."""
    rows = [
        (
            actor,
            e.seq,
            e.kind,
            e.data,
            e.until,
            batch.seq,
            event_sum(actor, e.seq, e.kind.encode(), e.data, e.until, batch.seq),
        )
        for actor, events in sorted(batch.events.items())
        for e in events
    ]
    logs = [
        (actor, first, last, log_sum(actor, first, last)) for actor, (first, last) in sorted(batch.event_logs.items())
    ]
    if rows:
        executemany(_PUT, rows)
    executemany(_PUT_LOG, logs)
    executemany(_DROP, [(actor, first) for actor, first, _, _ in logs])


class SqliteEvents(SqliteReads):
    """The part of ``SqliteStore`` that reads events."""

    def event_log(self, actor: int) -> tuple[int, int]:
        if self._broken is not None:
            raise self._refuse()
        try:
            rows: Any = self._cursor.execute(_LOG, (actor,)).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        if not rows:
            return 1, 0
        first, last, sum_ = rows[0]
        if type(first) is not int or type(last) is not int or log_sum(actor, first, last) != sum_:
            raise StoreCorrupt(f"The log of events of actor {actor} in {self.path} fails its checksum.")
        return first, last

    def last_event(self, actor: int, *, batch: int) -> int:
        last = self.event_log(actor)[1]
        cursor = self._conn.cursor()
        try:
            for seq, written in cursor.execute(_NEWEST, (actor,)):
                if written <= batch:
                    break
                last = seq - 1
            return last
        except (apsw.Error, UnicodeDecodeError, TypeError) as error:
            raise self._events_failed(error) from error
        finally:
            # An unfinished statement holds a read transaction, and that keeps the log from starting over.
            cursor.close(True)

    def read_events(self, actor: int, *, after: int, batch: int, limit: int, limit_bytes: int) -> list[Event]:
        if self._broken is not None:
            raise self._refuse()
        found: list[Event] = []
        row: Any
        cursor = self._conn.cursor()
        try:
            for row in cursor.execute(_READ, (actor, after)):
                seq, kind, data, until, written, sum_ = row
                if event_sum(actor, *row[:5]) != sum_:
                    raise StoreCorrupt(f"Event {seq} of actor {actor} in {self.path} fails its checksum.")
                if written > batch:
                    break
                found.append(Event(seq, kind.decode(), data, until))
                limit_bytes -= len(data)
                if len(found) >= limit or limit_bytes <= 0:
                    break
            return found
        except (apsw.Error, UnicodeDecodeError, TypeError) as error:
            raise self._events_failed(error) from error
        finally:
            cursor.close(True)

    def expired_events(self, *, now: int, limit: int) -> list[ExpiredEvents]:
        if self._broken is not None:
            raise self._refuse()
        rows: Any
        newest: dict[int, int] = {}
        found: list[ExpiredEvents] = []
        try:
            rows = self._cursor.execute(_OLDEST, (now, limit)).fetchall()
            for actor, seq in rows:
                newest[actor] = max(seq, newest.get(actor, 0))
            for actor, seq in newest.items():
                rows = self._cursor.execute(_WHOSE, (actor,)).fetchall()
                for slot, type_, name, sum_ in rows:
                    if crc32(b"%d\0%b\0%b" % (slot, type_, name), actor) == sum_:
                        found.append(ExpiredEvents(actor, type_.decode(), name.decode(), seq))
        except (apsw.Error, UnicodeDecodeError, TypeError) as error:
            raise self._events_failed(error) from error
        return found

    def _events_failed(self, error: Exception) -> Exception:
        if isinstance(error, TypeError):  # a value rotted into another type
            return StoreCorrupt(f"The events in {self.path} are damaged: {error}")
        return self._read_failed(error)
