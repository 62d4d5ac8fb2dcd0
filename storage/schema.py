"""What a shard's database holds, and the settings of a connection to it.

Every row of a user's data carries a checksum, because SQLite does not notice a flipped bit in a value. The checksum
covers the row's key too, so that a row that turns up under another key or actor is caught as well.

The rows of ``meta`` carry one as well: nothing else would notice a commit number or an epoch that went back.

A later format adds tables to ``TABLES`` and raises ``FORMAT``;
``upgrade`` makes what an older database lacks.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any
from zlib import crc32

import apsw
from actord.errors import DataDirError, StoreCorrupt
from actord.storage.ballast import is_full

# 2: alarms; 3: pages of SQL databases; 4: checksums in meta; 5: events, replies, messages; 6: reply_key, version;
# 7: redo; 8: its second half
FORMAT = 8
APPLICATION_ID = 0x41435444  # "ACTD": what file(1) and the offline tools go by
PAGE_BYTES = 4096
META_NAMES = {"format", "identity", "shard", "commit_seq", "epoch"}

TABLES = """
CREATE TABLE IF NOT EXISTS meta (
    name TEXT NOT NULL PRIMARY KEY,
    value,
    sum INTEGER
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS actor (
    id INTEGER PRIMARY KEY,
    slot INTEGER NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    sum INTEGER NOT NULL,
    UNIQUE (slot, type, name)
);

CREATE TABLE IF NOT EXISTS kv (
    actor INTEGER NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    sum INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS redo (
    slot INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    part INTEGER NOT NULL,
    parts INTEGER NOT NULL,
    size INTEGER NOT NULL,
    data BLOB NOT NULL,
    sum INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS page (
    id INTEGER PRIMARY KEY,
    data BLOB NOT NULL,
    sum INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS alarm (
    actor INTEGER PRIMARY KEY,
    due INTEGER NOT NULL,
    scheduled INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    error TEXT,
    sum INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS alarm_armed ON alarm (due, actor) WHERE error IS NULL;
CREATE INDEX IF NOT EXISTS alarm_failed ON alarm (actor) WHERE error IS NOT NULL;

CREATE TABLE IF NOT EXISTS event (
    actor INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    data BLOB NOT NULL,
    until INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    sum INTEGER NOT NULL,
    PRIMARY KEY (actor, seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS event_until ON event (until);

CREATE TABLE IF NOT EXISTS event_log (
    actor INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    sum INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS reply (
    id INTEGER PRIMARY KEY,
    actor INTEGER NOT NULL,
    key TEXT NOT NULL,
    at INTEGER NOT NULL,
    digest BLOB NOT NULL,
    status INTEGER NOT NULL,
    head BLOB,
    body BLOB NOT NULL,
    sum INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS reply_key (
    actor INTEGER NOT NULL,
    key TEXT NOT NULL,
    id INTEGER NOT NULL,
    sum INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY,
    sender INTEGER NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    method TEXT NOT NULL,
    args BLOB NOT NULL,
    due INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    error TEXT,
    sum INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS outbox_pair ON outbox (sender, type, name, id)
    WHERE error IS NULL AND (due = 0 OR attempts > 0);
CREATE INDEX IF NOT EXISTS outbox_delayed ON outbox (due, id) WHERE error IS NULL AND due > 0 AND attempts = 0;
CREATE INDEX IF NOT EXISTS outbox_parked ON outbox (id) WHERE error IS NOT NULL;

CREATE TABLE IF NOT EXISTS version (
    actor INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    sum INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS inbox (
    shard INTEGER NOT NULL,
    id INTEGER NOT NULL,
    sum INTEGER NOT NULL,
    PRIMARY KEY (shard, id)
) WITHOUT ROWID;
"""


_TABLES_ARE = "SELECT type, name, tbl_name, sql FROM sqlite_schema"
_META = "INSERT INTO meta (name, value, sum) VALUES (?, ?, ?)"


def row_sum(actor: int, key: str, value: bytes) -> int:
    """CRC-32 over key and value, started from the actor's id."""
    return crc32(value, crc32(key.encode(), actor))


def actor_sum(id_: int, slot: int, type_: str, name: str) -> int:
    return crc32(f"{slot}\0{type_}\0{name}".encode(), id_)


def meta_sum(name: str, value: int | str) -> int:
    return crc32(f"{name}\0{value}".encode())


def meta_rows(values: dict[str, int | str]) -> list[tuple[str, int | str, int]]:
    return [(name, value, meta_sum(name, value)) for name, value in values.items()]


def configure(conn: apsw.Connection, *, page_cache: int) -> None:
    """Set every pragma that the store relies on, and read it back: SQLite ignores what it can't do without a word.

    ``page_cache`` is in bytes. Raises ``DataDirError`` when a setting did not take.
    """
    # No checkpoint when a connection closes: ``abandon`` must not write, and ``close`` makes its own.
    conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    conn.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    conn.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    conn.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
    wanted: list[tuple[str, str | int, str | int]] = [
        # Before the first access, so that there never is a -shm file and the wal-index is private memory.
        ("locking_mode", "EXCLUSIVE", "exclusive"),
        ("journal_mode", "WAL", "wal"),
        # SQLite syncs around checkpoints; what a reply waits for is ``Store.sync``.
        ("synchronous", "NORMAL", 1),
        ("wal_autocheckpoint", 0, 0),
        ("journal_size_limit", -1, -1),  # a restarted log is overwritten in place: its blocks are there already
        ("cache_size", -(page_cache // 1024), -(page_cache // 1024)),
        ("cache_spill", 0, 0),
        ("mmap_size", 0, 0),  # a read error must be an error code, not SIGBUS
        ("temp_store", "MEMORY", 2),
        ("trusted_schema", 0, 0),
        ("foreign_keys", 0, 0),
        ("cell_size_check", 1, 1),
        ("auto_vacuum", 0, 0),
    ]
    for name, value, expected in wanted:
        conn.execute(f"PRAGMA {name} = {value}").fetchall()
        found = conn.execute(f"PRAGMA {name}").get
        if found != expected and not (name == "mmap_size" and found is None):
            raise DataDirError(f"SQLite did not take PRAGMA {name} = {value}: it is {found!r}. Path: {conn.filename}")
    page = conn.execute("PRAGMA page_size").get
    if page != PAGE_BYTES:
        raise StoreCorrupt(f"{conn.filename} has pages of {page} bytes instead of {PAGE_BYTES}.")


def create(conn: apsw.Connection, *, shard: int, identity: str) -> None:
    """Fill a new, empty database. The caller makes it durable, or throws it away after an error."""
    conn.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    conn.execute("PRAGMA journal_mode = WAL").fetchall()
    # No savepoint: SQLite itself rolls back on a full disk, and going back to it would hide that error by another.
    conn.execute("BEGIN")
    conn.execute(TABLES)
    conn.executemany(
        _META,
        meta_rows({"format": FORMAT, "identity": identity, "shard": shard, "commit_seq": 0, "epoch": 0}),
    )
    conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    conn.execute("COMMIT")


def bad_entries(rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Of rows of ``meta``, whole: the names of those whose checksum does not fit. Before format 4 there was none."""
    return [row[0] for row in rows if len(row) > 2 and row[2] != meta_sum(row[0], row[1])]


def set_meta(conn: apsw.Connection, values: dict[str, int | str]) -> None:
    """Give entries of ``meta`` that exist other values, in the caller's transaction."""
    conn.executemany("REPLACE INTO meta (name, value, sum) VALUES (?, ?, ?)", meta_rows(values))


def is_older(conn: apsw.Connection) -> bool:
    """Is its format an older one? ``check_meta`` has passed."""
    return bool(conn.execute("SELECT value FROM meta WHERE name = 'format'").get != FORMAT)


def upgrade(conn: apsw.Connection) -> None:
    """Make the tables that a database of an older format lacks. The next sync makes it durable, or it is done again.

    Raises ``DataDirError`` when the disk is full.
    """
    found: Any = conn.execute("SELECT value FROM meta WHERE name = 'format'").get
    try:
        with conn:
            meta: dict[str, Any] = dict(conn.execute("SELECT name, value FROM meta"))
            conn.execute("DROP TABLE meta")
            if (
                found == 5
            ):  # whose index was part of the table; the one that takes its place is filled by the next batch
                conn.execute("ALTER TABLE reply RENAME TO reply_5")
            conn.execute(TABLES)
            if found == 5:
                conn.execute("INSERT INTO reply SELECT * FROM reply_5; DROP TABLE reply_5")
            conn.executemany(_META, meta_rows(meta | {"format": FORMAT}))
    except apsw.Error as error:
        if not is_full(conn, error):
            raise
        raise DataDirError(f"{conn.filename} can't be brought from format {found} to {FORMAT}: {error}.") from error


def newest_commit(conn: apsw.Connection, folded: int) -> int:
    """The number of the newest commit in a database whose ``meta`` says ``folded`` (``storage.redo``)."""
    if not conn.table_exists("main", "redo"):  # an older format
        return folded
    found: Any = conn.execute("SELECT max(seq) FROM redo").get
    return found if type(found) is int and found > folded else folded


def last_epoch(conn: apsw.Connection) -> int:
    """The epoch of the last opening that committed something."""
    rows: Any = conn.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchall()
    return int(rows[0][0])


def check_meta(conn: apsw.Connection, *, shard: int, identity: str) -> int:
    """Is this the database of that shard in a format of ours? Returns its commit_seq.

    Raises ``DataDirError`` for a newer format, ``StoreCorrupt`` for a database of something or somebody else.
    """
    path = conn.filename
    application = conn.execute("PRAGMA application_id").get
    if application != APPLICATION_ID or not conn.table_exists("main", "meta"):
        raise StoreCorrupt(f"{path} is not a database of actord. Restore the data directory from a backup.")
    try:
        rows: list[tuple[Any, ...]] = conn.execute("SELECT * FROM meta").fetchall()
    except (apsw.SQLError, UnicodeDecodeError) as error:
        raise StoreCorrupt(f"{path} does not say what it is ({error}). Restore it from a backup.") from error
    meta: dict[Any, Any] = {row[0]: row[1] for row in rows}
    format_ = meta.get("format")
    if not isinstance(format_, int) or format_ < 1:
        raise StoreCorrupt(f"{path} does not say which format it has ({format_!r}). Restore it from a backup.")
    if format_ > FORMAT:
        raise DataDirError(
            f"{path} has format {format_}, written by a newer actord; this one reads up to {FORMAT}. "
            "Run the newer version, or restore a backup from before the upgrade."
        )
    wrong = bad_entries(rows)
    if wrong or not meta.keys() >= META_NAMES:
        raise StoreCorrupt(f"{path} is damaged: its entry {wrong or sorted(meta)} fails its check. Restore a backup.")
    if meta.get("identity") != identity or meta.get("shard") != shard:
        raise StoreCorrupt(
            f"{path} is shard {meta.get('shard')} of data directory {meta.get('identity')}, "
            f"but shard {shard} of {identity} was expected. Files of two data directories were mixed."
        )
    commit_seq = meta.get("commit_seq")
    if not isinstance(commit_seq, int) or commit_seq < 0:
        raise StoreCorrupt(f"{path} has the commit number {commit_seq!r}.")
    return newest_commit(conn, commit_seq)


@cache
def _expected_tables() -> frozenset[tuple[Any, ...]]:
    conn = apsw.Connection(":memory:")
    conn.execute(TABLES)
    return frozenset(conn.execute(_TABLES_ARE))


def check_tables(conn: apsw.Connection) -> None:
    """Does the database's own description of its tables say what it said when it was made? Raises ``StoreCorrupt``."""
    try:
        found = frozenset(conn.execute(_TABLES_ARE))
    except UnicodeDecodeError as error:
        raise StoreCorrupt(f"{conn.filename} has a damaged schema ({error}). Restore it from a backup.") from error
    if found != _expected_tables():
        names = sorted(str(row[1]) for row in found ^ _expected_tables())
        raise StoreCorrupt(f"{conn.filename} has a damaged schema ({', '.join(names)}). Restore it from a backup.")
