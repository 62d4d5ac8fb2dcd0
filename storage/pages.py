"""The SQL databases of a shard's actors: one row for each of their pages, found by actor and page number.

1. ``read_page`` returns a page as it was written for that actor and number, or raises ``StoreCorrupt``.
2. The row's key is one integer, actor and number, so that the pages of an actor are neighbours and a read is one
   descent. An actor's page of 1,024 bytes, stored without the 32 that SQLite was told to leave free at its end, is a
   row of which exactly four fill a page of the shard, without overflow pages: small databases share pages.
3. Pages are written by ``SqliteStore.write``, in the transaction of their batch.

Pages of 2,048 and 4,096 bytes were measured too. Writing costs the same (a changed row is a frame of 4 KiB in the log
for each of them, 9 to 11 µs); a bulk load is a quarter cheaper with 4,096; but 10,000 databases of one small table take
21 MB, 41 MB and 82 MB, and an open connection 90, 110 and 150 KB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from zlib import crc32

import apsw
from actord.errors import StoreCorrupt
from actord.storage.reads import SqliteReads

NUMBER_BITS = 21  # pages of one database: 2 GiB at 1,024 bytes, twice what an actor may have
LAST_NUMBER = (1 << NUMBER_BITS) - 1

PUT = "REPLACE INTO page (id, data, sum) VALUES (?, ?, ?)"
DELETE = "DELETE FROM page WHERE id > ? AND id <= ?"

_READ = "SELECT data, sum FROM page WHERE id = ?"
_LAST = "SELECT id FROM page WHERE id > ? AND id <= ? ORDER BY id DESC LIMIT 1"

Row = tuple[int, bytes, int]


def page_sum(id_: int, data: bytes) -> int:
    """CRC-32 over a page, started from a mix of all the bits of its key."""
    return crc32(data, (id_ * 0x9E3779B97F4A7C15 >> 32) & 0xFFFFFFFF)


def rows_of(pages: Mapping[int, Mapping[int, bytes]]) -> list[Row]:
    """A batch's pages as rows for ``PUT``, by primary key."""
    rows = []
    for actor, changed in pages.items():
        first = actor << NUMBER_BITS
        for number, data in changed.items():
            id_ = first | number
            rows.append((id_, data, page_sum(id_, data)))
    rows.sort()
    return rows


def ranges_of(cleared: Iterable[int], page_counts: Mapping[int, int]) -> list[tuple[int, int]]:
    """What a batch removes, as rows for ``DELETE``: all pages of some actors, those beyond the end of others."""
    ends = dict.fromkeys(cleared, 0)
    ends.update((actor, count) for actor, count in page_counts.items() if actor not in ends)
    return sorted((actor << NUMBER_BITS | count, actor << NUMBER_BITS | LAST_NUMBER) for actor, count in ends.items())


class SqlitePages(SqliteReads):
    """The part of ``SqliteStore`` that reads pages."""

    def page_count(self, actor: int) -> int:
        if self._broken is not None:
            raise self._refuse()
        first = actor << NUMBER_BITS
        try:
            rows: Any = self._cursor.execute(_LAST, (first, first | LAST_NUMBER)).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        return int(rows[0][0]) - first if rows else 0

    def read_page(self, actor: int, number: int) -> bytes | None:
        if self._broken is not None:
            raise self._refuse()
        id_ = actor << NUMBER_BITS | number
        try:
            rows = self._cursor.execute(_READ, (id_,)).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        if not rows:
            return None
        data, sum_ = rows[0]
        if type(data) is not bytes or page_sum(id_, data) != sum_:
            raise StoreCorrupt(f"Page {number} of the SQL database of actor {actor} in {self.path} fails its checksum.")
        return data
