"""Messages between actors: what this shard's actors have sent, and which of other shards' have taken effect here.

1. ``outbox`` holds what is not known to have arrived. A message is *queued* (to be delivered as soon as may be, or to
   be tried again), *delayed* (not before ``due``; it gets a new id when it is released) or *parked* (it has failed).
2. Ids grow and are never given twice: the upper bits are the store's epoch, which is new with every opening that
   commits something, the lower ones count within it. So no counter is stored.
3. ``inbox`` names messages of other shards whose effect is in this shard: the row comes in the commit of the effect.
   Those below a floor, under which the sending shard never delivers again, are removed, a few with each commit.
4. A row whose checksum does not fit is never returned. A listing leaves it out, so that it holds up no other message,
   and says so in the log, once for each.
5. Both tables are written by ``SqliteStore.write``, in the transaction of their batch.

Queued messages are found by id, or by sender and receiver; delayed ones by due time; parked ones by id: neither the
number of those that wait for later nor of those that have failed makes another one slower to find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from zlib import crc32

import apsw
from actord.errors import InvariantViolated, StoreCorrupt
from actord.storage import schema
from actord.storage.api import Batch, Message, MessageEntry
from actord.storage.reads import SqliteReads

COUNT_BITS = 40  # messages of one epoch; above it there is room for eight million epochs
PAGE_BYTES = 1024 * 1024  # of arguments: a page that has them ends
REMOVED_AT_ONCE = 256  # rows below a floor, with one commit

QUEUED = "error IS NULL AND (due = 0 OR attempts > 0)"
DELAYED = "error IS NULL AND due > 0 AND attempts = 0"

_PUT = (
    "REPLACE INTO outbox (id, sender, type, name, method, args, due, attempts, error, sum) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_DELETE = "DELETE FROM outbox WHERE id = ?"
_RECEIVED = "REPLACE INTO inbox (shard, id, sum) VALUES (?, ?, ?)"
_REMOVE = (
    "DELETE FROM inbox WHERE shard = ?1 AND id IN "
    f"(SELECT id FROM inbox WHERE shard = ?1 AND id < ?2 ORDER BY id LIMIT {REMOVED_AT_ONCE})"
)
# Texts come as bytes: one that rot made undecodable would end a listing for all of them.
_FIELDS = (
    "id, sender, CAST(type AS BLOB), CAST(name AS BLOB), CAST(method AS BLOB), args, due, attempts, "
    "CAST(error AS BLOB), sum"
)
# By id alone, so that a page is bounded work also among many that are not queued.
_NEXT = f"SELECT {_FIELDS}, {QUEUED} FROM outbox WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
_PAIR = (
    f"SELECT {_FIELDS} FROM outbox INDEXED BY outbox_pair WHERE {QUEUED} "
    "AND sender = ? AND type = ? AND name = ? AND id > ? AND id <= ? ORDER BY id LIMIT ?"
)
_DUE = (
    f"SELECT {_FIELDS} FROM outbox INDEXED BY outbox_delayed WHERE {DELAYED} AND due <= ? AND (due, id) > (?, ?) "
    "ORDER BY due, id LIMIT ?"
)
_ONE = f"SELECT {_FIELDS} FROM outbox WHERE id = ?"
_ALL = f"SELECT {_FIELDS} FROM outbox WHERE id > ? ORDER BY id LIMIT ?"
_PARKED = (
    f"SELECT {_FIELDS} FROM outbox INDEXED BY outbox_parked WHERE error IS NOT NULL AND id > ? ORDER BY id LIMIT ?"
)
_WHOSE = "SELECT slot, CAST(type AS BLOB), CAST(name AS BLOB), sum FROM actor WHERE id = ?"
_WAS_RECEIVED = "SELECT sum FROM inbox WHERE shard = ? AND id = ?"


def message_sum(message: Message) -> int:
    """CRC-32 over everything that a row says."""
    id_, sender, type_, name, method, args, due, attempts, error = message
    words = f"{id_} {sender} {due} {attempts} {type_}\0{name}\0{method}\0{'-' if error is None else '+' + error}"
    return crc32(args, crc32(words.encode()))


def inbox_sum(shard: int, id_: int) -> int:
    return crc32(b"%d %d" % (shard, id_))


def bytes_of(batch: Batch) -> int:
    """What a batch adds here, in bytes; 0 when it only removes."""
    added = sum(len(m.args) + len(m.name) + 100 for m in batch.outbox.values() if m is not None)
    return added + 32 * len(batch.inbox)


def apply(executemany: Callable[..., Any], batch: Batch) -> None:
    """Write a batch's messages, by primary key."""
    if batch.outbox:
        puts, deletes = [], []
        for id_, message in sorted(batch.outbox.items()):
            if message is None:
                deletes.append((id_,))
            else:
                puts.append((*message, message_sum(message)))
        if deletes:
            executemany(_DELETE, deletes)
        if puts:
            executemany(_PUT, puts)
    if batch.inbox:
        executemany(_RECEIVED, [(shard, id_, inbox_sum(shard, id_)) for shard, id_ in sorted(batch.inbox)])
    if batch.floors:
        executemany(_REMOVE, sorted(batch.floors.items()))


class SqliteOutbox(SqliteReads):
    """The part of ``SqliteStore`` that reads messages."""

    epoch: int
    _messages: int  # given an id in this epoch
    _damaged_messages: set[int]  # reported ones

    def next_message_id(self) -> int:
        self._messages += 1
        if self._messages >> COUNT_BITS:
            raise InvariantViolated(f"more than 2^{COUNT_BITS} messages in one epoch of {self.path}")
        return self.epoch << COUNT_BITS | self._messages

    def queued_messages(self, *, after: int, until: int, limit: int) -> tuple[list[Message], int]:
        found: list[Message] = []
        rows, size = 0, 0
        for row in self._rows(_NEXT, (after, until, limit)):
            rows += 1
            after = row[0]
            if row[10] and (message := self._checked(row[:10])) is not None:
                found.append(message)
                size += len(message.args)
                if size > PAGE_BYTES:
                    return found, after
        return found, until if rows < limit else after

    def pair_messages(
        self, sender: int, type_: str, name: str, *, after: int, until: int, limit: int
    ) -> tuple[list[Message], bool]:
        found = self._messages_of(self._rows(_PAIR, (sender, type_, name, after, until, limit + 1)))
        return found[:limit], len(found) <= limit

    def delayed_messages(self, *, until: int, limit: int, after: tuple[int, int] = (-1, 0)) -> list[Message]:
        return self._messages_of(self._rows(_DUE, (until, *after, limit)))

    def read_message(self, id_: int) -> Message | None:
        found = self._messages_of(self._rows(_ONE, (id_,)))
        return found[0] if found else None

    def list_messages(self, *, parked: bool, after: int, limit: int) -> list[MessageEntry]:
        messages = self._messages_of(self._rows(_PARKED if parked else _ALL, (after, limit)))
        return [MessageEntry(*self._whose(message.sender), message) for message in messages]

    def was_received(self, shard: int, id_: int) -> bool:
        for (sum_,) in self._rows(_WAS_RECEIVED, (shard, id_)):
            if sum_ != inbox_sum(shard, id_):
                raise StoreCorrupt(f"The note of message {shard}/{id_} in {self.path} fails its checksum.")
            return True
        return False

    def _rows(self, query: str, bindings: tuple[Any, ...]) -> Iterable[Any]:
        if self._broken is not None:
            raise self._refuse()
        cursor = self._conn.cursor()
        try:
            yield from cursor.execute(query, bindings)
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
        finally:
            # An unfinished statement holds a read transaction, and that keeps the log from starting over.
            cursor.close(True)

    def _messages_of(self, rows: Iterable[Any]) -> list[Message]:
        found, size = [], 0
        for row in rows:
            message = self._checked(row)
            if message is not None:
                found.append(message)
                size += len(message.args)
                if size > 64 * PAGE_BYTES:
                    break
        return found

    def _checked(self, row: tuple[Any, ...]) -> Message | None:
        id_, sender, type_, name, method, args, due, attempts, error, sum_ = row
        texts = [None if text is None else text.decode(errors="backslashreplace") for text in (type_, name, method)]
        why = None if error is None else error.decode(errors="backslashreplace")
        if type(args) is bytes and None not in texts:
            message = Message(id_, sender, str(texts[0]), str(texts[1]), str(texts[2]), args, due, attempts, why)
            if message_sum(message) == sum_:
                return message
        if id_ not in self._damaged_messages:
            self._damaged_messages.add(id_)
            self._log.critical(
                "message %s to %s/%r in %s fails its checksum and is not delivered", id_, *texts[:2], self.path
            )
        return None

    def _whose(self, actor: int) -> tuple[str, str]:
        for slot, type_, name, sum_ in self._rows(_WHOSE, (actor,)):
            texts = type_.decode(errors="backslashreplace"), name.decode(errors="backslashreplace")
            if schema.actor_sum(actor, slot, *texts) == sum_:
                return texts
        return "?", str(actor)
