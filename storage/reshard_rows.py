"""From the databases of the old shards to one new shard: every row checked, and given to its actor's new id.

Ids of actors belong to a shard, and every checksum begins with one: rows are checked under their old id and summed anew
under the new one. A row that fails its checksum ends the copy with ``StoreCorrupt``: it is not carried over as good.

Messages between actors: what has taken effect in its receiver's shard and was not yet removed from the sender's (its
inbox says so) is left out, the rest gets new ids in the old order, and the inboxes begin anew. So each message takes
effect once, as before. Numbers of events, fences and times of replies go on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import apsw
from actord.errors import StoreCorrupt
from actord.storage import pages, schema
from actord.storage.alarms import alarm_sum
from actord.storage.api import Alarm, Message, Reply
from actord.storage.events import event_sum, log_sum
from actord.storage.outbox import COUNT_BITS, inbox_sum, message_sum
from actord.storage.replies import entry_sum, reply_sum
from actord.storage.versions import version_sum

CHUNK = 2000

Ids = dict[int, int]  # old id of an actor -> new one
Progress = Callable[[int], None]


def open_old(path: str) -> apsw.Connection:
    """A database that was closed cleanly, for reading: nobody writes to it, and nothing is made beside it."""
    name = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return apsw.Connection(f"file:{name}?immutable=1", flags=flags)


class Source:
    """One old shard, and the actors of it that the new shard takes."""

    def __init__(self, number: int, conn: apsw.Connection, slots: range) -> None:
        self.number = number
        self.conn = conn
        self.slots = slots
        self.ids: Ids = {}

    def rows(self, query: str) -> Iterator[Any]:
        """The rows of a query that begin with the id of an actor which is taken."""
        ids = self.ids
        for row in self.conn.execute(query):
            if row[0] in ids:
                yield row

    def bad(self, what: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{what} in shard {self.number} fails its checksum. The old data are as they were: see what "
            "`actord doctor` says, and restore a backup."
        )


class NewShard:
    """A database under construction. ``copy`` fills it; the caller has made its tables.

    Nothing is ever rolled back: a database that could not be filled is removed (so it needs no journal, and the first
    error is the one that is told).
    """

    def __init__(
        self, conn: apsw.Connection, sources: Sequence[Source], received: Callable[[Message, int], bool]
    ) -> None:
        self._conn = conn
        self._sources = sources
        self._received = received
        self._told: Progress = lambda rows: None
        self.rows = 0

    def copy(self, told: Progress) -> None:
        """Everything but ``meta``. ``told`` hears how many rows were copied so far. Raises ``StoreCorrupt``."""
        self._told = told
        self._actors()
        for source in self._sources:
            for table in (self._kv, self._pages, self._alarms, self._events, self._event_logs, self._versions):
                table(source)
        self._replies()
        self._messages()

    def _write(self, query: str, rows: Iterable[tuple[Any, ...]]) -> None:
        rest = iter(rows)
        while chunk := list(islice(rest, CHUNK)):
            self._conn.execute("BEGIN")
            self._conn.executemany(query, chunk)
            self._conn.execute("COMMIT")
            self.rows += len(chunk)
            self._told(self.rows)

    def _actors(self) -> None:
        last = 0

        def rows() -> Iterator[tuple[Any, ...]]:
            nonlocal last
            for source in self._sources:
                for id_, slot, type_, name, sum_ in source.conn.execute(
                    "SELECT id, slot, type, name, sum FROM actor ORDER BY id"
                ):
                    if slot not in source.slots:
                        continue
                    if schema.actor_sum(id_, slot, type_, name) != sum_:
                        raise source.bad(f"The entry of {type_}/{name!r}")
                    last += 1
                    source.ids[id_] = last
                    yield last, slot, type_, name, schema.actor_sum(last, slot, type_, name)

        self._write("INSERT INTO actor (id, slot, type, name, sum) VALUES (?, ?, ?, ?, ?)", rows())

    def _kv(self, source: Source) -> None:
        def rows() -> Iterator[tuple[Any, ...]]:
            for actor, key, value, sum_ in source.rows("SELECT actor, key, value, sum FROM kv ORDER BY actor, key"):
                if schema.row_sum(actor, key, value) != sum_:
                    raise source.bad(f"The value of actor {actor}, key {key!r},")
                new = source.ids[actor]
                yield new, key, value, schema.row_sum(new, key, value)

        self._write("INSERT INTO kv (actor, key, value, sum) VALUES (?, ?, ?, ?)", rows())

    def _pages(self, source: Source) -> None:
        def rows() -> Iterator[tuple[Any, ...]]:
            for id_, data, sum_ in source.conn.execute("SELECT id, data, sum FROM page ORDER BY id"):
                actor, number = id_ >> pages.NUMBER_BITS, id_ & pages.LAST_NUMBER
                if actor not in source.ids:
                    continue
                if pages.page_sum(id_, data) != sum_:
                    raise source.bad(f"Page {number} of the SQL database of actor {actor}")
                new = source.ids[actor] << pages.NUMBER_BITS | number
                yield new, data, pages.page_sum(new, data)

        self._write("INSERT INTO page (id, data, sum) VALUES (?, ?, ?)", rows())

    def _alarms(self, source: Source) -> None:
        def rows() -> Iterator[tuple[Any, ...]]:
            query = "SELECT actor, due, scheduled, retries, error, sum FROM alarm ORDER BY actor"
            for actor, *fields, sum_ in source.rows(query):
                alarm = Alarm(*fields)
                if alarm_sum(actor, alarm) != sum_:
                    raise source.bad(f"The alarm of actor {actor}")
                yield source.ids[actor], *alarm, alarm_sum(source.ids[actor], alarm)

        self._write("INSERT INTO alarm (actor, due, scheduled, retries, error, sum) VALUES (?, ?, ?, ?, ?, ?)", rows())

    def _events(self, source: Source) -> None:
        def rows() -> Iterator[tuple[Any, ...]]:
            query = "SELECT actor, seq, kind, data, until, batch, sum FROM event ORDER BY actor, seq"
            for actor, seq, kind, data, until, batch, sum_ in source.rows(query):
                if event_sum(actor, seq, kind.encode(), data, until, batch) != sum_:
                    raise source.bad(f"Event {seq} of actor {actor}")
                new = source.ids[actor]
                yield new, seq, kind, data, until, batch, event_sum(new, seq, kind.encode(), data, until, batch)

        query = "INSERT INTO event (actor, seq, kind, data, until, batch, sum) VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._write(query, rows())

    def _event_logs(self, source: Source) -> None:
        def rows() -> Iterator[tuple[Any, ...]]:
            for actor, first, last, sum_ in source.rows("SELECT actor, first, last, sum FROM event_log ORDER BY actor"):
                if log_sum(actor, first, last) != sum_:
                    raise source.bad(f"The log of events of actor {actor}")
                yield source.ids[actor], first, last, log_sum(source.ids[actor], first, last)

        self._write("INSERT INTO event_log (actor, first, last, sum) VALUES (?, ?, ?, ?)", rows())

    def _versions(self, source: Source) -> None:
        def rows() -> Iterator[tuple[Any, ...]]:
            for actor, version, sum_ in source.rows("SELECT actor, version, sum FROM version ORDER BY actor"):
                if version_sum(actor, version) != sum_:
                    raise source.bad(f"The version of actor {actor}")
                yield source.ids[actor], version, version_sum(source.ids[actor], version)

        self._write("INSERT INTO version (actor, version, sum) VALUES (?, ?, ?)", rows())

    def _replies(self) -> None:
        """In the order of their age over all sources. The index is filled by the store: it reads what it lacks."""
        found: list[tuple[int, int, int]] = []  # time, source, id: keys and bodies are read again
        for place, source in enumerate(self._sources):
            query = "SELECT actor, at, id FROM reply ORDER BY id"
            found += [(at, place, id_) for _, at, id_ in source.rows(query)]
        found.sort()
        entries: dict[tuple[int, str], int] = {}

        def rows() -> Iterator[tuple[Any, ...]]:
            query = "SELECT actor, key, at, digest, status, head, body, sum FROM reply WHERE id = ?"
            for number, (_, place, id_) in enumerate(found, 1):
                source = self._sources[place]
                for actor, key, *fields, sum_ in source.conn.execute(query, (id_,)):
                    reply = Reply(*fields)
                    if reply_sum(actor, key, reply) != sum_:
                        raise source.bad(f"The reply of actor {actor} for the key {key!r}")
                    new = source.ids[actor]
                    entries[new, key] = number  # the youngest, where a key was used anew
                    yield number, new, key, *reply, reply_sum(new, key, reply)

        self._write(
            "INSERT INTO reply (id, actor, key, at, digest, status, head, body, sum) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows(),
        )
        if found:
            entries[0, ""] = len(found)
        self._write(
            "INSERT INTO reply_key (actor, key, id, sum) VALUES (?, ?, ?, ?)",
            ((*place, id_, entry_sum(*place, id_)) for place, id_ in sorted(entries.items())),
        )

    def _messages(self) -> None:
        epoch = max((schema.last_epoch(source.conn) for source in self._sources), default=0)
        count = 0

        def rows() -> Iterator[tuple[Any, ...]]:
            nonlocal count
            query = (
                "SELECT sender, id, type, name, method, args, due, attempts, error, sum FROM outbox "
                "NOT INDEXED ORDER BY id"
            )
            for source in self._sources:
                for sender, id_, *fields, sum_ in source.rows(query):
                    message = Message(id_, sender, *fields)
                    if message_sum(message) != sum_:
                        raise source.bad(f"Message {id_}")
                    if self._received(message, source.number):
                        continue
                    count += 1
                    new = message._replace(id=epoch << COUNT_BITS | count, sender=source.ids[sender])
                    yield *new, message_sum(new)

        self._write(
            "INSERT INTO outbox (id, sender, type, name, method, args, due, attempts, error, sum) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows(),
        )


def was_received(conn: apsw.Connection, sender: int, id_: int) -> bool:
    """Whether the inbox of the receiver's old shard says that a message of shard ``sender`` has taken effect there."""
    sum_: Any = conn.execute("SELECT sum FROM inbox WHERE shard = ? AND id = ?", (sender, id_)).get
    if sum_ is not None and sum_ != inbox_sum(sender, id_):
        raise StoreCorrupt(f"The note of message {sender}/{id_} fails its checksum. Nothing was changed.")
    return sum_ is not None
