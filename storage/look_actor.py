"""What is stored of actors, as a look at the files shows it: the names of a type, everything that one actor has.

A row whose checksum does not fit is ``StoreCorrupt``, as where a server reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from actord.errors import StoreCorrupt
from actord.storage import pages, schema
from actord.storage.alarms import alarm_sum
from actord.storage.api import Alarm
from actord.storage.look import Look
from actord.storage.versions import version_sum

_KEYS = "SELECT count(*), sum(length(CAST(key AS BLOB)) + length(value)) FROM temp.{}_kv WHERE actor = ?"
# Through the index, and the newest ones, which it lacks; see storage/replies.py.
_REPLIES = """
    SELECT count(DISTINCT key), sum(length(body) + length(key)) FROM (
        SELECT reply.id, reply.key, reply.body FROM {0}.reply_key AS entry JOIN {0}.reply ON reply.id = entry.id
            WHERE entry.actor = ?
        UNION SELECT id, key, body FROM {0}.reply
            WHERE actor = ? AND id > coalesce((SELECT id FROM {0}.reply_key WHERE actor = 0), 0)
    )
"""
SQL_PAGE_BYTES = 1024  # as shards/sql_vfs.py has it; the end of each is not stored


class Stored(NamedTuple):
    """One actor. Sizes in bytes of content, without what SQLite adds; times in milliseconds of wall clock."""

    shard: int
    id: int
    commit: int  # of its shard, that this is the state of
    version: int
    keys: int
    keys_bytes: int
    items: list[tuple[str, bytes]]  # the first keys in their order
    sql: bytes | None  # the image of its SQL database
    sql_bytes: int  # what is stored of it
    alarm: Alarm | None
    events: tuple[int, int, int]  # number of the oldest kept one, of the last ever, bytes
    replies: tuple[int, int]  # idempotency keys, bytes
    sent: tuple[int, int, int]  # messages that have not arrived, of them parked, bytes


def count_types(look: Look) -> dict[str, int]:
    """How many actors of each type have ever written something."""
    found: dict[str, int] = {}
    for shard in look.shards:
        for type_, count in look.rows(shard, "SELECT type, count(*) FROM {}.actor GROUP BY type"):
            found[type_] = found.get(type_, 0) + count
    return dict(sorted(found.items()))


def names(look: Look, type_: str, *, prefix: str, after: str, limit: int) -> list[str]:
    """The names of a type that begin with ``prefix``, behind ``after``, in the order of their UTF-8 bytes."""
    low = max(prefix, after)
    query = "SELECT name FROM {}.actor WHERE type = ? AND name >= ? AND name > ?"
    bindings: list[Any] = [type_, low, after]
    above = _above(prefix)
    if above is not None:
        query += " AND name < ?"
        bindings.append(above)
    query += " ORDER BY name LIMIT ?"
    bindings.append(limit)
    found = [row[0] for shard in look.shards for row in look.rows(shard, query, tuple(bindings))]
    return sorted(found)[:limit]


def _above(prefix: str) -> str | None:
    """The least text above all that begin with ``prefix``; None when there is none."""
    for at in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[at])
        if code < 0x10FFFF:
            return prefix[:at] + chr(0xE000 if code + 1 == 0xD800 else code + 1)
    return None


def find(look: Look, shard: int, slot: int, type_: str, name: str) -> int | None:
    """The id of an actor in its shard; None when it has never written."""
    if shard not in look.shards:
        return None
    query = "SELECT id, sum FROM {}.actor WHERE slot = ? AND type = ? AND name = ?"
    for id_, sum_ in look.rows(shard, query, (slot, type_, name)):
        if schema.actor_sum(id_, slot, type_, name) != sum_:
            raise StoreCorrupt(f"The entry of actor {id_} ({type_}/{name!r}) in shard {shard} fails its checksum.")
        return int(id_)
    return None


def value(look: Look, shard: int, actor: int, key: str) -> bytes | None:
    """What is stored under a key."""
    for found, sum_ in look.rows(shard, "SELECT value, sum FROM temp.{}_kv WHERE actor = ? AND key = ?", (actor, key)):
        return _checked(shard, actor, key, found, sum_)
    return None


def sql_image(look: Look, shard: int, actor: int) -> tuple[bytes | None, int]:
    """An actor's SQL database as a file would hold it, and how much of it is stored."""
    first = actor << pages.NUMBER_BITS
    rows = look.rows(
        shard, "SELECT id, data, sum FROM {}.page WHERE id > ? AND id <= ?", (first, first | pages.LAST_NUMBER)
    )
    image = bytearray()
    for at, (id_, data, sum_) in enumerate(sorted(rows), 1):
        if type(data) is not bytes or id_ != first + at or pages.page_sum(id_, data) != sum_:
            raise StoreCorrupt(f"Page {at} of the SQL database of actor {actor} in shard {shard} fails its check.")
        image += data.ljust(SQL_PAGE_BYTES, b"\0")
    return bytes(image) or None, sum(len(row[1]) for row in rows)


def coming(look: Look, key: tuple[str, str]) -> int:
    """How many messages of these shards' actors are on their way to an actor."""
    found = [
        look.rows(shard, "SELECT count(*) FROM {}.outbox WHERE type = ? AND name = ?", key)[0][0]
        for shard in look.shards
        if "outbox" in look.tables(shard)
    ]
    return sum(found)


def stored(look: Look, shard: int, actor: int, *, keys: int) -> Stored:
    """Everything of one actor; ``keys``: how many of its values."""
    tables = look.tables(shard)

    def one(table: str, query: str, *bindings: Any) -> Any:
        rows = look.rows(shard, query, bindings) if table in tables else ()
        return rows[0] if rows else None

    count, size = one("kv", _KEYS, actor)
    items = [
        (name, _checked(shard, actor, name, raw, sum_))
        for name, raw, sum_ in look.rows(
            shard, "SELECT key, value, sum FROM temp.{}_kv WHERE actor = ? ORDER BY key LIMIT ?", (actor, keys)
        )
    ]
    image, stored_bytes = sql_image(look, shard, actor)
    log = one("event_log", "SELECT first, last FROM {}.event_log WHERE actor = ?", actor) or (1, 0)
    event_bytes = one("event", "SELECT sum(length(data) + length(kind)) FROM {}.event WHERE actor = ?", actor)
    replies = one("reply_key", _REPLIES, actor, actor)
    sent = one("outbox", "SELECT count(*), count(error), sum(length(args)) FROM {}.outbox WHERE sender = ?", actor)
    return Stored(
        shard,
        actor,
        look.commits[shard],
        _version(one("version", "SELECT version, sum FROM {}.version WHERE actor = ?", actor), actor, shard),
        count,
        size or 0,
        items,
        image,
        stored_bytes,
        _alarm(one("alarm", "SELECT due, scheduled, retries, error, sum FROM {}.alarm WHERE actor = ?", actor), actor),
        (*log, _number(event_bytes)),
        (replies[0], replies[1] or 0) if replies else (0, 0),
        (sent[0], sent[1], sent[2] or 0) if sent else (0, 0, 0),
    )


def _number(row: Sequence[Any] | None) -> int:
    return int(row[0] or 0) if row else 0


def _checked(shard: int, actor: int, key: Any, raw: Any, sum_: Any) -> bytes:
    if type(raw) is not bytes or type(key) is not str or schema.row_sum(actor, key, raw) != sum_:
        raise StoreCorrupt(f"The value of actor {actor}, key {key!r}, in shard {shard} fails its checksum.")
    return raw


def _alarm(row: Sequence[Any] | None, actor: int) -> Alarm | None:
    if row is None:
        return None
    alarm = Alarm(*row[:4])
    if alarm_sum(actor, alarm) != row[4]:
        raise StoreCorrupt(f"The alarm of actor {actor} fails its checksum.")
    return alarm


def _version(row: Sequence[Any] | None, actor: int, shard: int) -> int:
    if row is None:
        return 1
    if version_sum(actor, row[0]) != row[1]:
        raise StoreCorrupt(f"The version of actor {actor} in shard {shard} fails its checksum.")
    return int(row[0])
