"""The rows of one shard under examination: each checksum, each owner, each actor's SQL database. Part of the doctor.

Texts are read as bytes and numbers only as numbers: what rotted into another type or into no text at all is a finding
and not the end of the examination.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any
from zlib import crc32

import apsw
from actord.errors import StoreCorrupt
from actord.storage import pages, redo
from actord.storage.alarms import alarm_sum
from actord.storage.api import Alarm, Message, Reply
from actord.storage.events import event_sum, log_sum
from actord.storage.outbox import inbox_sum, message_sum
from actord.storage.replies import entry_sum, reply_sum
from actord.storage.versions import version_sum
from actord.storage.view import open_view

if TYPE_CHECKING:
    from actord.storage.doctor_shard import _Shard

SQL_PAGE_BYTES = 1024  # as shards/sql_vfs.py has it; the end of each is not stored
# The last two: where the table itself is described wrongly, anything may stand in a column.
_UNREADABLE = (apsw.Error, UnicodeDecodeError, OverflowError, TypeError, ValueError)
_NAMES = "SELECT name FROM sqlite_schema WHERE type = 'table'"
_NOBODY = "rows that belong to nobody"
# In the order of the examination.
_TABLES = (
    "actor",
    "kv",
    "redo",
    "page",
    "alarm",
    "event",
    "event_log",
    "reply",
    "reply_key",
    "outbox",
    "inbox",
    "version",
)


def _typed(column: str, type_: str) -> str:
    return f"CASE typeof({column}) WHEN '{type_}' THEN {column} END"


def _text(column: str) -> str:
    return f"CASE typeof({column}) WHEN 'text' THEN CAST({column} AS BLOB) END"


_ACTOR = (
    f"SELECT id, {_typed('slot', 'integer')}, {_text('type')}, {_text('name')}, {_typed('sum', 'integer')} "
    "FROM actor NOT INDEXED ORDER BY id"
)
_KV = "SELECT {}, {}, {}, {} FROM kv".format(
    _typed("actor", "integer"), _text("key"), _typed("value", "blob"), _typed("sum", "integer")
)
_PAGE = f"SELECT id, {_typed('data', 'blob')}, {_typed('sum', 'integer')} FROM page ORDER BY id"
_ALARM = (
    f"SELECT actor, {_typed('due', 'integer')}, {_typed('scheduled', 'integer')}, {_typed('retries', 'integer')}, "
    f"CAST(error AS BLOB), {_typed('sum', 'integer')} FROM alarm NOT INDEXED"
)
_EVENT = (
    f"SELECT {_typed('actor', 'integer')}, {_typed('seq', 'integer')}, {_text('kind')}, {_typed('data', 'blob')}, "
    f"{_typed('until', 'integer')}, {_typed('batch', 'integer')}, {_typed('sum', 'integer')} FROM event NOT INDEXED"
)
_EVENT_LOG = (
    f"SELECT actor, {_typed('first', 'integer')}, {_typed('last', 'integer')}, {_typed('sum', 'integer')} "
    "FROM event_log"
)
_OUTBOX = (
    f"SELECT id, {_typed('sender', 'integer')}, {_text('type')}, {_text('name')}, {_text('method')}, "
    f"{_typed('args', 'blob')}, {_typed('due', 'integer')}, {_typed('attempts', 'integer')}, CAST(error AS BLOB), "
    f"{_typed('sum', 'integer')} FROM outbox NOT INDEXED"
)
_INBOX = f"SELECT {_typed('shard', 'integer')}, {_typed('id', 'integer')}, {_typed('sum', 'integer')} FROM inbox"
_ALARM_TEXTS = "SELECT count(*) FROM alarm NOT INDEXED WHERE typeof(error) NOT IN ('text', 'null')"
_REPLY = "SELECT {}, {}, {}, {}, {}, {}, {}, {} FROM reply NOT INDEXED".format(
    _typed("actor", "integer"),
    _text("key"),
    _typed("at", "integer"),
    _typed("digest", "blob"),
    _typed("status", "integer"),
    "CASE typeof(head) WHEN 'blob' THEN head WHEN 'null' THEN NULL ELSE 0 END",
    _typed("body", "blob"),
    _typed("sum", "integer"),
)


_REPLY_KEY = "SELECT {}, {}, {}, {} FROM reply_key".format(
    _typed("actor", "integer"), _text("key"), _typed("id", "integer"), _typed("sum", "integer")
)
_LOST_REPLIES = (
    "SELECT actor FROM reply WHERE id <= (SELECT id FROM reply_key WHERE actor = 0) AND NOT EXISTS (SELECT 1 FROM "
    "reply_key AS entry WHERE entry.actor = reply.actor AND entry.key = reply.key AND entry.id >= reply.id)"
)
_LOST_ENTRIES = (
    "SELECT actor FROM reply_key AS entry WHERE actor <> 0 AND NOT EXISTS (SELECT 1 FROM reply WHERE "
    "reply.id = entry.id AND reply.actor = entry.actor AND reply.key = entry.key)"
)


class Rows:
    def __init__(self, shard: _Shard, conn: apsw.Connection) -> None:
        self._shard = shard
        self._conn = conn
        self._actors: dict[int, bytes] = {}  # id -> type/name, of entries that could be read
        self._events: dict[int, tuple[int, int, int]] = {}  # actor -> first, last, how many

    def examine(self) -> None:
        try:
            found: set[Any] = {
                row[0] for row in self._conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            }
        except _UNREADABLE:
            found = set(_TABLES)
        for table in _TABLES:
            if table not in found and table not in ("actor", "kv"):
                continue  # an older format; where it should be there, the schema's check has said so
            try:
                getattr(self, f"_examine_{table}")()
            except _UNREADABLE as error:
                self._shard.damage(f"The table {table} can't be read to its end: {error}.")

    def _query(self, query: str) -> Iterator[Any]:
        for row in self._conn.execute(query):
            self._shard.report.rows += 1
            yield row

    def _who(self, actor: int) -> str:
        name = self._actors.get(actor)
        return f"actor {actor}" + ("" if name is None else f" ({name.decode(errors='backslashreplace')!r})")

    def _owned(self, actor: int, what: str, owners: set[int]) -> None:
        if actor not in self._actors and actor not in owners:
            owners.add(actor)
            self._shard.damage(
                f"There are {what} of actor {actor}, which has no entry.", kind="rows that belong to nobody"
            )

    def _bad(self, what: str) -> None:
        self._shard.damage(f"{what} fails its checksum: reading it is refused.", kind="rows that fail their checksums")

    def _examine_actor(self) -> None:
        shard = self._shard
        for id_, slot, type_, name, sum_ in self._query(_ACTOR):
            shard.report.actors += 1
            if None in (slot, type_, name, sum_) or crc32(b"%d\0%s\0%s" % (slot, type_, name), id_) != sum_:
                self._bad(f"The entry of {self._who(id_)}")
                self._actors[id_] = b"?" if name is None or type_ is None else type_ + b"/" + name
                continue
            self._actors[id_] = type_ + b"/" + name
            if shard.slot_of(type_.decode(), name.decode()) != slot or (shard.slots and slot not in shard.slots):
                shard.damage(
                    f"{self._who(id_)} stands in slot {slot}, where nobody looks for it.", kind="actors in a wrong slot"
                )

    def _examine_kv(self) -> None:
        nobody: set[int] = set()
        for actor, key, value, sum_ in self._query(_KV):
            if None in (actor, key, value, sum_) or crc32(value, crc32(key, actor)) != sum_:
                name = b"?" if key is None else key
                self._bad(f"The value of {self._who(actor)}, key {name.decode(errors='backslashreplace')!r},")
            else:
                self._owned(actor, "values", nobody)

    def _examine_redo(self) -> None:
        nobody: set[int] = set()
        try:
            newest = redo.behind(redo.main(self._conn), self._shard.file)
        except StoreCorrupt as error:
            self._shard.damage(error.detail)
            return
        self._shard.report.rows += newest.entries
        for actor in newest.pending():
            self._owned(actor, "values", nobody)
        if newest.rotten:
            self._shard.damage(
                f"Of the rows that kept commits until they were folded, {newest.rotten} fail their checksum.",
                "Nothing is lost: they were not needed any more. What rotted here may have rotted elsewhere: check "
                "the disk.",
            )

    def _examine_page(self) -> None:
        nobody: set[int] = set()
        for id_, data, sum_ in self._query(_PAGE):
            actor, number = id_ >> pages.NUMBER_BITS, id_ & pages.LAST_NUMBER
            if None in (data, sum_) or pages.page_sum(id_, data) != sum_:
                self._bad(f"Page {number} of the SQL database of {self._who(actor)}")
            else:
                self._owned(actor, "SQL pages", nobody)

    def _examine_alarm(self) -> None:
        nobody: set[int] = set()
        for actor, due, scheduled, retries, error, sum_ in self._query(_ALARM):
            text = None if error is None else error.decode(errors="backslashreplace")
            if (
                None in (due, scheduled, retries, sum_)
                or alarm_sum(actor, Alarm(due, scheduled, retries, text)) != sum_
            ):
                self._bad(f"The alarm of {self._who(actor)}")
            else:
                self._owned(actor, "an alarm", nobody)
        wrong: Any = self._conn.execute(_ALARM_TEXTS).get
        if wrong:
            self._bad("The error text of a failed alarm")

    def _examine_event(self) -> None:
        nobody: set[int] = set()
        for row in self._query(_EVENT):
            actor, seq = row[:2]
            if None in row or event_sum(*row[:6]) != row[6]:
                self._bad(f"Event {seq} of {self._who(actor)}")
            else:
                self._owned(actor, "events", nobody)
            if actor is not None and seq is not None:
                first, last, count = self._events.get(actor, (seq, seq, 0))
                self._events[actor] = min(first, seq), max(last, seq), count + 1

    def _examine_event_log(self) -> None:
        nobody: set[int] = set()
        kind = "events that do not follow each other"
        for actor, first, last, sum_ in self._query(_EVENT_LOG):
            if None in (first, last, sum_) or log_sum(actor, first, last) != sum_:
                self._bad(f"The log of events of {self._who(actor)}")
                self._events.pop(actor, None)
                continue
            self._owned(actor, "a log of events", nobody)
            found = self._events.pop(actor, (first, last, 0))
            if found != (first, last, last - first + 1):
                self._shard.damage(
                    f"{self._who(actor)} has {found[2]} events from {found[0]} to {found[1]}; its log says that they "
                    f"are all from {first} to {last}.",
                    kind=kind,
                )
        for actor in self._events:
            self._shard.damage(f"There are events of {self._who(actor)}, and no log of them.", kind=kind)

    def _examine_reply(self) -> None:
        nobody: set[int] = set()
        for actor, key, at, digest, status, head, body, sum_ in self._query(_REPLY):
            if (
                None in (actor, key, at, digest, status, body, sum_)
                or head == 0
                or reply_sum(actor, key.decode(errors="backslashreplace"), Reply(at, digest, status, head, body))
                != sum_
            ):
                shown = "?" if key is None else key.decode(errors="backslashreplace")
                self._bad(f"The reply of {self._who(actor)} for the idempotency key {shown!r}")
            else:
                self._owned(actor, "replies", nobody)

    def _examine_reply_key(self) -> None:
        for actor, key, id_, sum_ in self._query(_REPLY_KEY):
            if None in (actor, key, id_, sum_) or entry_sum(actor, key.decode(errors="backslashreplace"), id_) != sum_:
                self._bad(f"An entry of the index of the replies of {self._who(actor)}")
        for query, what in ((_LOST_REPLIES, "a reply that the index lacks"), (_LOST_ENTRIES, "an entry of no reply")):
            for (actor,) in self._conn.execute(query):
                self._shard.damage(
                    f"{self._who(actor)} has {what}.", kind="replies and their index that do not fit each other"
                )

    def _examine_outbox(self) -> None:
        nobody: set[int] = set()
        for row in self._query(_OUTBOX):
            id_, sender, _type, _name, _method, args, due, attempts, error, sum_ = row
            texts = [None if text is None else text.decode(errors="backslashreplace") for text in row[2:5]]
            why = None if error is None else error.decode(errors="backslashreplace")
            if None in (sender, args, due, attempts, sum_, *texts) or sum_ != message_sum(
                Message(id_, sender, str(texts[0]), str(texts[1]), str(texts[2]), args, due, attempts, why)
            ):
                self._bad(f"Message {id_}")
            else:
                self._owned(sender, "messages", nobody)

    def _examine_inbox(self) -> None:
        for shard, id_, sum_ in self._query(_INBOX):
            if None in (shard, id_, sum_) or inbox_sum(shard, id_) != sum_:
                self._bad(f"The note that message {id_} of shard {shard} has come")

    def _examine_version(self) -> None:
        nobody: set[int] = set()
        query = f"SELECT actor, {_typed('version', 'integer')}, {_typed('sum', 'integer')} FROM version"
        for actor, version, sum_ in self._query(query):
            if None in (version, sum_) or version_sum(actor, version) != sum_:
                self._bad(f"The version of the data of {self._who(actor)}")
            else:
                self._owned(actor, "a version of data", nobody)

    # -- the actors' own SQL databases

    def examine_sql(self) -> None:
        """SQLite's own check of each actor's database."""
        last = pages.LAST_NUMBER
        counts: list[Any] = []
        try:
            query = f"SELECT id >> {pages.NUMBER_BITS}, max(id & {last}) FROM page GROUP BY 1"
            counts = self._conn.execute(query).fetchall()
        except _UNREADABLE as error:
            self._shard.damage(f"The SQL databases can't be counted: {error}.")
        for done, (actor, count) in enumerate(counts):
            self._shard.progress(f"shard {self._shard.number}: SQL databases", done / len(counts))
            try:
                conn = open_view(partial(self._sql_page, actor), SQL_PAGE_BYTES, count)
                try:
                    problems = [str(row[0]) for row in conn.execute("PRAGMA integrity_check(5)")]
                finally:
                    conn.close(True)
            except _UNREADABLE as error:
                problems = [str(error)]
            if problems != ["ok"]:
                self._shard.damage(
                    f"The SQL database of {self._who(actor)}: {'; '.join(problems)}", kind="damaged SQL databases"
                )

    def _sql_page(self, actor: int, number: int) -> bytes:
        found: Any = self._conn.execute(
            "SELECT data FROM page WHERE id = ?", (actor << pages.NUMBER_BITS | number,)
        ).get
        return found.ljust(SQL_PAGE_BYTES, b"\0") if type(found) is bytes else b""
