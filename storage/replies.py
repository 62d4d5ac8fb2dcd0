"""The replies of calls that carried an idempotency key: a row for each, oldest first by ``id``, and an index of them.

1. A row enters in the transaction of its batch: the reply is there exactly if the writes of its turn are.
2. A row whose checksum does not fit is never returned: ``StoreCorrupt``, so that the call is refused and not run again.
3. Rows are appended: neighbours share a page. The index by actor follows for ``TAIL_ROWS`` of them at a time, in the
   order of its key. An entry for each call at once would put one more page into a commit for each of its calls, a
   quarter of what such a call costs its worker. The rows that the index lacks are known in memory. (With 1,024 a call
   cost 3 µs more than with 4,096, which hold a commit up for some 7 ms.)
4. Space is bounded: when the index is brought up to date, expired rows are deleted, oldest first, twice as many as were
   added. Rows that this does not reach (a shard that gets few of them, a wall clock that jumped) are found page by
   page through ``expired_replies``.
5. Whether a row has expired is for the caller to say: a row that is still there may be too old to count.

Crash story: the transaction that writes to the index notes up to which row it is complete. Opening reads those behind.
"""

from __future__ import annotations

import struct
from typing import Any
from zlib import crc32

import apsw
from actord.errors import StoreCorrupt
from actord.storage.api import Batch, Reply
from actord.storage.reads import SqliteReads

TAIL_ROWS = 4096

_PUT = "INSERT INTO reply (id, actor, key, at, digest, status, head, body, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM reply WHERE id = ?"
_READ = "SELECT key, at, digest, status, head, body, sum FROM reply WHERE id = ? AND actor = ?"
_PLACE = "SELECT actor, key FROM reply WHERE id = ?"
_OLDEST = "SELECT actor, key, id, at FROM reply ORDER BY id LIMIT ?"
_NEWEST = "SELECT max(id) FROM reply"
_PAGE = "SELECT id, at FROM reply WHERE id > ? ORDER BY id LIMIT ?"
_BEHIND = "SELECT id, actor, key, at, digest, status, head, body, sum FROM reply WHERE id > ? ORDER BY id"

_ENTER = "REPLACE INTO reply_key (actor, key, id, sum) VALUES (?, ?, ?, ?)"
_LEAVE = "DELETE FROM reply_key WHERE actor = ? AND key = ? AND id = ?"
_ENTRY = "SELECT id, sum FROM reply_key WHERE actor = ? AND key = ?"
_ENTRIES = "SELECT key, id, sum FROM reply_key WHERE actor = ?"
_MARK = 0, ""  # nobody's place: the id of this entry is the one up to which the index is complete


_NUMBERS = struct.Struct("<qqq").pack


def reply_sum(actor: int, key: str, reply: Reply) -> int:
    """CRC-32 over everything that a row says, started from the actor's id."""
    at, digest, status, head, body = reply
    says = _NUMBERS(at, status, -1 if head is None else len(head))
    return crc32(body, crc32(b"%b%b%b" % (digest, key.encode(), head or b""), crc32(says, actor)))


def entry_sum(actor: int, key: str, id_: int) -> int:
    """CRC-32 over an entry of the index, started from a mix of all the bits of its numbers."""
    return crc32(key.encode(), ((id_ ^ actor << 32) * 0x9E3779B97F4A7C15 >> 32) & 0xFFFFFFFF)


def _fits(actor: int, key: str, fields: list[Any], sum_: int) -> bool:
    try:
        return reply_sum(actor, key, Reply(*fields)) == sum_
    except (TypeError, AttributeError, struct.error):  # a value that rotted into another type
        return False


def bytes_of(batch: Batch) -> int:
    """Roughly what a batch's replies take."""
    return sum(len(key) + len(reply.body) for (_, key), reply in batch.replies.items() if reply is not None)


class SqliteReplies(SqliteReads):
    """The part of ``SqliteStore`` that knows replies."""

    _oldest_reply: int  # no reply that tidying up could reach is from before; 0: not known
    _last_reply: int  # the newest id ever given
    _tail: dict[int, dict[str, int]]  # actor -> key -> id, of rows that the index lacks
    _tail_rows: int  # how many came since the index was complete
    _replies_done: Any  # what the transaction that is being made adds to the tail, and takes from it

    def _load_replies(self) -> None:
        """On opening: which rows does the index lack?"""
        try:
            complete = self._entry(*_MARK) or 0
            newest: Any = self._cursor.execute(_NEWEST).get
            rows: Any = self._cursor.execute(_BEHIND, (complete,)).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        self._oldest_reply = 0
        self._last_reply = max(complete, newest or 0)
        self._tail = {}
        self._tail_rows = len(rows)
        for id_, actor, key, *fields, sum_ in rows:
            if not _fits(actor, key, fields, sum_):
                raise StoreCorrupt(f"The reply {id_} in {self.path} fails its checksum: whose it is can't be told.")
            self._tail.setdefault(actor, {})[key] = id_

    def _entry(self, actor: int, key: str) -> int | None:
        """The id that the index has for a key."""
        rows: Any = self._cursor.execute(_ENTRY, (actor, key)).fetchall()
        for id_, sum_ in rows:
            if entry_sum(actor, key, id_) != sum_:
                raise self._bad_entry(actor)
            return int(id_)
        return None

    def _bad_entry(self, actor: int) -> StoreCorrupt:
        return StoreCorrupt(f"The index of the replies of actor {actor} in {self.path} fails its checksum.")

    # -- writing

    def _apply_replies(self, batch: Batch) -> None:
        """Write a batch's part of them, in its transaction. ``_replies_written`` is called when that has succeeded."""
        execute, executemany = self._cursor.execute, self._cursor.executemany
        tail = self._tail
        last = self._last_reply
        rows: list[tuple[Any, ...]] = []
        gone: list[tuple[int, str, int]] = []
        for (actor, key), reply in batch.replies.items():
            id_ = tail[actor].get(key) if actor in tail else None
            if reply is not None:
                last += 1
                rows.append((last, actor, key, *reply, reply_sum(actor, key, reply)))
            elif id_ is None:
                id_ = self._entry(actor, key)
            if id_ is not None:
                gone.append((actor, key, id_))
        for id_ in batch.expired_replies:
            places: Any = execute(_PLACE, (id_,)).fetchall()
            gone += [(*place, id_) for place in places]
        if rows:
            executemany(_PUT, rows)
        complete = self._tail_rows + len(rows) >= TAIL_ROWS
        if complete:
            # By actor, whose entries are neighbours in any order; then the youngest, which stay where a key came again.
            entries = [(actor, key, id_) for actor in sorted(tail) for key, id_ in tail[actor].items()]
            entries += [(row[1], row[2], row[0]) for row in rows]
            entries.append((*_MARK, last))
            executemany(_ENTER, [(*entry, entry_sum(*entry)) for entry in entries])
            if batch.replies_before >= self._oldest_reply:
                gone += self._tidy(batch.replies_before)
        if gone:
            gone.sort()
            executemany(_LEAVE, gone)
            executemany(_DELETE, [(id_,) for *_, id_ in gone])
        self._replies_done = last, rows, gone, complete

    def _tidy(self, before: int) -> list[tuple[int, str, int]]:
        """The oldest rows that have expired."""
        rows: Any = self._cursor.execute(_OLDEST, (2 * TAIL_ROWS,)).fetchall()
        # When all of them go, nothing is known of the next ones. A row whose time is no number is for the doctor.
        left = [at for *_, at in rows if type(at) is int and at > before]
        self._oldest_reply = min(left, default=0)
        return [(actor, key, id_) for actor, key, id_, at in rows if type(at) is int and at <= before]

    def _replies_written(self) -> None:
        self._last_reply, rows, gone, complete = self._replies_done
        tail = self._tail
        if complete:
            tail.clear()
            self._tail_rows = 0
            return
        self._tail_rows += len(rows)
        for actor, key, id_ in gone:
            if actor in tail and tail[actor].get(key) == id_:
                del tail[actor][key]
        for id_, actor, key, *_ in rows:
            if actor in tail:
                tail[actor][key] = id_
            else:
                tail[actor] = {key: id_}

    # -- reading

    def read_reply(self, actor: int, key: str) -> Reply | None:
        if self._broken is not None:
            raise self._refuse()
        try:
            id_ = self._tail.get(actor, {}).get(key) or self._entry(actor, key)
            rows: Any = self._cursor.execute(_READ, (id_, actor)).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        if id_ is None:
            return None
        if rows:
            found, *fields, sum_ = rows[0]
            if found == key and _fits(actor, key, fields, sum_):
                return Reply(*fields)
        raise StoreCorrupt(f"The reply of actor {actor} for the key {key!r} in {self.path} fails its checksum.")

    def reply_keys(self, actor: int) -> list[str]:
        if self._broken is not None:
            raise self._refuse()
        try:
            rows: Any = self._cursor.execute(_ENTRIES, (actor,)).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        if any(type(key) is not str or entry_sum(actor, key, id_) != sum_ for key, id_, sum_ in rows):
            raise self._bad_entry(actor)
        keys: dict[str, int] = {key: id_ for key, id_, _ in rows} | self._tail.get(actor, {})
        return sorted(keys, key=keys.__getitem__)

    def expired_replies(self, *, before: int, after: int, limit: int) -> tuple[list[int], int]:
        if self._broken is not None:
            raise self._refuse()
        try:
            rows: Any = self._cursor.execute(_PAGE, (after, limit)).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        last = int(rows[-1][0]) if len(rows) == limit else 0
        return [id_ for id_, at in rows if type(at) is int and at <= before], last
