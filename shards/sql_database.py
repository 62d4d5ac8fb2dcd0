"""One open SQL database of an instance: a connection over a ``PageFile``, set up so that only its owner decides.

1. The connection keeps its lock and its page cache for life, has no files, and never syncs: what a turn changed is in
   ``file.pages`` when ``commit`` has returned, and nowhere when ``rollback`` has.
2. The owner's own statements (BEGIN, SAVEPOINT …) pass the authorizer, the actor's do not, also when they are spelled
   the same: the statement cache tells them apart.
3. It may be closed at any time between two turns; nothing is lost with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw
from actord.shards.sql_rules import LIMITS, Refusal, refusal
from actord.shards.sql_vfs import MAX_PAGES, PageFile, connect

STATEMENTS = 32  # prepared statements that one connection keeps
CACHE_PAGES = 16  # of 1 KiB; what does not fit is asked of the shard's own cache
TICK_OPCODES = 20_000  # between two looks at the clock: about a millisecond
LOOKASIDE = (128, 40)  # bytes and slots of the small memory that SQLite keeps for each connection

# Apart from the actor's statements in the cache, whatever their text.
_OWN = apsw.SQLITE_PREPARE_PERSISTENT
_BEGIN, _COMMIT, _ROLLBACK = "BEGIN", "COMMIT", "ROLLBACK"
_PAGE_COUNT = "PRAGMA page_count"

_SETTINGS = "; ".join(
    f"PRAGMA {setting}"
    for setting in (
        "locking_mode = EXCLUSIVE",  # the change counter in page 1 is written once, not with each commit
        "journal_mode = MEMORY",
        "synchronous = OFF",
        "temp_store = MEMORY",
        f"cache_size = {CACHE_PAGES}",
        f"max_page_count = {MAX_PAGES}",
    )
)
_SWITCHES = (
    (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
    (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1),
    (apsw.SQLITE_DBCONFIG_DQS_DML, 0),
    (apsw.SQLITE_DBCONFIG_DQS_DDL, 0),
)


def small_connections() -> None:
    """Make every connection of this process smaller: 48 KB instead of 103 KB. Only while none is open."""
    apsw.shutdown()
    apsw.config(apsw.SQLITE_CONFIG_LOOKASIDE, *LOOKASIDE)
    apsw.initialize()


class Database:
    """``tick`` is called while a statement runs; when it returns True the statement is interrupted."""

    __slots__ = ("_conn", "_own", "_owner", "denied", "file", "spare", "total_changes")

    def __init__(self, base: Callable[[int], bytes | None], stored: int, tick: Callable[[], bool]) -> None:
        self.file = PageFile(base, stored)
        self.denied: Refusal | None = None  # why the authorizer refused the last statement
        self._own = True
        self._conn = conn = connect(self.file, STATEMENTS)
        self._owner = conn.cursor()
        self.spare: apsw.Cursor | None = None
        self.total_changes = conn.total_changes
        conn.execute(_SETTINGS).fetchall()
        for switch, on in _SWITCHES:
            conn.config(switch, on)
        for limit, value in LIMITS.items():
            conn.limit(limit, value)
        conn.authorizer = self._authorize
        conn.set_progress_handler(tick, TICK_OPCODES)
        self._own = False

    def _authorize(self, action: int, first: str | None, second: str | None, _: str | None, __: str | None) -> int:
        if self._own:
            return apsw.SQLITE_OK
        found = refusal(action, first, second)
        if found is None:
            return apsw.SQLITE_OK
        self.denied = found
        return apsw.SQLITE_DENY

    # -- the owner's statements

    def _run(self, statement: str) -> Any:
        self._own = True
        try:
            return self._owner.execute(statement, prepare_flags=_OWN).fetchone()
        finally:
            self._own = False

    def begin(self) -> None:
        self._run(_BEGIN)

    def commit(self) -> None:
        """Raises what SQLite raises (a deferred constraint): then the transaction is still open."""
        self._run(_COMMIT)

    def rollback(self) -> None:
        if self._conn.in_transaction:
            self._run(_ROLLBACK)
        self.file.undo()

    def savepoint(self, depth: int) -> None:
        self._run(f"SAVEPOINT s{depth}")

    def release(self, depth: int) -> None:
        self._run(f"RELEASE s{depth}")

    def roll_back_to(self, depth: int) -> None:
        self._run(f"ROLLBACK TO s{depth}")
        self._run(f"RELEASE s{depth}")

    @property
    def alive(self) -> bool:
        """The turn's transaction is there: SQLite ends it by itself after some errors."""
        return self._conn.in_transaction

    @property
    def has_written(self) -> bool:
        return self._conn.txn_state("main") == apsw.SQLITE_TXN_WRITE

    @property
    def page_count(self) -> int:
        count = int(self._run(_PAGE_COUNT)[0])
        self._owner.fetchone()  # to its end
        return count

    # -- the actor's statements

    def cursor(self) -> apsw.Cursor:
        spare = self.spare
        if spare is None:
            return self._conn.cursor()
        self.spare = None
        return spare

    def look_at(self, query: str) -> tuple[str, int, bool, tuple[str, ...]]:
        """The first statement of ``query`` without running it: its text, the number of its parameters, whether it is
        one (and not white space or a comment), and the names of its columns. Raises what SQLite raises.
        """
        found: list[tuple[str, int, bool, tuple[str, ...]]] = []

        def trace(cursor: apsw.Cursor, statement: str, _: Any) -> bool:
            names = tuple(column[0] for column in cursor.get_description())
            found.append((statement, cursor.bindings_count, cursor.has_vdbe, names))
            return False

        cursor = self._conn.cursor()
        cursor.exec_trace = trace
        try:
            cursor.execute(query, apsw._null_bindings, can_cache=False)  # type: ignore[attr-defined]
        except apsw.ExecTraceAbort:
            pass
        finally:
            cursor.exec_trace = None
            cursor.close(True)
        return found[0] if found else (query, 0, False, ())

    def close(self) -> None:
        """Let go of everything. An open transaction is undone."""
        self.spare = None
        self._conn.close(True)
