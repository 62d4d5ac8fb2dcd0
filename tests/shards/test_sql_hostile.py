"""SQL that an actor may not run: refused by name, and nothing of it or with it is lost or left."""

from __future__ import annotations

from typing import Any

import pytest
from actord.errors import SqlError, SqlNotAllowedError, SqlTransactionControlError

from tests.shards.sql_turns import MIB, make, rows, turn

__all__ = ["turn"]

CONTROL = """BEGIN|BEGIN IMMEDIATE|COMMIT|END|ROLLBACK|SAVEPOINT s1|RELEASE s1|ROLLBACK TO s1|begin transaction
SAVEPOINT x; SELECT 1|SELECT 1; COMMIT|EXPLAIN COMMIT""".replace("\n", "|").split("|")


@pytest.mark.parametrize("query", CONTROL)
async def test_raw_transaction_control_is_refused_also_when_spelled_as_ours(turn: Any, query: str) -> None:
    await turn(make)

    def attempt(sql: Any, _: Any) -> int:
        sql.transaction_sync(lambda: sql.exec("INSERT INTO t (v) VALUES (1)"))
        with pytest.raises(SqlTransactionControlError):
            sql.exec(query)
        with pytest.raises(SqlTransactionControlError):
            sql.transaction_sync(lambda: sql.exec(query))
        return len(rows(sql))

    for expected in (1, 2, 3):
        assert await turn(attempt) == expected


HOSTILE = [
    "ATTACH '/tmp/x.db' AS x",
    "ATTACH ':memory:' AS x",
    "DETACH main",
    "VACUUM INTO '/tmp/y.db'",
    "VACUUM",
    "SELECT load_extension('x')",
    "SELECT fts3_tokenizer('simple')",
    "PRAGMA writable_schema = ON",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA journal_mode",
    "PRAGMA locking_mode = NORMAL",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA trusted_schema = ON",
    "PRAGMA max_page_count = 4294967294",
    "PRAGMA cache_size = -1000000",
    "PRAGMA temp_store_directory = '/tmp'",
    "PRAGMA data_store_directory = '/tmp'",
    "PRAGMA hard_heap_limit = 1000",
    "PRAGMA schema_version = 7",
    "PRAGMA wal_checkpoint",
    "PRAGMA nonsense",
    "PRAGMA main.mmap_size = 1000000",
    "SELECT * FROM pragma_database_list",
    "UPDATE sqlite_schema SET sql = 'x'",
    "DELETE FROM sqlite_master",
    "INSERT INTO sqlite_schema VALUES ('table','x','x',2,'CREATE TABLE x(a)')",
    "CREATE TEMP TABLE x (a)",
    "CREATE TEMP VIEW x AS SELECT 1",
    "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE x USING dbstat",
    "CREATE VIRTUAL TABLE x USING fts4(a)",
    "SELECT zeroblob(100000000)",
    "SELECT " + "abs(" * 500 + "1" + ")" * 500,
    "SELECT " + "+".join("1" * 1000),
    "SELECT 1 " + "UNION SELECT 1 " * 500,
    "CREATE TABLE x (" + ", ".join(f"c{n}" for n in range(600)) + ")",
    "SELECT '" + "x" * (2 * MIB) + "'",
    "SELECT 1 \0 ; SELECT 2",
    'SELECT "not a column"',
    "SELECT '\ud800'",
]


@pytest.mark.parametrize("query", HOSTILE, ids=lambda query: query[:40].encode("ascii", "replace").decode())
async def test_hostile_sql_is_refused_by_name_and_leaves_nothing(turn: Any, query: str) -> None:
    await turn(make)

    def attempt(sql: Any, _: Any) -> None:
        sql.exec("INSERT INTO t (v) VALUES (1)")
        with pytest.raises(SqlError):
            sql.exec(query)
        with pytest.raises(SqlError):
            sql.exec(f"INSERT INTO t (v) VALUES (2); {query}")

    await turn(attempt)
    turn.driver.sql().drop()
    assert await turn(lambda sql, _: len(rows(sql))) == 1
    assert await turn(lambda sql, _: [row["name"] for row in sql.exec("SELECT name FROM sqlite_schema")]) == ["t"]


async def test_attach_and_its_like_are_refused_as_not_allowed(turn: Any) -> None:
    def attempt(sql: Any, _: Any) -> None:
        for query in (
            "ATTACH 'x' AS y",
            "PRAGMA journal_mode = WAL",
            "CREATE TEMP TABLE x (a)",
            "SELECT load_extension(1)",
        ):
            with pytest.raises(SqlNotAllowedError):
                sql.exec(query)

    await turn(attempt)
