"""The newest keys and values: a commit keeps its own in one row, and they move into ``kv`` later (``storage.folding``).

1. What a commit says of keys and values enters in its transaction, whole: as a row of ``redo``, or as a few when it is
   long. In ``kv`` its keys lie all over the tree, and each would put a page of its own into the commit: with 12 calls
   in a commit and 5,000 actors that was 3.9 KB of log for a call, and is 0.4.
2. ``commit_seq`` in ``meta`` is the commit that ``kv`` stands at: nothing of it or of those before it is missing there.
   Rows of ``redo`` count if they are of a later one. Every commit that does not bring ``kv`` to itself has a row, also
   when it says nothing of keys, so the newest commit is the newest row's.
3. ``redo`` has two halves. One is filled, from its beginning, while the values of the other one move into ``kv``; then
   they change places, and rows that do not count any more are overwritten: each is a page, which stays where it is.
4. A row that does not fit its checksum, or a commit that is missing in between, is ``StoreCorrupt`` on opening. The
   rows of a half that count stand before its others: one behind an older row is older itself, and need not fit any
   more.

Crash story: a row is there exactly if its commit is. ``kv`` may hold newer values than those of the commit that it
stands at, but only such as rows that count hold too. Opening writes nothing: it reads the rows, and goes on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple
from zlib import crc32

import apsw
import ormsgpack
from actord.errors import StoreCorrupt
from actord.storage import schema
from actord.storage.reads import Pending

# The numbers of the second half's rows begin here. Before format 8 there was only a first one.
HALF = 1 << 20

_ROWS = "SELECT slot, seq, part, parts, size, data, sum FROM {}.redo ORDER BY slot"
_THERE = "SELECT 1 FROM {}.sqlite_schema WHERE type = 'table' AND name = 'redo'"
_FOLDED = "SELECT value FROM {}.meta WHERE name = 'commit_seq'"

_NUMBERS = struct.Struct("<qqqq").pack

Query = Callable[[str], list[Any]]  # runs what has {} where the schema's name belongs


class Half(NamedTuple):
    """What the rows of one half that count say."""

    number: int  # 0 or 1
    keys: Pending
    entries: int  # keys in all its commits
    slots: int  # rows that count
    seq: int  # its newest commit


class Behind(NamedTuple):
    """What the rows of ``redo`` say that ``kv`` does not say yet."""

    folded: int  # the commit that ``kv`` stands at
    seq: int  # the newest commit
    halves: list[Half]  # those that have rows that count, the older one first
    rotten: int  # rows that fail their checksum and are not needed: what they said is in ``kv``

    @property
    def slots(self) -> int:
        return sum(half.slots for half in self.halves)

    @property
    def entries(self) -> int:
        return sum(half.entries for half in self.halves)

    def pending(self) -> Pending:
        """The newest values, of both halves."""
        found: Pending = {}
        for half in self.halves:
            lay_over(found, half.keys)
        return found


def main(conn: apsw.Connection) -> Query:
    """Queries of a connection's own database."""
    return lambda query: conn.execute(query.format("main")).fetchall()


def redo_sum(seq: int, part: int, parts: int, size: int, data: bytes) -> int:
    """CRC-32 over everything that a row says."""
    return crc32(data, crc32(_NUMBERS(seq, part, parts, size)))


def behind(query: Query, where: str) -> Behind:
    """What is not in ``kv``. Raises ``StoreCorrupt`` that names ``where``, and what ``query`` raises."""
    folded: int = query(_FOLDED)[0][0]
    counting: dict[int, list[Any]] = {0: [], 1: []}  # by half
    older: set[int] = set()  # halves of which the rows behind those that count have begun
    rotten = 0
    for slot, number, part, parts, size, piece, sum_ in query(_ROWS) if query(_THERE) else ():
        half = int(slot >= HALF)
        numbers = number, part, parts, size
        fits = {type(each) for each in numbers} == {int} and type(piece) is bytes
        if not fits or redo_sum(*numbers, piece) != sum_:
            if half not in older:
                raise StoreCorrupt(
                    f"The newest commits in {where} can't be read: one fails its checksum. Restore it from a backup."
                )
            rotten += 1
        elif number <= folded:
            older.add(half)
        else:
            counting[half].append((number, part, parts, piece[:size]))
    halves: list[Half] = []
    seq = folded
    for half in sorted((half for half in counting if counting[half]), key=lambda half: counting[half][0]):
        halves.append(_half(half, counting[half], seq, where))
        seq = halves[-1].seq
    return Behind(folded, seq, halves, rotten)


def _half(half: int, rows: list[Any], seq: int, where: str) -> Half:
    """The rows of a half that count, which have to begin with the commit behind ``seq``."""
    keys: Pending = {}
    entries = 0
    expected, data = 0, b""  # the part that comes next, and those before it
    for number, part, parts, piece in rows:
        if number != seq + 1 or part != expected:
            break
        data += piece
        expected = part + 1
        if expected < parts:
            continue
        for actor, items in ormsgpack.unpackb(data):
            merge(keys, actor, items)
            entries += len(items)
        seq, expected, data = number, 0, b""
    else:
        if not expected:
            return Half(half, keys, entries, len(rows), seq)
    raise StoreCorrupt(f"{where} lacks a part of commit {seq + 1}. Restore it from a backup.")


_OVERLAY = """
CREATE TEMP TABLE {0}_new (actor INTEGER, key TEXT, value BLOB, sum INTEGER, PRIMARY KEY (actor, key)) WITHOUT ROWID;
CREATE TEMP VIEW {0}_kv AS
    SELECT actor, key, value, sum FROM {0}.kv AS old
        WHERE NOT EXISTS (SELECT 1 FROM temp.{0}_new AS new WHERE new.actor = old.actor AND new.key = old.key)
    UNION ALL SELECT actor, key, value, sum FROM temp.{0}_new WHERE value IS NOT NULL;
"""


def overlay(conn: apsw.Connection, name: str, keys: Pending) -> None:
    """Make ``temp.{name}_kv``: what ``kv`` of the schema ``name`` will hold when it has been folded."""
    conn.execute(_OVERLAY.format(name))
    conn.executemany(
        f"INSERT INTO temp.{name}_new VALUES (?, ?, ?, ?)",
        (
            (actor, key, value, None if value is None else schema.row_sum(actor, key, value))
            for actor, items in keys.items()
            for key, value in items.items()
        ),
    )


def lay_over(keys: Pending, newer: Pending) -> None:
    """Let what ``newer`` says count. What either says of an actor stays as it is: they may share it with others."""
    for actor, items in newer.items():
        keys[actor] = {**keys[actor], **items} if actor in keys else items


def merge(keys: Pending, actor: int, items: dict[str, bytes | None]) -> None:
    """Let what a later commit says of an actor count."""
    known = keys.get(actor)
    if known is None:
        keys[actor] = items
    else:
        known.update(items)
