"""The alarms of a shard's actors: one row for each, found by actor, or in the order in which they are due.

1. A row whose checksum does not fit is never returned: ``read_alarm`` raises ``StoreCorrupt``; a listing leaves it
   out, so that it holds up no other alarm, and says so in the log, once for each.
2. Armed alarms stand in an index by (due, actor), failed ones in one by actor: a listing reads what it returns, and
   neither how many alarms there are nor how many have failed makes the next one slower to find.
3. Alarms are written by ``SqliteStore.write``, in the transaction of their batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from zlib import crc32

import apsw
from actord.errors import StoreCorrupt
from actord.storage import schema
from actord.storage.api import Alarm, AlarmEntry
from actord.storage.reads import SqliteReads

PUT = "REPLACE INTO alarm (actor, due, scheduled, retries, error, sum) VALUES (?, ?, ?, ?, ?, ?)"
DELETE = "DELETE FROM alarm WHERE actor = ?"

# Texts come as bytes: one that rot made undecodable would end a listing for all of them.
_COLUMNS = "SELECT actor, due, scheduled, retries, CAST(error AS BLOB), alarm.sum"
_READ = f"{_COLUMNS} FROM alarm WHERE actor = ?"
_KEY = "slot, CAST(type AS BLOB), CAST(name AS BLOB), actor.sum"
_WITH_KEY = f"{_COLUMNS}, {_KEY} FROM alarm CROSS JOIN actor ON actor.id = alarm.actor"
_ARMED = f"{_WITH_KEY} WHERE error IS NULL AND due <= ? AND (due, actor) > (?, ?) ORDER BY due, actor"
_FAILED = f"{_WITH_KEY} WHERE error IS NOT NULL AND actor > ? ORDER BY actor"

Row = tuple[int, int, int, int, str | None, int]


def alarm_sum(actor: int, alarm: Alarm) -> int:
    """CRC-32 over everything that a row says, started from the actor's id."""
    due, scheduled, retries, error = alarm
    return crc32(f"{due} {scheduled} {retries} {'-' if error is None else '+' + error}".encode(), actor)


def rows_of(alarms: Mapping[int, Alarm | None]) -> tuple[list[Row], list[tuple[int]]]:
    """A batch's alarms as rows for ``PUT`` and ``DELETE``, by primary key."""
    puts = [(actor, *alarm, alarm_sum(actor, alarm)) for actor, alarm in sorted(alarms.items()) if alarm is not None]
    return puts, [(actor,) for actor, alarm in sorted(alarms.items()) if alarm is None]


class SqliteAlarms(SqliteReads):
    """The part of ``SqliteStore`` that reads alarms."""

    _damaged_alarms: set[int]  # actors whose rows were reported

    def read_alarm(self, actor: int) -> Alarm | None:
        if self._broken is not None:
            raise self._refuse()
        try:
            rows = self._cursor.execute(_READ, (actor,)).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        if not rows:
            return None
        alarm = _checked(rows[0])
        if alarm is None:
            raise StoreCorrupt(f"The alarm of actor {actor} in {self.path} fails its checksum.")
        return alarm

    def armed_alarms(self, *, until: int, limit: int, after: tuple[int, int] = (-1, 0)) -> list[AlarmEntry]:
        return self._list(_ARMED, (until, *after), limit)

    def failed_alarms(self, *, limit: int, after: int = 0) -> list[AlarmEntry]:
        return self._list(_FAILED, (after,), limit)

    def _list(self, query: str, bindings: Iterable[int], limit: int) -> list[AlarmEntry]:
        if self._broken is not None:
            raise self._refuse()
        found: list[AlarmEntry] = []
        row: Any
        cursor = self._conn.cursor()
        try:
            for row in cursor.execute(query, tuple(bindings)):
                alarm = _checked(row[:6])
                actor, (slot, type_, name, sum_) = row[0], (row[6], _text(row[7]), _text(row[8]), row[9])
                if alarm is None or schema.actor_sum(actor, slot, type_, name) != sum_:
                    self._report(actor, type_, name)
                    continue
                found.append(AlarmEntry(actor, type_, name, alarm))
                if len(found) == limit:
                    break
            return found
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        finally:
            # An unfinished statement holds a read transaction, and that keeps the log from starting over.
            cursor.close(True)

    def _report(self, actor: int, type_: object, name: object) -> None:
        if actor not in self._damaged_alarms:
            self._damaged_alarms.add(actor)
            self._log.critical(
                "the alarm of actor %s (%s/%r) in %s fails its checksum and does not fire",
                actor,
                type_,
                name,
                self.path,
            )


def _checked(row: Any) -> Alarm | None:
    """The alarm of a row; None when its checksum does not fit."""
    actor, due, scheduled, retries, error, sum_ = row
    alarm = Alarm(due, scheduled, retries, None if error is None else _text(error))
    return alarm if alarm_sum(actor, alarm) == sum_ else None


def _text(data: bytes) -> str:
    """What can't be decoded gets a form that no checksum fits."""
    return data.decode(errors="backslashreplace")
