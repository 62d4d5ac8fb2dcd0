"""``async with storage.transaction()``: exactly the block's writes are undone, of keys, SQL and alarm."""

# ruff: noqa: PT012  (what is expected to raise is a block)

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from actord import StatefulActor
from actord.errors import SqlConstraintError

from tests.support.harness import Core


class Actor(StatefulActor):
    do: Callable[..., Any]

    async def run(self) -> Any:
        return await type(self).do(self.ctx.storage, self.ctx.storage.sql)

    async def look(self) -> Any:
        keys = await self.ctx.storage.list()
        alarm = await self.ctx.storage.get_alarm()
        tables = self.ctx.storage.sql.exec("SELECT name FROM sqlite_schema WHERE name = 't'").to_list()
        rows = [row["v"] for row in self.ctx.storage.sql.exec("SELECT v FROM t")] if tables else None
        return [keys, rows, alarm and alarm.timestamp()]

    async def alarm(self, info: Any) -> None:
        raise AssertionError("not in these tests")


class Turns:
    def __init__(self, store: Any) -> None:
        self.core = Core(Actor, store=store)

    async def __call__(self, do: Callable[..., Any], fails: str = "") -> Any:
        Actor.do = staticmethod(do)
        answer = await self.core.call("a", "run")
        assert answer.name == fails, answer
        return answer.value

    async def state(self, *, cold: bool = False) -> Any:
        if cold:
            self.core.activation("a").forget()
        return await self.core.value("a", "look")


FAR = 4_000_000_000


async def begin(storage: Any, sql: Any) -> None:
    """Every test starts from this state."""
    sql.exec("CREATE TABLE IF NOT EXISTS t (v UNIQUE); INSERT INTO t VALUES (0)")
    await storage.put("k", 0)


BEGUN = [{"k": 0}, [0], None]


async def write(storage: Any, value: int) -> None:
    storage.sql.exec("INSERT INTO t VALUES (?)", value)
    await storage.put(f"k{value}", value)


async def test_a_block_that_raises_undoes_exactly_its_writes_and_the_exception_goes_on(store: Any) -> None:
    turns = Turns(store)
    await turns(begin)

    async def fail_inside(storage: Any, sql: Any) -> None:
        await write(storage, 1)
        with pytest.raises(KeyError):
            async with storage.transaction() as txn:
                await txn.put("k", "changed")
                await txn.delete("k1")
                txn.sql.exec("DELETE FROM t; DROP TABLE t")
                storage.set_alarm(FAR)
                raise KeyError
        await write(storage, 2)

    await turns(fail_inside)
    expected = [{"k": 0, "k1": 1, "k2": 2}, [0, 1, 2], None]
    assert await turns.state() == expected
    assert await turns.state(cold=True) == expected


async def test_an_exception_that_nobody_catches_fails_the_whole_turn(store: Any) -> None:
    turns = Turns(store)
    await turns(begin)

    async def fail(storage: Any, sql: Any) -> None:
        await write(storage, 1)
        async with storage.transaction():
            await write(storage, 2)
            raise KeyError

    await turns(fail, fails="ActorMethodError")
    assert await turns.state() == BEGUN


async def test_a_block_that_ends_stays_with_the_turn_and_falls_with_it(store: Any) -> None:
    turns = Turns(store)
    await turns(begin)

    async def fail_later(storage: Any, sql: Any) -> None:
        async with storage.transaction():
            await write(storage, 1)
            storage.set_alarm(FAR)
        raise KeyError

    await turns(fail_later, fails="ActorMethodError")
    assert await turns.state() == BEGUN

    async def succeed(storage: Any, sql: Any) -> None:
        async with storage.transaction():
            await write(storage, 1)
            storage.set_alarm(FAR)

    await turns(succeed)
    assert await turns.state() == [{"k": 0, "k1": 1}, [0, 1], FAR]


async def test_blocks_nest(store: Any) -> None:
    turns = Turns(store)
    await turns(begin)

    async def nested(storage: Any, sql: Any) -> None:
        async with storage.transaction():
            await write(storage, 1)
            with pytest.raises(KeyError):
                async with storage.transaction():
                    await write(storage, 2)
                    async with storage.transaction():
                        await write(storage, 3)
                    raise KeyError
            async with storage.transaction():
                await write(storage, 4)
        with pytest.raises(ValueError):  # noqa: PT011
            async with storage.transaction():
                await write(storage, 5)
                async with storage.transaction():
                    await write(storage, 6)
                raise ValueError

    await turns(nested)
    assert await turns.state() == [{"k": 0, "k1": 1, "k4": 4}, [0, 1, 4], None]


async def test_a_block_may_be_the_first_to_use_sql(store: Any) -> None:
    turns = Turns(store)
    await turns(begin)

    async def first_inside(storage: Any, sql: Any) -> None:
        for value in (1, 2):
            with pytest.raises(KeyError):
                async with storage.transaction():
                    async with storage.transaction():
                        await write(storage, value)
                    raise KeyError
        async with storage.transaction():
            await write(storage, 3)

    await turns(first_inside)
    assert await turns.state() == [{"k": 0, "k3": 3}, [0, 3], None]


async def test_rollback_undoes_without_an_exception(store: Any) -> None:
    turns = Turns(store)
    await turns(begin)

    async def roll_back(storage: Any, sql: Any) -> None:
        async with storage.transaction() as txn:
            await write(storage, 1)
            txn.rollback()
            for use in (lambda: txn.put("k", 1), lambda: storage.put("k", 1)):
                with pytest.raises(RuntimeError, match="rolled back"):
                    await use()
        await write(storage, 2)

    await turns(roll_back)
    assert await turns.state() == [{"k": 0, "k2": 2}, [0, 2], None]


async def test_a_constraint_that_fails_inside_is_undone_with_its_block(store: Any) -> None:
    turns = Turns(store)
    await turns(begin)

    async def violate(storage: Any, sql: Any) -> None:
        with pytest.raises(SqlConstraintError):
            async with storage.transaction():
                await write(storage, 1)
                await write(storage, 0)

    await turns(violate)
    assert await turns.state() == BEGUN


@pytest.mark.parametrize("raises", [False, True])
async def test_delete_all_inside_a_block(store: Any, raises: bool) -> None:
    turns = Turns(store)
    await turns(begin)

    async def clear(storage: Any, sql: Any) -> None:
        await write(storage, 1)
        try:
            async with storage.transaction():
                await storage.delete_all()
                assert sql.database_size == 0
                sql.exec("CREATE TABLE t (v); INSERT INTO t VALUES (100)")
                await storage.delete_all()
                sql.exec("CREATE TABLE t (v); INSERT INTO t VALUES (200)")
                await storage.put("new", 1)
                if raises:
                    raise KeyError
        except KeyError:
            pass
        sql.exec("INSERT INTO t VALUES (5)")

    await turns(clear)
    expected = [{"k": 0, "k1": 1}, [0, 1, 5], None] if raises else [{"new": 1}, [200, 5], None]
    assert await turns.state() == expected
    assert await turns.state(cold=True) == expected


async def test_another_task_of_the_turn_may_not_write_into_an_open_block(store: Any) -> None:
    turns = Turns(store)
    await turns(begin)

    async def two_tasks(storage: Any, sql: Any) -> None:
        opened = asyncio.Event()
        tried = asyncio.Event()

        async def sibling() -> None:
            await opened.wait()
            for use in (lambda: storage.put("k", 1), lambda: storage.transaction().__aenter__()):
                with pytest.raises(RuntimeError, match="another task"):
                    await use()
            with pytest.raises(RuntimeError, match="another task"):
                sql.exec("INSERT INTO t VALUES (9)")
            tried.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(sibling())
            async with storage.transaction():
                opened.set()
                await tried.wait()
                await asyncio.gather(storage.put("k1", 1), storage.put("k2", 2))  # tasks from inside belong to it
        await storage.put("k3", 3)

    await turns(two_tasks)
    assert await turns.state() == [{"k": 0, "k1": 1, "k2": 2, "k3": 3}, [0], None]


async def test_a_turn_that_runs_out_of_time_in_a_block_leaves_nothing(store: Any) -> None:
    turns = Turns(store)
    await turns(begin)

    async def swallow(storage: Any, sql: Any) -> None:
        try:
            async with storage.transaction():
                await write(storage, 1)
                await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(5)

    await turns(swallow, fails="ActorMethodTimeoutError")
    assert await turns.state() == BEGUN
    await asyncio.sleep(10)
    assert await turns.state() == BEGUN


async def test_a_block_is_entered_once(store: Any) -> None:
    turns = Turns(store)

    async def twice(storage: Any, sql: Any) -> None:
        block = storage.transaction()
        async with block:
            pass
        with pytest.raises(RuntimeError, match="once"):
            async with block:
                pass

    await turns(twice)
