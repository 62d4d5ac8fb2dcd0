"""One function of (sql, storage) after the other, each run as a turn of one actor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from actord import StatefulActor

from tests.support.harness import Core

MIB = 1024 * 1024


class Actor(StatefulActor):
    """Runs what a test gives it: functions of (sql, storage)."""

    do: Callable[..., Any]

    async def run(self) -> Any:
        result = type(self).do(self.ctx.storage.sql, self.ctx.storage)
        return await result if asyncio.iscoroutine(result) else result


class Driver:
    def __init__(self, store: Any, **settings: Any) -> None:
        self.core = Core(Actor, store=store, **settings)

    async def __call__(self, do: Callable[..., Any], name: str = "a", fails: str = "") -> Any:
        Actor.do = staticmethod(do)
        answer = await self.core.call(name, "run")
        assert answer.name == fails, answer
        return answer.value

    def sql(self, name: str = "a") -> Any:
        return self.core.activation(name).kv.used_sql


@pytest.fixture
def turn(store: Any) -> Callable[..., Any]:
    """Awaited with a function, it runs that as one turn and returns the answer's value."""
    driver: list[Driver] = []

    async def run(do: Callable[..., Any], name: str = "a", fails: str = "") -> Any:
        if not driver:
            driver.append(Driver(store))
        run.driver = driver[0]  # type: ignore[attr-defined]
        return await driver[0](do, name, fails)

    return run


def rows(sql: Any, table: str = "t") -> list[Any]:
    return sql.exec(f"SELECT * FROM {table}").to_list()


def make(sql: Any, *_: Any) -> None:
    sql.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
