"""What ``sql.exec`` returns: the rows of a query, read once, while the turn lasts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from actord.errors import SqlNotOneRowError, TurnEnded

if TYPE_CHECKING:
    import apsw
    from actord.shards.sql import SqlStorage


class SqlCursor:
    """Implements ``actord.context.SqlCursor``; see there for what each method promises.

    The first two rows are fetched when the query runs: most queries have no more, and are finished then.
    """

    __slots__ = ("__weakref__", "_ahead", "_names", "_query", "_source", "_sql", "rows_written")

    def __init__(
        self,
        sql: SqlStorage,
        query: str,
        names: tuple[str, ...] | None,
        ahead: list[tuple[Any, ...]],
        source: apsw.Cursor | None,
        rows_written: int,
    ) -> None:
        self._sql = sql
        self._query = query
        self._names = names
        self._ahead: list[tuple[Any, ...]] | None = ahead  # fetched, in order; None: the turn has ended
        self._source = source  # has more
        self.rows_written = rows_written

    @property
    def column_names(self) -> tuple[str, ...]:
        if self._names is None:
            self._names = self._sql.columns_of(self._query)
        return self._names

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        row = self._next()
        if row is None:
            raise StopIteration
        assert self._names is not None
        return dict(zip(self._names, row, strict=True))

    def raw(self) -> Iterator[tuple[Any, ...]]:
        while (row := self._next()) is not None:
            yield row

    def to_list(self) -> list[dict[str, Any]]:
        rows = self._rest()
        if not rows:
            return []
        names = self._names
        assert names is not None
        return [dict(zip(names, row, strict=True)) for row in rows]

    def one(self) -> dict[str, Any]:
        row = self._next()
        if row is None:
            raise SqlNotOneRowError("The query returned no row; one() takes exactly one.", statement=self._query)
        if self._ahead or self._source is not None:
            self.close()
            raise SqlNotOneRowError("The query returned more than one row.", statement=self._query)
        assert self._names is not None
        return dict(zip(self._names, row, strict=True))

    # -- reading on

    def _next(self) -> tuple[Any, ...] | None:
        ahead = self._ahead
        if ahead:
            return ahead.pop(0)
        if ahead is None:
            raise TurnEnded("The rows of a query can be read only by the turn that ran it.")
        source = self._source
        if source is None:
            return None
        try:
            row: tuple[Any, ...] | None = source.fetchone()
        except BaseException as error:
            self.close()
            raise self._sql.failed(error, self._query) from error
        if row is None:
            self._source = None
            self._sql.finished(source)
        return row

    def _rest(self) -> list[tuple[Any, ...]]:
        rows, source = self._ahead, self._source
        if rows is None:
            raise TurnEnded("The rows of a query can be read only by the turn that ran it.")
        self._ahead = []
        if source is not None:
            self._source = None
            try:
                rows += source.fetchall()
            except BaseException as error:
                source.close(True)
                raise self._sql.failed(error, self._query) from error
            self._sql.finished(source)
        return rows

    def close(self) -> None:
        """Read no further. Harmless when everything was read."""
        self._ahead = []
        source, self._source = self._source, None
        if source is not None:
            source.close(True)

    def end(self) -> None:
        """The turn is over: what was not read is gone."""
        if self._ahead or self._source is not None:
            self.close()
            self._ahead = None
