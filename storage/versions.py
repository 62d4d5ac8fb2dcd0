"""Which version of its class an actor's data have: one row for each actor whose version is not 1.

1. A row enters in the transaction of the batch that brings the data to that version.
2. A row whose checksum does not fit is never returned: ``StoreCorrupt``, so that no upgrade runs twice or is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import apsw
from actord.errors import StoreCorrupt
from actord.storage.reads import SqliteReads

FIRST = 1  # the version of an actor without a row

_PUT = "REPLACE INTO version (actor, version, sum) VALUES (?, ?, ?)"
_READ = "SELECT version, sum FROM version WHERE actor = ?"
_OLDER = (
    "SELECT actor.id, actor.name FROM actor LEFT JOIN version ON version.actor = actor.id "
    f"WHERE actor.id > ? AND actor.type = ? AND coalesce(version.version, {FIRST}) < ? ORDER BY actor.id LIMIT ?"
)
_PAGE = (
    "SELECT version.actor, version.version, actor.type FROM version JOIN actor ON actor.id = version.actor "
    "WHERE version.actor > ? ORDER BY version.actor LIMIT ?"
)


def version_sum(actor: int, version: int) -> int:
    return crc32(b"version %d" % version, actor)


def apply(executemany: Callable[..., Any], versions: Mapping[int, int]) -> None:
    """Write a batch's versions, by primary key."""
    rows = sorted(versions.items())
    executemany(_PUT, [(actor, version, version_sum(actor, version)) for actor, version in rows])


class SqliteVersions(SqliteReads):
    """The part of ``SqliteStore`` that reads versions."""

    def read_version(self, actor: int) -> int:
        for version, sum_ in self._version_rows(_READ, (actor,)):
            if type(version) is not int or version_sum(actor, version) != sum_:
                raise StoreCorrupt(f"The version of actor {actor} in {self.path} fails its checksum.")
            return version
        return FIRST

    def older_actors(self, type_: str, version: int, *, after: int, limit: int) -> list[tuple[int, str]]:
        return [(int(id_), str(name)) for id_, name in self._version_rows(_OLDER, (after, type_, version, limit))]

    def newest_versions(self, *, after: int, limit: int) -> tuple[dict[str, int], int]:
        rows = self._version_rows(_PAGE, (after, limit))
        found: dict[str, int] = {}
        for _, version, type_ in rows:
            found[type_] = max(version, found.get(type_, FIRST))
        return found, int(rows[-1][0]) if len(rows) == limit else 0

    def _version_rows(self, query: str, bindings: tuple[Any, ...]) -> list[Any]:
        if self._broken is not None:
            raise self._refuse()
        try:
            return list(self._cursor.execute(query, bindings).fetchall())
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._read_failed(error) from error
