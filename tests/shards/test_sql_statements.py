"""``storage.sql``: what statements, bindings, cursors and errors do within a turn, and what stays of a turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from actord.errors import (
    SqlAsyncTransactionError,
    SqlConstraintError,
    SqlError,
    SqlNotOneRowError,
    SqlParameterError,
    SqlParameterTooLargeError,
    TurnEnded,
)

from tests.shards.sql_turns import MIB, make, rows, turn

__all__ = ["turn"]


async def test_what_a_turn_wrote_is_there_for_the_next_and_after_the_connection_was_closed(turn: Any) -> None:
    await turn(make)
    await turn(lambda sql, _: sql.exec("INSERT INTO t (v) VALUES (?), (?)", "x", 2) and None)
    assert await turn(lambda sql, _: rows(sql)) == [{"id": 1, "v": "x"}, {"id": 2, "v": 2}]
    turn.driver.sql().drop()
    assert await turn(lambda sql, _: rows(sql)) == [{"id": 1, "v": "x"}, {"id": 2, "v": 2}]
    assert await turn(lambda sql, _: sql.exec("SELECT count(*) AS n FROM sqlite_schema").one(), "other") == {"n": 0}


async def test_a_turn_that_throws_after_writes_leaves_tables_rows_and_keys_as_they_were(turn: Any) -> None:
    await turn(make)

    async def throw(sql: Any, storage: Any) -> None:
        await storage.put("key", 1)
        sql.exec("INSERT INTO t (v) VALUES (1)")
        sql.exec("CREATE TABLE u (a)")
        sql.exec("DROP TABLE t")
        raise ValueError("no")

    await turn(throw, fails="ActorMethodError")

    async def look(sql: Any, storage: Any) -> Any:
        return [r["name"] for r in sql.exec("SELECT name FROM sqlite_schema")], rows(sql), await storage.get("key")

    assert await turn(look) == [["t"], [], None]
    turn.driver.sql().drop()
    assert await turn(look) == [["t"], [], None]


async def test_several_statements_run_in_order_and_bindings_go_to_the_last(turn: Any) -> None:
    def several(sql: Any, _: Any) -> Any:
        cursor = sql.exec(
            "-- a ; comment\nCREATE TABLE t (a TEXT); INSERT INTO t VALUES ('semi;colon'), (';');;"
            "INSERT INTO t VALUES (?), (?) RETURNING a AS 'x;' ; -- end ;",
            "é",
            "last",
        )
        return cursor.rows_written, cursor.to_list(), [row["a"] for row in sql.exec("SELECT a FROM t")]

    written, returned, all_ = await turn(several)
    assert (written, returned, all_) == (4, [{"x;": "é"}, {"x;": "last"}], ["semi;colon", ";", "é", "last"])


@pytest.mark.parametrize(
    "query", ["INSERT INTO t (v) VALUES (9); INSERT INTO nowhere VALUES (?)", "INSERT INTO t (v) VALUES (9); SELEC ?"]
)
async def test_several_statements_take_effect_together_or_not_at_all(turn: Any, query: str) -> None:
    await turn(make)

    def fail(sql: Any, _: Any) -> Any:
        with pytest.raises(SqlError):
            sql.exec(query, 1)
        sql.exec("INSERT INTO t (v) VALUES ('kept')")
        return [row["v"] for row in sql.exec("SELECT v FROM t")]

    assert await turn(fail) == ["kept"]
    assert await turn(lambda sql, _: len(rows(sql))) == 1


async def test_an_earlier_statement_with_parameters_is_refused(turn: Any) -> None:
    def fail(sql: Any, _: Any) -> None:
        with pytest.raises(SqlParameterError, match="last of several"):
            sql.exec("SELECT ?; SELECT ?", 1, 2)

    await turn(fail)


@pytest.mark.parametrize("query", ["", ";", "  -- nothing", "/* */ ;"])
async def test_a_text_without_a_statement_returns_no_rows(turn: Any, query: str) -> None:
    assert await turn(lambda sql, _: sql.exec(query).to_list()) == []


VALUES = [None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**53 + 1, 0.1, float("inf"), "", "ü\0🙂", b"", b"\0\xff"]


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_values_come_back_equal_and_exact(turn: Any, value: Any) -> None:
    def there_and_back(sql: Any, _: Any) -> None:
        make(sql)
        sql.exec("INSERT INTO t (v) VALUES (?)", value)
        found = sql.exec("SELECT v FROM t").one()["v"]
        assert found == value
        assert type(found) is (int if type(value) is bool else type(value))

    await turn(there_and_back)


async def test_views_of_bytes_can_be_bound(turn: Any) -> None:
    def bind(sql: Any, _: Any) -> None:
        assert sql.exec("SELECT ? AS a, ? AS b", bytearray(b"x"), memoryview(b"xy")).one() == {"a": b"x", "b": b"xy"}

    await turn(bind)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, float("nan"), [1], {"a": 1}, ..., "\ud800", 1j], ids=repr)
async def test_what_can_not_be_stored_exactly_is_refused_by_name(turn: Any, value: Any) -> None:
    await turn(make)

    def bind(sql: Any, _: Any) -> int:
        with pytest.raises(SqlParameterError):
            sql.exec("INSERT INTO t (v) VALUES (?)", value)
        return len(rows(sql))

    assert await turn(bind) == 0


@pytest.mark.parametrize(
    "value", ["x" * (2 * MIB + 1), "é" * (MIB + 1), b"x" * (3 * MIB)], ids=["str", "utf8", "bytes"]
)
async def test_a_value_over_two_mebibytes_is_refused_before_anything_runs(turn: Any, value: Any) -> None:
    await turn(make)

    def bind(sql: Any, _: Any) -> int:
        with pytest.raises(SqlParameterTooLargeError):
            sql.exec("INSERT INTO t (v) VALUES (1); INSERT INTO t (v) VALUES (?)", value)
        return len(rows(sql))

    assert await turn(bind) == 0
    assert await turn(lambda sql, _: sql.exec("INSERT INTO t (v) VALUES (?)", b"x" * 2 * MIB).rows_written) == 1


@pytest.mark.parametrize("bindings", [(), (1, 2)])
async def test_the_number_of_bindings_must_fit(turn: Any, bindings: tuple[int, ...]) -> None:
    def bind(sql: Any, _: Any) -> None:
        with pytest.raises(SqlParameterError):
            sql.exec("SELECT ?", *bindings)

    await turn(bind)


async def test_a_cursor_is_read_once_in_any_way(turn: Any) -> None:
    def read(sql: Any, _: Any) -> None:
        make(sql)
        sql.exec("INSERT INTO t (v) VALUES (10), (20), (30), (40)")
        cursor = sql.exec("SELECT id, v AS value FROM t ORDER BY id")
        assert cursor.column_names == ("id", "value")
        assert next(cursor) == {"id": 1, "value": 10}
        assert next(cursor.raw()) == (2, 20)
        assert cursor.to_list() == [{"id": 3, "value": 30}, {"id": 4, "value": 40}]
        assert cursor.to_list() == []
        assert list(cursor) == []
        assert list(sql.exec("SELECT 1 AS a, 2 AS a").raw()) == [(1, 2)]
        assert sql.exec("SELECT id, v FROM t WHERE 0").column_names == ("id", "v")
        assert sql.exec("UPDATE t SET v = 0 WHERE id > 1").rows_written == 3

    await turn(read)


async def test_one_is_for_exactly_one_row(turn: Any) -> None:
    def read(sql: Any, _: Any) -> None:
        assert sql.exec("SELECT 1 AS a").one() == {"a": 1}
        for query in ("SELECT 1 WHERE 0", "SELECT 1 UNION SELECT 2", "VALUES (1), (2), (3)"):
            with pytest.raises(SqlNotOneRowError):
                sql.exec(query).one()

    await turn(read)


async def test_an_unfinished_cursor_ends_with_its_turn_and_hinders_nothing(turn: Any) -> None:
    kept: list[Any] = []

    def leave(sql: Any, _: Any) -> None:
        make(sql)
        sql.exec("INSERT INTO t (v) VALUES (1), (2), (3), (4)")
        kept.append(sql.exec("SELECT * FROM t"))
        next(kept[0])
        kept.append(sql.exec("INSERT INTO t (v) VALUES (5), (6) RETURNING v"))

    await turn(leave)

    def read(sql: Any, _: Any) -> int:
        with pytest.raises(TurnEnded):
            next(kept[0])
        return len(rows(sql))

    assert await turn(read) == 6

    def throw(sql: Any, _: Any) -> None:
        kept.append(sql.exec("SELECT * FROM t"))
        sql.exec("DELETE FROM t")
        raise ValueError

    await turn(throw, fails="ActorMethodError")
    assert await turn(read) == 6


async def test_only_the_turn_that_runs_may_use_it(turn: Any) -> None:
    kept: list[Any] = []

    async def leave(sql: Any, _: Any) -> None:
        make(sql)

        async def late() -> None:
            await asyncio.sleep(5)
            with pytest.raises(TurnEnded):
                sql.exec("INSERT INTO t (v) VALUES (1)")
            with pytest.raises(TurnEnded):
                sql.transaction_sync(lambda: None)

        kept.extend([asyncio.get_running_loop().create_task(late()), sql])

    await turn(leave)
    await kept[0]
    with pytest.raises(TurnEnded):
        kept[1].exec("SELECT 1")

    def other(sql: Any, _: Any) -> None:
        with pytest.raises(TurnEnded):
            kept[1].exec("SELECT 1")

    await turn(other, "b")
    assert await turn(lambda sql, _: len(rows(sql))) == 0


async def test_a_failed_statement_undoes_itself_and_the_turn_goes_on(turn: Any) -> None:
    def fail(sql: Any, _: Any) -> None:
        sql.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE NOT NULL)")
        sql.exec("INSERT INTO t (v) VALUES (1)")
        with pytest.raises(SqlConstraintError, match="UNIQUE") as caught:
            sql.exec("INSERT INTO t (v) VALUES (2), (3), (1), (4)")
        assert caught.value.statement.startswith("INSERT")
        with pytest.raises(SqlError, match="no such table"):
            sql.exec("SELECT * FROM nowhere")
        sql.exec("INSERT INTO t (v) VALUES (5)")

    await turn(fail)
    assert await turn(lambda sql, _: [row["v"] for row in rows(sql)]) == [1, 5]


async def test_foreign_keys_hold_and_a_deferred_violation_commits_nothing_of_the_turn(turn: Any) -> None:
    def schema(sql: Any, _: Any) -> None:
        sql.exec("CREATE TABLE p (id INTEGER PRIMARY KEY)")
        sql.exec("CREATE TABLE c (p REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED); CREATE TABLE d (p REFERENCES p)")
        with pytest.raises(SqlConstraintError):
            sql.exec("INSERT INTO d VALUES (1)")

    await turn(schema)

    async def violate(sql: Any, storage: Any) -> str:
        await storage.put("key", "never")
        sql.exec("INSERT INTO c VALUES (77)")
        return "never"

    await turn(violate, fails="SqlConstraintError")

    async def look(sql: Any, storage: Any) -> Any:
        return await storage.get("key"), rows(sql, "c")

    assert await turn(look) == [None, []]


async def test_transaction_sync_undoes_itself_alone_and_nests(turn: Any) -> None:
    def nested(sql: Any, _: Any) -> Any:
        make(sql)

        def insert(value: int) -> None:
            sql.exec("INSERT INTO t (v) VALUES (?)", value)

        def outer() -> str:
            insert(1)
            with pytest.raises(ZeroDivisionError):
                sql.transaction_sync(lambda: (insert(2), sql.transaction_sync(lambda: insert(3)), 1 / 0))
            sql.transaction_sync(lambda: insert(4))
            return "result"

        assert sql.transaction_sync(outer) == "result"
        with pytest.raises(KeyError):
            sql.transaction_sync(lambda: (insert(5), {}["no"]))
        return [row["v"] for row in rows(sql)]

    assert await turn(nested) == [1, 4]
    assert await turn(lambda sql, _: [row["v"] for row in rows(sql)]) == [1, 4]


async def test_an_async_callback_is_refused_and_leaves_nothing(turn: Any) -> None:
    async def is_async() -> None:
        raise AssertionError("never runs")

    def attempt(sql: Any, _: Any) -> int:
        make(sql)
        for callback in (
            is_async,
            lambda: (sql.exec("INSERT INTO t (v) VALUES (1)"), is_async())[1],
            lambda: (sql.exec("INSERT INTO t (v) VALUES (1)"), asyncio.get_running_loop().create_future())[1],
        ):
            with pytest.raises(SqlAsyncTransactionError):
                sql.transaction_sync(callback)
        return len(rows(sql))

    assert await turn(attempt) == 0


async def test_useful_pragmas_work(turn: Any) -> None:
    def look(sql: Any, _: Any) -> None:
        sql.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)")
        sql.exec("PRAGMA user_version = 7")
        assert sql.exec("PRAGMA user_version").one() == {"user_version": 7}
        assert [row["name"] for row in sql.exec("PRAGMA table_info(t)")] == ["id", "v"]
        assert [row["name"] for row in sql.exec("SELECT name FROM pragma_table_info('t')")] == ["id", "v"]
        assert len(sql.exec("PRAGMA index_list('t')").to_list()) == 1
        assert sql.exec("PRAGMA integrity_check").one() == {"integrity_check": "ok"}
        assert sql.exec("PRAGMA foreign_keys").one() == {"foreign_keys": 1}
        sql.exec("PRAGMA optimize")
        sql.exec("ANALYZE; REINDEX")

    await turn(look)
    assert await turn(lambda sql, _: sql.exec("PRAGMA user_version").one()) == {"user_version": 7}


async def test_full_text_search_rtree_and_json_work_across_connections(turn: Any) -> None:
    def fill(sql: Any, _: Any) -> None:
        sql.exec("""
            CREATE TABLE doc (id INTEGER PRIMARY KEY, body TEXT);
            CREATE VIRTUAL TABLE idx USING fts5(body, content='doc', content_rowid='id');
            CREATE TRIGGER doc_ai AFTER INSERT ON doc BEGIN INSERT INTO idx(rowid, body) VALUES (new.id, new.body); END;
            CREATE VIRTUAL TABLE box USING rtree(id, x0, x1);
            INSERT INTO box VALUES (1, 0, 5), (2, 10, 20);
        """)
        for text in ("a quick brown fox", "lazy dogs", "the quick dog"):
            sql.exec("INSERT INTO doc (body) VALUES (?)", text)

    await turn(fill)

    def search(sql: Any, _: Any) -> Any:
        found = sql.exec("SELECT rowid FROM idx WHERE idx MATCH ? ORDER BY rank", "quick").to_list()
        json = sql.exec("""SELECT json_extract('{"a": [1, 2]}', '$.a[1]') AS v, json_group_array(id) AS ids FROM doc""")
        return sorted(row["rowid"] for row in found), json.one(), sql.exec("SELECT id FROM box WHERE x1 > 6").to_list()

    expected = [[1, 3], {"v": 2, "ids": "[1,2,3]"}, [{"id": 2}]]
    assert await turn(search) == expected
    turn.driver.sql().drop()
    assert await turn(search) == expected

    def fail(sql: Any, _: Any) -> None:
        sql.exec("INSERT INTO doc (body) VALUES ('quick quick')")
        raise ValueError

    await turn(fail, fails="ActorMethodError")
    assert await turn(search) == expected


async def test_reading_alone_writes_nothing_and_keeps_the_instance_when_it_fails(turn: Any) -> None:
    await turn(make)
    core = turn.driver.core
    seq = core.store.commit_seq

    def read(sql: Any, _: Any) -> None:
        rows(sql)
        raise ValueError

    before = core.activation("a").instance
    await turn(read, fails="ActorMethodError")
    assert core.activation("a").instance is before
    await turn(lambda sql, _: len(rows(sql)))
    assert core.store.commit_seq == seq


async def test_a_name_that_only_looked_stays_unknown_to_the_store(turn: Any) -> None:
    assert await turn(lambda sql, _: (sql.exec("SELECT 1 AS a").one()["a"], sql.database_size), "n") == [1, 0]
    assert turn.driver.core.store.commit_seq == 0
