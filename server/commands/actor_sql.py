"""An actor's own SQL database, by sqlite-utils: a copy in memory of what is stored, which can only be read.

It is never opened in a process that serves: see "One SQLite library per process" in ARCHITECTURE.md.
"""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

import sqlite_utils
from actord.server.exits import FAILED, StartError

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_PRAGMAS = {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list", "user_version"}


class Table(NamedTuple):
    name: str
    rows: int | None  # None where they can't be counted: a virtual table of a module that is not here
    columns: list[str]


def opened(image: bytes | None) -> sqlite_utils.Database:
    """``image``: as a file would hold it; None: it has none yet. Raises ``StartError``."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    if image is not None:
        connection.deserialize(image)
    connection.execute("PRAGMA trusted_schema = OFF")
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except sqlite3.Error as error:
        raise StartError(f"The actor's SQL database can't be read: {error}.", FAILED) from None
    return sqlite_utils.Database(connection)


def tables(image: bytes | None) -> list[Table]:
    found: list[Table] = []
    if image is None:
        return found
    database = opened(image)
    for table in database.tables:
        try:
            found.append(Table(table.name, table.count, [column.name for column in table.columns]))
        except sqlite3.Error:
            found.append(Table(table.name, None, []))
    database.close()
    return found


def read_only(database: sqlite_utils.Database) -> None:
    """From now on statements that change something are refused."""

    def allowed(action: int, first: Any, second: Any, database_name: Any, trigger: Any) -> int:
        if action in _ALLOWED or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS and second is None):
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_OK if action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS else sqlite3.SQLITE_DENY

    database.conn.set_authorizer(allowed)
