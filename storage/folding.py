"""How keys and values are written: first into ``redo``, where a commit's lie together, then into ``kv``, bit by bit.

1. A commit's keys and values become rows of the half of ``redo`` that is being filled (``storage.redo``).
2. Meanwhile the values of the other half are *folded* into ``kv``, in the order of its keys, since neighbours share
   pages: some commits take a few of them along in their transaction, as many as it takes for the one half to be folded
   when the other one is full, or holds ``MOST_ENTRIES`` keys. Then the halves change places, and whatever is left goes
   with that commit: all, where they are few. Folded all at once, many would hold up the commit for milliseconds.
3. What has a newer value in the half that is being filled is not folded: its turn comes with that one. Who writes the
   same keys again and again writes them into ``kv`` never.
4. Some commits fold everything at once, their own keys and values included: one whose values are too large to be
   written twice, one that clears an actor, and every one while the disk is full.
5. Where folding takes longer than ``STEP_SECONDS``, because pages of ``kv`` have to be read from the disk, it goes in
   smaller steps.
6. What is not in ``kv`` yet is known in memory: reads look there first (``storage.reads``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from time import monotonic
from zlib import crc32

import apsw
import ormsgpack
from actord.errors import InvariantViolated, StoreCorrupt
from actord.storage import schema
from actord.storage.api import Batch
from actord.storage.ballast import is_full
from actord.storage.reads import Pending, SqliteReads
from actord.storage.redo import HALF, behind, lay_over, main, merge, redo_sum

# Of a half: rows, which are pages, and keys in all its commits.
SLOTS = 512
MOST_ENTRIES = 8192
# A row fills its page, so that the one that takes its place does not move anything.
ROW_BYTES = 3900
# Values that are larger than that on average are not written twice.
VALUE_BYTES = 512
_MOST_ROWS = 16  # of one commit
# A half of so few keys, as of commits with one each, is folded whole by the commit that turns the halves: that is fewer
# than one commit in a hundred.
AT_ONCE = 512
# A commit that folds takes 0.2 ms for so many keys when the pages are in memory.
STEP = 128
STEP_LEAST = 4
STEP_SECONDS = 0.001

_PUT_ROW = "REPLACE INTO redo (slot, seq, part, parts, size, data, sum) VALUES (?, ?, ?, ?, ?, ?, ?)"
_PUT_KEY = "REPLACE INTO kv (actor, key, value, sum) VALUES (?, ?, ?, ?)"
_DELETE_KEY = "DELETE FROM kv WHERE actor = ? AND key = ?"
_SEQ = "UPDATE meta SET value = ?, sum = ? WHERE name = 'commit_seq' AND value = ?"

_packb = ormsgpack.packb

Row = tuple[int, int, int, int, int, bytes, int]  # as the table has it
Entry = tuple[int, str, bytes | None]


def in_order(keys: Pending) -> Iterator[Entry]:
    """As ``kv`` has them."""
    for actor in sorted(keys):
        items = keys[actor]
        # Code points sort like their UTF-8 bytes.
        for key in sorted(items):
            yield actor, key, items[key]


class Fold:
    """What a commit does to ``kv``."""

    __slots__ = ("bytes", "deletes", "puts", "stands")

    def __init__(self, entries: Iterable[Entry], stands: int | None) -> None:
        """``stands``: the commit that ``kv`` stands at then; None: at the one at which it stood before."""
        self.stands = stands
        self.bytes = 0
        self.puts: list[tuple[int, str, bytes, int]] = []
        self.deletes: list[tuple[int, str]] = []
        for actor, key, value in entries:
            if value is None:
                self.deletes.append((actor, key))
            else:
                self.puts.append((actor, key, value, crc32(value, crc32(key.encode(), actor))))
                self.bytes += len(key) + len(value)


class Writing:
    """How the keys and values of one commit are written."""

    __slots__ = ("count", "fold", "rows", "turns")

    def __init__(self, rows: list[Row], fold: Fold | None = None, count: int = 0, *, turns: bool = False) -> None:
        self.rows = rows  # none: the fold is of everything
        self.fold = fold
        self.count = count  # so many keys of the other half need not be folded any more
        self.turns = turns  # the halves change places


class SqliteFolding(SqliteReads):
    """The part of ``SqliteStore`` that writes keys and values."""

    commit_seq: int
    full: bool
    _folded: int  # ``commit_seq`` as ``meta`` has it
    # the half that is being filled; its values are ``_pending``
    _half: int
    _slot: int  # its next row
    _entries: int  # keys in all its commits
    # the other one; its values are ``_folding``
    _folding_seq: int  # its newest commit
    _rest: Iterator[Entry]  # what is left to be folded
    _keys: int  # that it has
    _done: int  # of these
    _step: int  # so many keys are folded at a time at least

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
        self._step, self._half = STEP, 0
        self._all_folded()
        if found.halves:
            newer = found.halves[-1]
            self._half, self._slot, self._entries, self._pending = newer.number, newer.slots, newer.entries, newer.keys
        if len(found.halves) == 2:
            self._fold_from(found.halves[0].keys, found.halves[0].seq)

    def _fold_from(self, keys: Pending, seq: int) -> None:
        """These are to be folded from now on; then ``kv`` stands at ``seq``."""
        self._folding, self._folding_seq = keys, seq
        self._rest = in_order(keys)
        self._keys, self._done = sum(map(len, keys.values())), 0

    def _keys_of(self, batch: Batch) -> Writing:
        """How a batch's keys and values are written."""
        kv = batch.kv
        if batch.cleared or self.full:
            return self._fold_all(batch)
        data = _packb(list(kv.items()))
        size = len(data)
        parts = -(-size // ROW_BYTES)
        count = sum(map(len, kv.values()))
        if parts > 1 and (parts > min(SLOTS, _MOST_ROWS) or size > count * VALUE_BYTES):
            return self._fold_all(batch)
        half, slot = self._half, self._slot
        turns = slot > 0 and (slot + parts > SLOTS or self._entries + count > MOST_ENTRIES)
        if turns:
            half, slot = 1 - half, 0
        slot += half * HALF
        rows = []
        for part in range(parts):
            piece = data[part * ROW_BYTES : (part + 1) * ROW_BYTES]
            size = len(piece)
            piece = piece.ljust(ROW_BYTES, b"\0")
            sum_ = redo_sum(batch.seq, part, parts, size, piece)
            rows.append((slot + part, batch.seq, part, parts, size, piece, sum_))
        left = self._keys - self._done
        if turns:
            # Of the other half nothing may count any more, even if it says nothing of keys.
            done = self._folded == self._folding_seq
            return Writing(rows, turns=True) if done else self._with_some(rows, left, turns=True)
        if left < self._step or self._keys <= AT_ONCE:
            return Writing(rows)
        owed = int(self._keys * max(self._slot / SLOTS, self._entries / MOST_ENTRIES)) - self._done
        return self._with_some(rows, owed) if owed >= self._step else Writing(rows)

    def _with_some(self, rows: list[Row], count: int, *, turns: bool = False) -> Writing:
        """These rows, and so many keys of the other half."""
        newest = self._pending
        entries = (
            entry for entry in islice(self._rest, count) if entry[0] not in newest or entry[1] not in newest[entry[0]]
        )
        stands = self._folding_seq if self._done + count == self._keys else None
        return Writing(rows, Fold(entries, stands), count, turns=turns)

    def _fold_all(self, batch: Batch) -> Writing:
        """Everything that is not in ``kv`` yet, and the batch's own keys and values over it."""
        keys = dict(self._folding)  # which stays as it is, like those below: the commit may fail
        lay_over(keys, self._pending)
        for actor in batch.cleared:
            keys.pop(actor, None)
        lay_over(keys, batch.kv)
        return Writing([], Fold(in_order(keys), batch.seq))

    def _write_keys(self, keys: Writing) -> None:
        """In the transaction of their commit."""
        if keys.rows:
            self._cursor.executemany(_PUT_ROW, keys.rows)
        if keys.fold is None:
            return
        began = monotonic()
        self._write_fold(keys.fold)
        if not keys.rows or keys.turns:
            return
        took = monotonic() - began
        if took > STEP_SECONDS:
            self._step = max(self._step // 2, STEP_LEAST)
        elif took < STEP_SECONDS / 4:
            self._step = min(self._step * 2, STEP)

    def _keys_written(self, batch: Batch, keys: Writing) -> None:
        """That commit stands."""
        fold = keys.fold
        if fold is not None and fold.stands is not None:
            self._folded = fold.stands
        if not keys.rows:
            self._all_folded()
            return
        self._done += keys.count
        if self._done == self._keys:
            self._folding = {}
        if keys.turns:
            self._half = 1 - self._half
            self._fold_from(self._pending, batch.seq - 1)
            self._pending, self._slot, self._entries = {}, 0, 0
        self._slot += len(keys.rows)
        for actor, items in batch.kv.items():
            merge(self._pending, actor, items)
            self._entries += len(items)

    def _keys_failed(self) -> None:
        """That commit does not: what it would have folded is still to be folded."""
        self._rest = islice(in_order(self._folding), self._done, None)

    def _write_fold(self, fold: Fold) -> None:
        if fold.deletes:
            self._cursor.executemany(_DELETE_KEY, fold.deletes)
        if fold.puts:
            self._cursor.executemany(_PUT_KEY, fold.puts)
        if fold.stands is None:
            return
        self._cursor.execute(_SEQ, (fold.stands, schema.meta_sum("commit_seq", fold.stands), self._folded))
        if self._conn.changes() != 1:
            raise InvariantViolated(f"{self.path} was not folded at commit {self._folded}")

    def _fold_alone(self) -> None:
        """Leave everything in ``kv``, for whoever reads the database without us. A full disk keeps it where it is."""
        if self._folded == self.commit_seq or self.full:
            return
        fold = self._fold_all(Batch(self.commit_seq)).fold
        assert fold is not None
        try:
            self._cursor.execute("BEGIN IMMEDIATE")
            self._write_fold(fold)
            self._cursor.execute("COMMIT")
        except apsw.Error as error:
            if not is_full(self._conn, error):
                raise self._break("folding", error) from error
            if self._conn.in_transaction:
                self._cursor.execute("ROLLBACK")
            return
        self._folded = self.commit_seq
        self._all_folded()

    def _all_folded(self) -> None:
        self._pending = {}
        self._slot = self._entries = 0
        self._fold_from({}, self._folded)
