"""The life of an actor's SQL database: connections that come and go, limits, full disks, delete_all, sizes."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from actord import StatefulActor
from actord.errors import SqlError, SqlTooLargeError
from actord.shards import sql as sql_module
from actord.shards import sql_vfs

from tests.support import memory_store
from tests.support.harness import Core, open_sqlite

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


class Table(StatefulActor):
    async def insert(self, count: int = 1, size: int = 10) -> int:
        sql = self.ctx.storage.sql
        sql.exec("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v)")
        value = b"x" * size
        for _ in range(count):
            sql.exec("INSERT INTO t (v) VALUES (?)", value)
        return await self.count()

    async def count(self) -> int:
        sql = self.ctx.storage.sql
        found: int = sql.exec("SELECT count(*) AS n FROM t").one()["n"]
        return found

    async def pick(self, id: int) -> int:
        return len(self.ctx.storage.sql.exec("SELECT v FROM t WHERE id = ?", id).one()["v"])

    async def size(self) -> int:
        return self.ctx.storage.sql.database_size

    async def clear(self, throw: bool = False) -> None:
        await self.ctx.storage.put("key", 1)
        await self.ctx.storage.delete_all()
        if throw:
            raise ValueError

    async def replace(self, count: int) -> int:
        await self.ctx.storage.delete_all()
        return await self.insert(count, 900)

    async def waits(self, seconds: float) -> int:
        await self.insert()
        await asyncio.sleep(seconds)
        return await self.count()

    async def endless(self, how: str = "") -> Any:
        sql = self.ctx.storage.sql
        await self.insert()
        try:
            if how == "write":
                return sql.exec("CREATE TABLE e AS " + ENDLESS).to_list()
            if how == "iterate":
                return sum(1 for _ in sql.exec(ENDLESS.replace("count(*)", "x")))
            return sql.exec(ENDLESS).to_list()
        except Exception:
            if how == "swallow":
                return "swallowed"
            if how == "other":
                raise KeyError from None
            raise

    async def catches(self, query: str) -> str:
        await self.insert()
        try:
            self.ctx.storage.sql.exec(query)
        except SqlError as error:
            return type(error).__name__
        return ""


def connections(core: Core) -> int:
    return len(core.dispatcher.hosts["Table"].sql_pool.open)


async def test_the_least_recently_used_idle_connection_is_closed_first(store: Any) -> None:
    core = Core(Table, store=store, sql_connections=3)
    for name in "abcd":
        assert await core.value(name, "insert") == 1
    assert connections(core) == 3
    open_ = [name for name in "abcd" if core.activation(name).kv.used_sql._db is not None]
    assert open_ == ["b", "c", "d"]
    await core.value("b", "count")
    assert await core.value("a", "count") == 1
    assert [name for name in "abcd" if core.activation(name).kv.used_sql._db is not None] == ["a", "b", "d"]
    for name in "abcd":
        assert await core.value(name, "insert") == 2


async def test_a_connection_in_use_is_never_closed_for_another(store: Any) -> None:
    core = Core(Table, store=store, sql_connections=1)
    waiting = [core.call(name, "waits", 10) for name in "abc"]
    assert await core.value("d", "insert") == 1
    assert [(await each).value for each in waiting] == [1, 1, 1]
    for name in "abcd":
        assert await core.value(name, "count") == 1
    assert connections(core) <= 4
    await core.value("e", "insert")


async def test_eviction_closes_the_connection_and_loses_nothing(store: Any) -> None:
    core = Core(Table, store=store, idle_after=1)
    await core.value("a", "insert", 5)
    kept = core.activation("a").kv.used_sql
    for _ in range(4):
        core.sweep()
    assert "a" not in core.activations()
    assert connections(core) == 0
    assert kept._db is None
    assert await core.value("a", "count") == 5


async def test_pages_of_the_open_batch_are_read_by_a_new_connection(store: Any) -> None:
    core = Core(Table, store=store)
    await core.value("a", "insert", 50, 500)
    core.hold_fsyncs()
    first = core.call("a", "insert", 50, 500)
    second = core.call("a", "insert", 1)
    third = core.call("a", "clear")
    fourth = core.call("a", "insert", 7)
    await asyncio.sleep(0)
    while not fourth.done:
        for name in "a":
            sql = core.activation(name).kv.used_sql
            if sql.idle:
                sql.drop()
        await asyncio.sleep(0)
        if core.flusher.waiting:
            await core.fsync()
    assert [each.answer.value for each in (first, second, third, fourth)] == [100, 101, None, 7]
    assert await core.value("a", "count") == 7


async def test_a_full_disk_takes_the_batch_back_and_the_connection_with_it() -> None:
    store = memory_store.MemoryStore()
    core = Core(Table, store=store)
    await core.value("a", "insert", 3)
    store.fail_write.append(memory_store.full())
    answer = await core.call("a", "insert", 2)
    assert (answer.status, answer.name, answer.applied) == (507, "ActorOutputGateError", "no")
    assert await core.value("a", "count") == 3
    assert await core.value("a", "insert") == 4


async def test_a_full_disk_interrupts_a_turn_that_has_read_what_is_gone() -> None:
    store = memory_store.MemoryStore()
    core = Core(Table, store=store)
    await core.value("a", "insert", 3)
    core.hold_fsyncs()
    held = core.call("b", "insert")
    gone = core.call("a", "insert", 2)
    running = core.call("a", "waits", 50)
    await asyncio.sleep(0)
    store.fail_write.append(memory_store.full())
    while not (held.done and gone.done):
        await asyncio.sleep(0)
        if core.flusher.waiting:
            await core.fsync()
    core.flusher.auto = True
    while core.flusher.waiting:
        await core.fsync()
    await running
    expected = 3 + 2 * (gone.answer.status == 200) + (running.answer.status == 200)
    assert await core.value("a", "count") == expected


async def test_delete_all_gives_the_pages_back_with_the_keys_or_not_at_all(store: Any) -> None:
    core = Core(Table, store=store)
    await core.value("a", "insert", 100, 1000)
    actor = core.activation("a").kv.actor_id
    assert core.store.page_count(actor) > 90
    answer = await core.call("a", "clear", True)
    assert answer.status == 500
    assert await core.value("a", "count") == 100
    await core.value("a", "clear")
    assert core.store.page_count(actor) == 0
    assert await core.value("a", "size") == 0
    assert await core.value("a", "insert") == 1


async def test_a_database_begun_after_delete_all_is_read_on_beyond_the_cache(store: Any) -> None:
    core = Core(Table, store=store)
    await core.value("a", "insert", 10)
    assert await core.value("a", "replace", 200) == 200
    for id_ in (1, 100, 200):
        assert await core.value("a", "pick", id_) == 900
    assert await core.value("a", "insert") == 201


async def test_pages_of_deleted_rows_are_used_again(store: Any) -> None:
    core = Core(Table, store=store)
    sizes = set()
    for _ in range(10):
        await core.value("a", "insert", 100, 1000)
        sizes.add(await core.value("a", "size"))
        await core.value("a", "catches", "DELETE FROM t")
    assert len(sizes) <= 2


@pytest.mark.real_time
@pytest.mark.parametrize("how", ["", "write", "iterate", "swallow", "other"])
async def test_a_query_that_runs_over_the_turns_time_is_interrupted_and_the_turn_fails(store: Any, how: str) -> None:
    core = Core(Table, store=store, call_timeout=0.3)
    await core.value("a", "insert")
    answer = await core.call("a", "endless", how)
    assert (answer.status, answer.name) == (504, "ActorMethodTimeoutError")
    assert await core.value("a", "count") == 1


async def test_a_statement_that_takes_too_much_memory_is_interrupted(store: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sql_module, "SQL_TURN_BYTES", 8 << 20)
    core = Core(Table, store=store)
    await core.value("a", "insert")
    query = "WITH RECURSIVE c(x) AS (SELECT 1 UNION SELECT x + 1 FROM c) SELECT count(*) FROM c"
    assert await core.value("a", "catches", query) == "SqlTooLargeError"
    assert await core.value("a", "count") == 2


async def test_a_database_has_a_largest_size_and_the_turn_that_goes_over_it_leaves_nothing(
    store: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sql_module.Database, "__init__", _small(sql_module.Database.__init__))
    core = Core(Table, store=store)
    await core.value("a", "insert", 20, 900)
    answer = await core.call("a", "insert", 100, 900)
    assert answer.name == "SqlTooLargeError"
    assert await core.value("a", "count") == 20
    assert await core.value("a", "size") < 64 * 1024


def _small(real: Any) -> Any:
    def init(self: Any, *args: Any) -> None:
        real(self, *args)
        self._run("PRAGMA max_page_count = 64")

    return init


async def test_one_turn_changes_at_most_so_much(store: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sql_vfs, "TURN_PAGES", 200)
    core = Core(Table, store=store)
    await core.value("a", "insert", 100, 900)
    answer = await core.call("a", "insert", 300, 900)
    assert answer.name == SqlTooLargeError.__name__
    assert await core.value("a", "count") == 100
    assert await core.value("a", "insert", 50, 900) == 150


async def test_a_damaged_page_is_an_error_and_never_a_wrong_answer(tmp_path: Path) -> None:
    with open_sqlite(tmp_path) as store:
        core = Core(Table, store=store)
        await core.value("a", "insert", 50, 900)
        core.activation("a").kv.used_sql.drop()
        store._conn.execute("UPDATE page SET sum = sum + 1 WHERE id & 2097151 = 10")
        answer = await core.call("a", "count")
        assert answer.name == "StoreCorrupt"
        assert await core.value("b", "insert") == 1


async def test_a_hundred_thousand_rows_in_one_turn_take_bounded_memory(tmp_path: Path) -> None:
    with open_sqlite(tmp_path) as store:
        core = Core(Table, store=store)
        tracemalloc.start()
        try:
            assert await core.value("a", "insert", 100_000, 100) == 100_000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 80 << 20  # the 12 MB of pages, as collected, as rows, and no more
        core.activation("a").kv.used_sql.drop()
        assert await core.value("a", "count") == 100_000


async def test_a_large_database_is_opened_without_being_read(tmp_path: Path) -> None:
    with open_sqlite(tmp_path) as store:
        core = Core(Table, store=store)
        for _ in range(4):
            await core.value("a", "insert", 8_000, 6_000)
        assert await core.value("a", "size") > 180 << 20
        core.activation("a").kv.used_sql.drop()
        reads = 0
        real = store.read_page

        def counted(actor: int, number: int) -> Any:
            nonlocal reads
            reads += 1
            return real(actor, number)

        store.read_page = counted
        assert await core.value("a", "pick", 31_999) == 6_000
        assert reads < 20
