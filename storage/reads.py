"""Reading a shard's database: every row that leaves it has been checked, and a store that is broken reads nothing.

1. A row whose checksum does not fit its actor, key and value is ``StoreCorrupt``, which names actor and key.
   A bit may also turn bytes into a text that is none: SQLite hands it out, and decoding it fails.
2. Every statement is finished before its method returns: an unfinished one would keep the log from starting over.
3. Broken is a state that is checked first and never left.
4. Of keys and values the newest may not be in their table yet (``storage.folding``): those count.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator
from typing import Any
from zlib import crc32

import apsw
from actord.errors import StorageError, StoreBroken, StoreCorrupt
from actord.storage import schema

_READ = "SELECT value, sum FROM kv WHERE actor = ? AND key = ?"
_FIND = "SELECT id, sum FROM actor WHERE slot = ? AND type = ? AND name = ?"
# By the index over slot, type and name: as many steps as there are types, not actors.
_NEXT_TYPE = "SELECT min(type) FROM actor WHERE slot = ? AND type > ?"
# A page's id is its actor's and its number; see ``storage.pages``. The third binding: actors of which more is known.
_HAS_DATA = """
    SELECT 1 FROM actor AS a WHERE slot = ? AND type = ? AND (
        (EXISTS (SELECT 1 FROM kv WHERE actor = a.id) AND id NOT IN (SELECT value FROM json_each(?)))
        OR EXISTS (SELECT 1 FROM page WHERE id > a.id << 21 AND id < (a.id + 1) << 21)
        OR EXISTS (SELECT 1 FROM alarm WHERE actor = a.id)
    ) LIMIT 1
"""

_OF_TYPE = "SELECT id FROM actor WHERE slot = ? AND type = ?"
_SOME_KEYS = "SELECT key FROM kv WHERE actor = ? LIMIT ?"

Pending = dict[int, dict[str, bytes | None]]  # actor -> key -> value, None for a deletion


class SqliteReads:
    """The reading half of ``SqliteStore``, which opens the connection."""

    path: str
    _broken: str | None
    _conn: apsw.Connection
    _cursor: apsw.Cursor
    _log: logging.Logger
    # What ``kv`` does not say yet: the newest values, and those of the half of ``redo`` that is being folded.
    _pending: Pending
    _folding: Pending

    def cache_bytes(self) -> int:
        """Memory of the page cache in use."""
        used: int = self._conn.status(apsw.SQLITE_DBSTATUS_CACHE_USED)[0]
        return used

    def find_actor(self, slot: int, type_: str, name: str) -> int | None:
        if self._broken is not None:
            raise self._refuse()
        try:
            rows = self._cursor.execute(_FIND, (slot, type_, name)).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        if not rows:
            return None
        id_: Any
        id_, sum_ = rows[0]
        if schema.actor_sum(id_, slot, type_, name) != sum_:
            raise StoreCorrupt(f"The entry of actor {id_} ({type_}/{name!r}) in {self.path} fails its checksum.")
        return int(id_)

    def lost_types(self, slot: int, known: Collection[str]) -> list[str]:
        found: list[str] = []
        type_: Any = ""
        if self._broken is not None:
            raise self._refuse()
        pending = json.dumps(list(self._pending.keys() | self._folding.keys()))
        try:
            while (type_ := self._cursor.execute(_NEXT_TYPE, (slot, type_)).fetchall()[0][0]) is not None:
                if type_ not in known and (
                    self._cursor.execute(_HAS_DATA, (slot, type_, pending)).fetchall()
                    or self._pending_keep(slot, type_)
                ):
                    found.append(str(type_))
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        return found

    def _pending_keep(self, slot: int, type_: Any) -> bool:
        """Has an actor of that type a key, of those of which not everything is in ``kv`` yet?"""
        id_: Any
        for (id_,) in self._cursor.execute(_OF_TYPE, (slot, type_)).fetchall():
            if (items := self._not_in_kv(id_)) is None:
                continue
            if any(value is not None for value in items.values()):
                return True
            # more of them than can be deleted
            if any(key not in items for (key,) in self._cursor.execute(_SOME_KEYS, (id_, len(items) + 1)).fetchall()):
                return True
        return False

    def _not_in_kv(self, actor: int) -> dict[str, bytes | None] | None:
        newest, older = self._pending.get(actor), self._folding.get(actor)
        return {**older, **newest} if older and newest else newest or older

    def read(self, actor: int, key: str) -> bytes | None:
        if self._broken is not None:
            raise self._refuse()
        for pending in (self._pending.get(actor), self._folding.get(actor)):
            if pending is not None and key in pending:
                return pending[key]
        try:
            rows = self._cursor.execute(_READ, (actor, key)).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        if not rows:
            return None
        value, sum_ = rows[0]
        if type(value) is not bytes or crc32(value, crc32(key.encode(), actor)) != sum_:
            raise self._bad_row(actor, key)
        return value

    def scan(
        self,
        actor: int,
        *,
        start: str | None = None,
        start_after: bool = False,
        end: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        limit_bytes: int | None = None,
    ) -> tuple[list[tuple[str, bytes]], bool]:
        if self._broken is not None:
            raise self._refuse()
        query = "SELECT key, value, sum FROM kv WHERE actor = ?"
        bindings: list[Any] = [actor]
        if start is not None:
            query += " AND key > ?" if start_after else " AND key >= ?"
            bindings.append(start)
        if end is not None:
            query += " AND key < ?"
            bindings.append(end)
        query += " ORDER BY key DESC" if reverse else " ORDER BY key"
        rows: list[tuple[str, bytes]] = []
        room = limit_bytes
        cursor = self._conn.cursor()
        try:
            found = self._values(actor, cursor.execute(query, bindings))
            if (pending := self._not_in_kv(actor)) is not None:
                found = self._overlaid(pending, found, start, start_after, end, reverse)
            for row in found:
                if len(rows) == limit or (room is not None and room < 0):
                    return rows, False
                rows.append(row)
                if room is not None:
                    room -= len(row[1])
            return rows, True
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        finally:
            # An unfinished statement holds a read transaction, and that keeps the log from starting over.
            cursor.close(True)

    def _values(self, actor: int, rows: Iterator[Any]) -> Iterator[tuple[str, bytes]]:
        for key, value, sum_ in rows:
            if type(key) is not str or type(value) is not bytes or crc32(value, crc32(key.encode(), actor)) != sum_:
                raise self._bad_row(actor, key)
            yield key, value

    def _overlaid(
        self,
        pending: dict[str, bytes | None],
        rows: Iterator[tuple[str, bytes]],
        start: str | None,
        start_after: bool,
        end: str | None,
        reverse: bool,
    ) -> Iterator[tuple[str, bytes]]:
        """The rows of a range, in its order, with what is pending in their place and between them."""
        inside = [
            key
            for key in pending
            if (start is None or key > start or (key == start and not start_after)) and (end is None or key < end)
        ]
        inside.sort(reverse=not reverse)  # the next one is the last of the list
        for key, value in rows:
            while inside and (inside[-1] > key if reverse else inside[-1] < key):
                new = inside.pop()
                if (changed := pending[new]) is not None:
                    yield new, changed
            if inside and inside[-1] == key:
                if (changed := pending[inside.pop()]) is not None:
                    yield key, changed
            else:
                yield key, value
        while inside:
            new = inside.pop()
            if (changed := pending[new]) is not None:
                yield new, changed

    def _bad_row(self, actor: int, key: object) -> StoreCorrupt:
        return StoreCorrupt(f"The value of actor {actor}, key {key!r}, in {self.path} fails its checksum.")

    def _read_failed(self, error: Exception) -> StorageError:
        if isinstance(error, apsw.CorruptError | apsw.NotADBError | UnicodeDecodeError):
            return StoreCorrupt(f"{self.path} is damaged: {error}")
        return self._break("reading", error)

    def _break(self, doing: str, error: Exception) -> StoreBroken:
        self._broken = f"{doing}: {error}"
        self._log.critical("the store %s failed at %s: %s", self.path, doing, error)
        return StoreBroken(f"The store failed ({self._broken}).", applied="unknown")

    def _refuse(self) -> StoreBroken:
        return StoreBroken(f"The store can't be used any more ({self._broken}).", applied="unknown")
