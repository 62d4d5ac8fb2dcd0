"""The replies of calls that carried an idempotency key: one row for each actor and key, oldest first by ``id``.

1. A row enters in the transaction of its batch: the reply is there exactly if the writes of its turn are.
2. A row whose checksum does not fit is never returned: ``StoreCorrupt``, so that the call is refused and not run again.
3. Space is bounded: a batch that adds rows also deletes expired ones, twice as many as it adds and at least
   ``TIDY_ROWS``, oldest first. Rows that this does not reach (a shard that gets no more of them, a wall clock that
   jumped) are found page by page through ``expired_replies``.
4. Whether a row has expired is for the caller to say: a row that is still there may be too old to count.

Crash story: none of its own; a row is part of a commit like every other.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import apsw
from actord.errors import StoreCorrupt
from actord.storage.api import Batch, Reply
from actord.storage.reads import SqliteReads

TIDY_ROWS = 16

# REPLACE gives a key that is used anew after its time a new id: it is the youngest again.
_PUT = "REPLACE INTO reply (actor, key, at, digest, status, head, body, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM reply WHERE actor = ? AND key = ?"
_DELETE_ID = "DELETE FROM reply WHERE id = ?"
_TIDY = "DELETE FROM reply WHERE id IN (SELECT id FROM reply ORDER BY id LIMIT ?) AND at <= ?"
_OLDEST = "SELECT at FROM reply ORDER BY id LIMIT 1"

_READ = "SELECT at, digest, status, head, body, sum FROM reply WHERE actor = ? AND key = ?"
_KEYS = "SELECT key FROM reply WHERE actor = ? ORDER BY id"
_PAGE = "SELECT id, at FROM reply WHERE id > ? ORDER BY id LIMIT ?"


def reply_sum(actor: int, key: str, reply: Reply) -> int:
    """CRC-32 over everything that a row says, started from the actor's id."""
    at, digest, status, head, body = reply
    says = b"%d %d %d %b" % (at, status, -1 if head is None else len(head), digest)
    return crc32(body, crc32(head or b"", crc32(key.encode(), crc32(says, actor))))


def bytes_of(batch: Batch) -> int:
    """Roughly what a batch's replies take."""
    return sum(len(key) + len(reply.body) for (_, key), reply in batch.replies.items() if reply is not None)


class SqliteReplies(SqliteReads):
    """The part of ``SqliteStore`` that knows replies."""

    _oldest_reply: int  # no reply that tidying up could reach is from before; 0: not known

    def _apply_replies(self, batch: Batch) -> None:
        """Write a batch's part of them, in its transaction."""
        executemany = self._cursor.executemany
        deletes = [place for place, reply in batch.replies.items() if reply is None]
        if deletes:
            executemany(_DELETE, deletes)
        if batch.expired_replies:
            executemany(_DELETE_ID, [(id_,) for id_ in batch.expired_replies])
        puts = [
            (actor, key, *reply, reply_sum(actor, key, reply))
            for (actor, key), reply in batch.replies.items()
            if reply is not None
        ]
        if puts:
            executemany(_PUT, puts)
            if batch.replies_before >= self._oldest_reply:
                self._cursor.execute(_TIDY, (max(TIDY_ROWS, 2 * len(puts)), batch.replies_before))
                oldest: Any = self._cursor.execute(_OLDEST).get
                self._oldest_reply = oldest if type(oldest) is int else 0

    def read_reply(self, actor: int, key: str) -> Reply | None:
        if self._broken is not None:
            raise self._refuse()
        try:
            rows: Any = self._cursor.execute(_READ, (actor, key)).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        if not rows:
            return None
        *fields, sum_ = rows[0]
        try:
            reply = Reply(*fields)
            if reply_sum(actor, key, reply) == sum_:
                return reply
        except TypeError:  # a value that rotted into another type
            pass
        raise StoreCorrupt(f"The reply of actor {actor} for the key {key!r} in {self.path} fails its checksum.")

    def reply_keys(self, actor: int) -> list[str]:
        if self._broken is not None:
            raise self._refuse()
        try:
            rows: Any = self._cursor.execute(_KEYS, (actor,)).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        return [row[0] for row in rows]

    def expired_replies(self, *, before: int, after: int, limit: int) -> tuple[list[int], int]:
        if self._broken is not None:
            raise self._refuse()
        try:
            rows: Any = self._cursor.execute(_PAGE, (after, limit)).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        last = int(rows[-1][0]) if len(rows) == limit else 0
        return [id_ for id_, at in rows if type(at) is int and at <= before], last
