"""``ctx.storage.sql``: the private SQLite database of one instance, as its turns see it.

1. The turn is the transaction. Its first statement begins one; it commits when the turn returns, before anything of
   the turn joins the batch, and is rolled back when the turn fails. What it changed joins the batch as pages.
2. Reads see what the turn wrote, what ended turns left in the open batch, and the store, in that order.
3. A statement or ``transaction_sync`` that fails leaves nothing, and the turn may go on. Where SQLite had to give up
   the whole transaction (no room, out of time), the turn can't commit any more, whatever it catches.
4. Only the turn that runs may use it. A statement that runs for longer than the turn may is interrupted.
5. The connection is opened by the first statement and may be closed between any two turns: nothing lives in it alone.

After ``delete_all`` a turn goes on with another, empty database; the one before it is kept aside until the turn ends,
so that a failure brings it back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from inspect import isasyncgenfunction, isawaitable, iscoroutinefunction
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import apsw
from actord.errors import SqlAsyncTransactionError, SqlError, SqlParameterError, TurnEnded
from actord.limits import SQL_TURN_BYTES
from actord.shards.call import Call, current_turn
from actord.shards.sql_cursor import SqlCursor
from actord.shards.sql_database import Database
from actord.shards.sql_errors import check_bindings, translated
from actord.shards.sql_vfs import PAGE_BYTES

if TYPE_CHECKING:
    from actord.shards.activation import Activation
    from actord.storage.api import Batch

T = TypeVar("T")

# The database and the depth of its savepoint, and how many databases lay aside. None: the turn had used no SQL yet.
Mark = tuple[Database | None, int, int] | None

# Texts known to be one statement. What SQLite says about a text does not depend on the database.
_single: set[str] = set()
_SINGLE_MOST = 10_000


class SqlPool:
    """Bounds the connections that stay open: the least recently used idle one goes first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open: OrderedDict[SqlStorage, None] = OrderedDict()

    def use(self, sql: SqlStorage) -> None:
        if sql in self.open:
            self.open.move_to_end(sql)
            return
        self.open[sql] = None
        if len(self.open) > self.limit:
            idle = next((other for other in self.open if other.idle), None)
            if idle is not None:
                idle.drop()

    def remove(self, sql: SqlStorage) -> None:
        self.open.pop(sql, None)


class SqlStorage:
    """Implements ``actord.context.Sql``; see there for what each method promises."""

    __slots__ = (
        "_act",
        "_aside",
        "_cursors",
        "_db",
        "_deadline",
        "_depth",
        "_lost",
        "_memory",
        "_pool",
        "_sync",
        "_turn",
        "_why",
    )

    def __init__(self, act: Activation) -> None:
        self._act = act
        self._pool: SqlPool = act.host.sql_pool
        self._db: Database | None = None
        # of the turn that uses it
        self._turn: Call | None = None
        self._aside: list[Database] = []  # what ``delete_all`` of this turn has replaced
        self._cursors: WeakSet[SqlCursor] | None = None  # unfinished
        self._lost: BaseException | None = None  # SQLite gave up the transaction
        self._depth = 0  # savepoints that are open
        self._sync = 0  # of them by transaction_sync
        self._deadline = 0.0
        self._memory = 0
        self._why = ""  # why a statement was interrupted

    # -- the user's side

    def exec(self, query: str, /, *bindings: Any) -> SqlCursor:
        db = self._use()
        if bindings:
            check_bindings(bindings, query)
        if query in _single:
            return self._exec(db, query, bindings)
        return self._exec_new(db, query, bindings)

    def transaction_sync(self, fn: Callable[[], T]) -> T:
        if iscoroutinefunction(fn) or isasyncgenfunction(fn):
            raise SqlAsyncTransactionError("transaction_sync takes a plain function; this one is async.")
        self._use()
        turn = self._turn
        assert turn is not None
        mark = self.mark(turn)
        self._sync += 1
        try:
            result = fn()
            if isawaitable(result) or hasattr(result, "__aiter__"):
                if (close := getattr(result, "close", None)) is not None:
                    close()
                raise SqlAsyncTransactionError("The function given to transaction_sync returned something to await.")
        except BaseException:
            self.undo_to(turn, mark)
            raise
        finally:
            self._sync -= 1
        self.release(turn, mark)
        return result

    @property
    def database_size(self) -> int:
        db = self._use()
        try:
            pages = db.page_count
        except BaseException as error:
            raise self.failed(error, "") from error
        return pages * PAGE_BYTES if pages > 1 or db.file.stored else 0

    # -- statements

    def _use(self) -> Database:
        """The database, for the turn that runs, in its transaction."""
        turn = current_turn.get()
        if turn is None or turn.over or turn.act is not self._act:
            raise TurnEnded("SQL can be used only by the turn that runs: not from a task that outlives it.")
        if turn.block is not None:
            turn.block.check()
        if turn is not self._turn:
            self._turn = turn
            turn.more = True
            self._deadline = turn.started + turn.limit
            self._memory = apsw.memory_used()
            self._pool.use(self)
            if self._db is not None:
                self._db.begin()
        if self._lost is not None:
            raise self._lost
        db = self._db
        if db is None:
            db = self._open(turn)
        return db

    def _open(self, turn: Call) -> Database:
        stored = 0 if turn.cleared else self._page_count()
        db = Database(_nothing if turn.cleared else self._read_page, stored, self._tick)
        try:
            db.begin()
        except BaseException as error:
            db.close()
            raise translated(error, "", db, self._why) from error
        self._db = db
        return db

    def _exec(self, db: Database, query: str, bindings: tuple[Any, ...]) -> SqlCursor:
        before = db.total_changes()
        cursor = db.cursor()
        try:
            cursor.execute(query, bindings)
            row = cursor.fetchone()
            if row is None:
                db.spare = cursor
                return SqlCursor(self, query, None, [], None, db.total_changes() - before)
            names = tuple([column[0] for column in cursor.get_description()])
            ahead = [row]
            if not cursor.is_readonly:
                ahead += cursor.fetchall()  # INSERT … RETURNING: nothing may end or undo it half way
                row = None
            elif (row := cursor.fetchone()) is not None:
                ahead.append(row)
        except BaseException as error:
            cursor.close(True)
            raise self.failed(error, query) from error
        if row is None:
            db.spare = cursor
            return SqlCursor(self, query, names, ahead, None, db.total_changes() - before)
        found = SqlCursor(self, query, names, ahead, cursor, 0)
        if self._cursors is None:
            self._cursors = WeakSet()
        self._cursors.add(found)
        return found

    def _exec_new(self, db: Database, query: str, bindings: tuple[Any, ...]) -> SqlCursor:
        """A text that was not seen yet: SQLite says where its statements end."""
        if type(query) is not str:
            raise TypeError(f"a query must be a str, not {type(query).__name__}")
        try:
            statement = db.look_at(query)[0]
            if self._is_last(db, query[len(statement) :]):
                if len(_single) >= _SINGLE_MOST:
                    _single.clear()
                _single.add(query)
                return self._exec(db, query, bindings)
        except (apsw.Error, ValueError) as error:
            raise self.failed(error, query) from error
        return self.transaction_sync(lambda: self._exec_several(db, query, bindings))

    def _exec_several(self, db: Database, query: str, bindings: tuple[Any, ...]) -> SqlCursor:
        rest, written = query, 0
        while True:
            try:
                statement, parameters, _, _ = db.look_at(rest)
                following = rest[len(statement) :]
                last = self._is_last(db, following)
            except BaseException as error:
                raise self.failed(error, rest) from error
            if last:
                found = self._exec(db, statement, bindings)
                found.rows_written += written
                return found
            if parameters:
                raise SqlParameterError(
                    "Bindings go to the last of several statements; an earlier one has parameters too.",
                    statement=statement,
                )
            before = self._exec(db, statement, ())
            written += before.rows_written
            while before._next() is not None:
                pass
            rest = following

    def _is_last(self, db: Database, rest: str) -> bool:
        if not rest.strip(" \t\r\n;"):
            return True
        while rest:
            try:
                text, _, is_statement, _ = db.look_at(rest)
            except (apsw.Error, ValueError):
                db.denied = None
                return False  # whatever it is, it is meant to be run, and fails when its turn comes
            if is_statement:
                return False
            rest = rest[len(text) :]
        return True

    def columns_of(self, query: str) -> tuple[str, ...]:
        """The columns of a query that returned no row."""
        db = self._use()
        try:
            return db.look_at(query)[3]
        except BaseException as error:
            raise self.failed(error, query) from error

    def finished(self, cursor: apsw.Cursor) -> None:
        """A query was read to its end."""
        if self._db is not None:
            self._db.spare = cursor

    def failed(self, error: BaseException, query: str) -> BaseException:
        """What to raise for what SQLite or apsw raised."""
        db = self._db
        if db is None or self._turn is None:
            return TurnEnded("The turn of this query is over.")
        found = translated(error, query, db, self._why)
        self._why = ""
        if not db.alive:
            self._lost = found
        return found

    def _tick(self) -> bool:
        """Called by SQLite while a statement runs. True interrupts it."""
        if monotonic() > self._deadline:
            self._why = "time"
        elif apsw.memory_used() - self._memory > SQL_TURN_BYTES:
            self._why = "memory"
        else:
            return False
        return True

    # -- pages

    def _page_count(self) -> int:
        actor = self._act.kv.known_id()
        if actor is None:
            return 0
        batch = self._act.shard.committer.batch
        count = batch.page_counts.get(actor)
        if count is None:
            count = 0 if actor in batch.cleared else self._act.store.page_count(actor)
        return count

    def _read_page(self, number: int) -> bytes | None:
        """A page as the turns before this one left it."""
        act = self._act
        actor = act.kv.known_id()
        if actor is None:
            return None
        batch = act.shard.committer.batch
        pages = batch.pages.get(actor)
        if pages is not None:
            found = pages.get(number)
            if found is not None:
                return found
        return None if actor in batch.cleared else act.store.read_page(actor, number)

    def pages(self) -> list[bytes]:
        """All pages as the turns before this one left them."""
        return [self._read_page(number) or b"" for number in range(1, self._page_count() + 1)]

    # -- savepoints, for transaction_sync and storage.transaction

    def mark(self, turn: Call) -> Mark:
        if self._turn is not turn:
            return None
        self._depth += 1
        db = self._db
        if db is not None and self._lost is None:
            db.savepoint(self._depth)
        return db, self._depth, len(self._aside)

    def release(self, turn: Call, mark: Mark) -> None:
        if mark is None or self._turn is not turn:
            return
        db, depth, _ = mark
        self._depth = depth - 1
        if db is not None and db is self._db and self._lost is None:
            db.release(depth)

    def undo_to(self, turn: Call, mark: Mark) -> None:
        """Undo what this turn did since the mark."""
        if self._turn is not turn:
            return
        if mark is None:
            self.rollback()
            return
        db, depth, aside = mark
        self._depth = depth - 1
        if self._db is not db:
            self._end_cursors()
            gone = [self._db, *self._aside[aside:]]
            del self._aside[aside:]
            self._db = db
            for other in gone:
                if other is not None and other is not db:
                    other.close()
        if db is not None and self._lost is None:
            db.roll_back_to(depth)

    # -- the turn's end

    def clear(self, turn: Call) -> None:
        """``delete_all``: the turn goes on with an empty database."""
        if self._sync:
            raise RuntimeError("delete_all can't be called inside of transaction_sync")
        if self._lost is not None:
            raise self._lost
        if self._db is None:
            return
        self._end_cursors()
        self._turn = turn
        turn.more = True
        self._aside.append(self._db)
        self._db = None

    def commit(self, turn: Call) -> None:
        """End the transaction; its pages wait for ``join``. Raises when it can't be committed, and all of it stands."""
        if self._turn is not turn:
            return
        if self._lost is not None:
            raise self._lost
        db = self._db
        if db is None:
            return
        if self._cursors is not None:
            self._end_cursors()
        try:
            db.commit()
        except BaseException as error:
            raise self.failed(error, "COMMIT") from error

    def join(self, turn: Call, batch: Batch) -> None:
        """Move the pages of a committed transaction into the batch."""
        if self._turn is not turn:
            return
        self._turn = None
        self._depth = 0
        for old in self._aside:
            old.close()
        self._aside.clear()
        db = self._db
        if db is None:
            self._pool.remove(self)
            return
        file = db.file
        if file.pages:
            act = self._act
            actor = act.kv.ensure_id(batch)
            if file.size != file.stored or turn.cleared:
                batch.page_counts[actor] = file.size
            pages = file.take()
            waiting = batch.pages.get(actor)
            if waiting is None:
                batch.pages[actor] = pages
            else:
                waiting.update(pages)
            act.seq = batch.seq
        if turn.cleared:
            file.base = self._read_page

    def rollback(self) -> bool:
        """The turn failed. True when it had written."""
        if self._turn is None:
            return False
        self._turn = None
        self._depth = 0
        if self._cursors is not None:
            self._end_cursors()
        wrote = bool(self._aside) or self._lost is not None
        self._lost = None
        if self._aside:
            first, *others = self._aside
            self._aside.clear()
            if self._db is not None:
                others.append(self._db)
            for other in others:
                other.close()
            self._db = first
        db = self._db
        if db is not None:
            wrote = wrote or db.has_written or bool(db.file.pages)
            if db.file.base is _nothing:  # opened after delete_all, which is undone
                self.drop()
                return wrote
            try:
                db.rollback()
            except BaseException:
                self.drop()
        return wrote

    def _end_cursors(self) -> None:
        for cursor in list(self._cursors or ()):
            cursor.end()
        self._cursors = None

    # -- the connection's life

    @property
    def idle(self) -> bool:
        return self._turn is None

    def drop(self) -> None:
        """Close the connection: what it knows is gone, or the store can give it back. The next use opens another."""
        self._end_cursors()
        self._turn = None
        self._lost = None
        self._depth = 0
        gone = [*self._aside, self._db]
        self._aside.clear()
        self._db = None
        self._pool.remove(self)
        for db in gone:
            if db is not None:
                db.close()

    def detach(self) -> None:
        """The activation leaves memory."""
        self.drop()
        self._act = None  # type: ignore[assignment]


def _nothing(number: int) -> bytes | None:
    return None


__all__ = ["Mark", "SqlError", "SqlPool", "SqlStorage"]
