"""All that an actor has stored, in one piece and as one line of JSON: what `actord export` writes and `import` reads.

    {"actord": 1, "type": "Account", "name": "alice", "version": 1,
     "values": {"balance": {"msgpack": "ZA=="}}, "sql": null, "alarm": null, "sum": "..."}

1. Nothing is lost: a value is its stored bytes in base64 (MessagePack with the types of ``sdk/codec.py``), ``sql`` an
   SQLite file in base64, ``alarm`` its times in milliseconds. ``sum`` is a hash of all the others.
2. ``decode`` raises ``ValueError`` for what is not such a line, or was changed or cut off; it never runs anything.

Not part of it: events, messages under way, replies kept for idempotency keys, sockets.
"""

from __future__ import annotations

import base64
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from actord import codec
from actord.errors import CodecError
from actord.limits import NAME_BYTES, SQL_DATABASE_BYTES, STORAGE_KEY_BYTES, VALUE_BYTES
from actord.storage.api import Alarm

FORMAT = 1
PAGE_BYTES = 1024  # of an actor's SQL database; see shards/sql_vfs.py
STORED_BYTES = PAGE_BYTES - 32  # what is stored of a page: SQLite was told to leave the rest free
_MAGIC = b"SQLite format 3\0"


class Whole(NamedTuple):
    """``values`` are encoded; ``pages`` are those of the SQL database as they are stored, in their order."""

    type: str
    name: str
    version: int
    values: dict[str, bytes]
    pages: list[bytes]
    alarm: Alarm | None

    @property
    def has_data(self) -> bool:
        return bool(self.values or self.pages or self.alarm)

    @property
    def sum(self) -> str:
        """Equal for equal content and for nothing else."""
        parts = [self.type, self.name, self.version, sorted(self.values.items()), self.pages, self.alarm]
        return blake2b(msgspec.msgpack.encode(parts), digest_size=16).hexdigest()


class _Value(msgspec.Struct, forbid_unknown_fields=True):
    msgpack: str


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    actord: int
    type: str
    name: str
    version: int
    values: dict[str, _Value]
    sql: str | None
    alarm: Alarm | None
    sum: str


def encode(whole: Whole) -> bytes:
    """One line, without its end."""
    document = {
        "actord": FORMAT,
        "type": whole.type,
        "name": whole.name,
        "version": whole.version,
        "values": {key: {"msgpack": base64.b64encode(raw).decode()} for key, raw in sorted(whole.values.items())},
        "sql": base64.b64encode(image_of(whole.pages)).decode() if whole.pages else None,
        "alarm": whole.alarm,
        "sum": whole.sum,
    }
    return msgspec.json.encode(document)


def decode(line: bytes) -> Whole:
    """The actor that a line holds. Raises ``ValueError``."""
    head: Any = msgspec.json.decode(line)
    if isinstance(head, dict) and type(head.get("actord")) is int and head["actord"] > FORMAT:
        raise ValueError(f"it has format {head['actord']}, written by a newer actord")
    found = msgspec.convert(head, _Line)
    values = {key: base64.b64decode(value.msgpack, validate=True) for key, value in found.values.items()}
    pages = [] if found.sql is None else pages_of(base64.b64decode(found.sql, validate=True))
    whole = Whole(found.type, found.name, found.version, values, pages, found.alarm)
    if whole.sum != found.sum:
        raise ValueError("it fails its checksum: it was changed or damaged")
    _check(whole)
    return whole


def image_of(pages: list[bytes]) -> bytes:
    """An SQLite file of stored pages."""
    return b"".join(page.ljust(PAGE_BYTES, b"\0") for page in pages)


def pages_of(image: bytes) -> list[bytes]:
    """The reverse. Raises ``ValueError`` for a file that ``image_of`` did not make."""
    pages = [image[at : at + STORED_BYTES] for at in range(0, len(image), PAGE_BYTES)]
    if not image.startswith(_MAGIC) or len(image) > SQL_DATABASE_BYTES or image_of(pages) != image:
        raise ValueError("its SQL database is no file that an export has written")
    return pages


def _check(whole: Whole) -> None:
    if not whole.type.isidentifier() or not 1 <= len(whole.name.encode()) <= NAME_BYTES or "\0" in whole.name:
        raise ValueError("its type or name can't be one")
    if whole.version < 1:
        raise ValueError(f"its version is {whole.version}")
    for key, raw in whole.values.items():
        if not 1 <= len(key.encode()) <= STORAGE_KEY_BYTES or len(raw) > VALUE_BYTES:
            raise ValueError(f"the key {key!r} or its value is too long")
        try:
            codec.decode(raw)
        except CodecError as error:
            raise ValueError(f"the value of {key!r} can't be read: {error.detail}") from None
