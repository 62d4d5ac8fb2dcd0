"""The newest keys and values: a commit keeps its own in one row, and they move into ``kv`` for many commits at once.

1. What a commit says of keys and values enters in its transaction, whole: as a row of ``redo``, or as a few when it is
   long. In ``kv`` its keys lie all over the tree, and each would put a page of its own into the commit: with 12 calls
   in a commit and 5,000 actors that was 3.9 KB of log for a call, and is 0.5.
2. When ``redo`` is full, or holds ``FOLD_ROWS`` keys, the next commit *folds*: its transaction writes everything into
   ``kv``, in the order of the keys, its own included. So does a commit whose values are too large to be written twice,
   one that clears an actor, and every one while the disk is full. Nothing else runs meanwhile: where folds of the
   first kind take longer than ``FOLD_SECONDS``, because pages of ``kv`` have to be read from the disk, they come more
   often and are smaller.
3. ``commit_seq`` in ``meta`` is the last commit that folded. Rows of ``redo`` count if they are of a later one, and
   are overwritten by those that come after the next fold: each is a page, which stays where it is. Every commit that
   does not fold has a row, also when it says nothing of keys, so the newest commit is the newest row's.
4. What is not in ``kv`` yet is known in memory: reads look there first (``storage.reads``).
5. A row that does not fit its checksum, or a commit that is missing in between, is ``StoreCorrupt`` on opening. The
   rows that count stand before all others: one behind an older row is older itself, and need not fit any more.

Crash story: a row is there exactly if its commit is, and a fold exactly if its own commit is. Opening writes nothing:
it reads the rows, and goes on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple
from zlib import crc32

import apsw
import ormsgpack
from actord.errors import InvariantViolated, StoreCorrupt
from actord.storage import schema
from actord.storage.api import Batch
from actord.storage.ballast import is_full
from actord.storage.reads import Pending, SqliteReads

SLOTS = 256
# A commit that folds takes 2 to 3 ms for them when the pages are in memory.
FOLD_ROWS = 1024
FOLD_ROWS_LEAST = 32
FOLD_SECONDS = 0.005
# A row fills its page, so that the one that takes its place does not move anything.
ROW_BYTES = 3900
# Values that are larger than that on average are not written twice.
VALUE_BYTES = 512
_MOST_ROWS = 16  # of one commit

_PUT_ROW = "REPLACE INTO redo (slot, seq, part, parts, size, data, sum) VALUES (?, ?, ?, ?, ?, ?, ?)"
_ROWS = "SELECT seq, part, parts, size, data, sum FROM {}.redo ORDER BY slot"
_THERE = "SELECT 1 FROM {}.sqlite_schema WHERE type = 'table' AND name = 'redo'"
_FOLDED = "SELECT value FROM {}.meta WHERE name = 'commit_seq'"

_PUT_KEY = "REPLACE INTO kv (actor, key, value, sum) VALUES (?, ?, ?, ?)"
_DELETE_KEY = "DELETE FROM kv WHERE actor = ? AND key = ?"
_SEQ = "UPDATE meta SET value = ?, sum = ? WHERE name = 'commit_seq' AND value = ?"

_NUMBERS = struct.Struct("<qqqq").pack

_packb = ormsgpack.packb

Row = tuple[int, int, int, int, int, bytes, int]  # as the table has it
Query = Callable[[str], list[Any]]  # runs what has {} where the schema's name belongs


class Behind(NamedTuple):
    """What the rows of ``redo`` say that ``kv`` does not say yet."""

    folded: int  # the commit that ``kv`` stands at
    seq: int  # the newest commit
    keys: Pending
    rows: int  # keys in all commits
    slots: int  # rows that count
    rotten: int  # rows that fail their checksum and are not needed: what they said is in ``kv``


def main(conn: apsw.Connection) -> Query:
    """Queries of a connection's own database."""
    return lambda query: conn.execute(query.format("main")).fetchall()


def redo_sum(seq: int, part: int, parts: int, size: int, data: bytes) -> int:
    """CRC-32 over everything that a row says."""
    return crc32(data, crc32(_NUMBERS(seq, part, parts, size)))


def behind(query: Query, where: str) -> Behind:
    """What is not in ``kv``. Raises ``StoreCorrupt`` that names ``where``, and what ``query`` raises."""
    folded: int = query(_FOLDED)[0][0]
    keys: Pending = {}
    rows = slots = rotten = 0
    older = False  # are these the rows behind those that count?
    seq, expected, data = folded, 0, b""  # the newest whole commit; the part that comes next, and those before it
    for number, part, parts, size, piece, sum_ in query(_ROWS) if query(_THERE) else ():
        numbers = number, part, parts, size
        fits = {type(each) for each in numbers} == {int} and type(piece) is bytes
        if not fits or redo_sum(*numbers, piece) != sum_:
            if not older:
                raise _bad(where)
            rotten += 1
            continue
        if number <= folded:
            older = True
            continue
        if number != seq + 1 or part != expected:
            raise StoreCorrupt(f"{where} lacks a part of commit {seq + 1}. Restore it from a backup.")
        slots += 1
        data += piece[:size]
        expected = part + 1
        if expected < parts:
            continue
        for actor, items in ormsgpack.unpackb(data):
            merge(keys, actor, items)
            rows += len(items)
        seq, expected, data = number, 0, b""
    if expected:
        raise StoreCorrupt(f"{where} lacks a part of commit {seq + 1}. Restore it from a backup.")
    return Behind(folded, seq, keys, rows, slots, rotten)


def _bad(where: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"The newest commits in {where} can't be read: one fails its checksum. Restore it from a backup."
    )


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


def merge(keys: Pending, actor: int, items: dict[str, bytes | None]) -> None:
    """Let what a later commit says of an actor count."""
    known = keys.get(actor)
    if known is None:
        keys[actor] = items
    else:
        known.update(items)


class Fold:
    """What a fold does to ``kv``, in the order of its key: neighbours share pages."""

    __slots__ = ("bytes", "deletes", "due", "puts")

    def __init__(self, keys: Pending, *, due: bool) -> None:
        self.due = due  # there is no room for more in ``redo``
        self.bytes = 0
        self.puts: list[tuple[int, str, bytes, int]] = []
        self.deletes: list[tuple[int, str]] = []
        for actor in sorted(keys):
            items = keys[actor]
            # Code points sort like their UTF-8 bytes.
            for key in sorted(items) if len(items) > 1 else items:
                value = items[key]
                if value is None:
                    self.deletes.append((actor, key))
                else:
                    self.puts.append((actor, key, value, crc32(value, crc32(key.encode(), actor))))
                    self.bytes += len(key) + len(value)


class SqliteRedo(SqliteReads):
    """The part of ``SqliteStore`` that keeps keys and values until they are folded."""

    commit_seq: int
    full: bool
    _pending_rows: int
    _most_rows: int  # of these, from ``FOLD_ROWS_LEAST`` to ``FOLD_ROWS``
    _slot: int  # the next row of ``redo``
    _folded: int  # ``commit_seq`` as ``meta`` has it

    def _load_redo(self) -> None:
        """On opening, when ``commit_seq`` is known."""
        try:
            found = behind(main(self._conn), self.path)
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        if found.seq != self.commit_seq:
            raise StoreCorrupt(
                f"{self.path} lacks commits between {found.seq} and {self.commit_seq}. Restore it from a backup."
            )
        if found.rotten:
            self._log.warning(
                "%d of the older rows of redo in %s fail their checksum: they are not needed, but the disk may be bad",
                found.rotten,
                self.path,
            )
        self._folded = found.folded
        self._pending, self._pending_rows, self._slot = found.keys, found.rows, found.slots
        self._most_rows = FOLD_ROWS

    def _keys_of(self, batch: Batch) -> list[Row] | Fold:
        """How a batch's keys and values are written: as rows of ``redo``, or by a fold."""
        kv = batch.kv
        count = sum(map(len, kv.values()))
        room = SLOTS - self._slot
        if self._pending_rows + count > self._most_rows or not room:
            return self._fold_with(batch, due=True)
        if batch.cleared or self.full:
            return self._fold_with(batch, due=False)
        data = _packb(list(kv.items()))
        size = len(data)
        seq, slot = batch.seq, self._slot
        parts = -(-size // ROW_BYTES)
        if parts > 1 and (parts > min(room, _MOST_ROWS) or size > count * VALUE_BYTES):
            return self._fold_with(batch, due=False)
        rows = []
        for part in range(parts):
            piece = data[part * ROW_BYTES : (part + 1) * ROW_BYTES]
            size = len(piece)
            piece = piece.ljust(ROW_BYTES, b"\0")
            rows.append((slot + part, seq, part, parts, size, piece, redo_sum(seq, part, parts, size, piece)))
        return rows

    def _fold_with(self, batch: Batch, *, due: bool) -> Fold:
        """What is pending, and the batch's own keys and values over it."""
        keys = dict(self._pending)  # which stays as it is: the commit may fail
        for actor in batch.cleared:
            keys.pop(actor, None)
        for actor, items in batch.kv.items():
            keys[actor] = {**keys[actor], **items} if actor in keys else items
        return Fold(keys, due=due)

    def _write_keys(self, keys: list[Row] | Fold, seq: int) -> None:
        """In the transaction of commit ``seq``."""
        if isinstance(keys, Fold):
            self._write_fold(keys, seq)
        else:
            self._cursor.executemany(_PUT_ROW, keys)

    def _keys_written(self, batch: Batch, keys: list[Row] | Fold) -> None:
        """That commit stands."""
        if isinstance(keys, Fold):
            self._folded_at(batch.seq)
            return
        self._slot += len(keys)
        for actor, items in batch.kv.items():
            merge(self._pending, actor, items)
            self._pending_rows += len(items)

    def _write_fold(self, fold: Fold, seq: int) -> None:
        began = monotonic()
        if fold.deletes:
            self._cursor.executemany(_DELETE_KEY, fold.deletes)
        if fold.puts:
            self._cursor.executemany(_PUT_KEY, fold.puts)
        self._cursor.execute(_SEQ, (seq, schema.meta_sum("commit_seq", seq), self._folded))
        if self._conn.changes() != 1:
            raise InvariantViolated(f"{self.path} was not folded at commit {self._folded}")
        if not fold.due:
            return  # it may be of a few keys, or of large values: nothing follows for the others
        took = monotonic() - began
        if took > FOLD_SECONDS:
            self._most_rows = max(self._most_rows // 2, FOLD_ROWS_LEAST)
        elif took < FOLD_SECONDS / 4:
            self._most_rows = min(self._most_rows * 2, FOLD_ROWS)

    def _fold_alone(self) -> None:
        """Leave everything in ``kv``, for whoever reads the database without us. A full disk keeps it where it is."""
        if not self._slot or self.full:
            return
        try:
            self._cursor.execute("BEGIN IMMEDIATE")
            self._write_fold(Fold(self._pending, due=False), self.commit_seq)
            self._cursor.execute("COMMIT")
        except apsw.Error as error:
            if not is_full(self._conn, error):
                raise self._break("folding", error) from error
            if self._conn.in_transaction:
                self._cursor.execute("ROLLBACK")
            return
        self._folded_at(self.commit_seq)

    def _folded_at(self, seq: int) -> None:
        self._folded = seq
        self._pending = {}
        self._pending_rows = self._slot = 0
