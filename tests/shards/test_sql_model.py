"""Random turns over keys and SQL, with throws, blocks, delete_all, full disks, closed connections, evictions and new
workers, against a model that is a dict and a list."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
from actord import StatefulActor
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import memory_store, virtual_time
from tests.support.harness import Core, open_sqlite
from tests.support.lots import cases


class Undo(Exception):
    pass


class Mixed(StatefulActor):
    async def run(self, steps: list[Any]) -> None:
        await self.steps(steps)

    async def steps(self, steps: list[Any]) -> None:
        storage = self.ctx.storage
        sql = storage.sql
        for kind, *arguments in steps:
            if kind == "put":
                await storage.put(arguments[0], arguments[1])
            elif kind == "delete":
                await storage.delete(arguments[0])
            elif kind == "insert":
                sql.exec("CREATE TABLE IF NOT EXISTS t (k TEXT PRIMARY KEY, v) WITHOUT ROWID")
                sql.exec("REPLACE INTO t VALUES (?, ?)", arguments[0], "x" * arguments[1])
            elif kind == "remove":
                if self.tables():
                    sql.exec("DELETE FROM t WHERE k = ?", arguments[0])
            elif kind == "drop":
                sql.exec("DROP TABLE IF EXISTS t")
            elif kind == "clear":
                await storage.delete_all()
            elif kind == "throw":
                raise Undo
            elif kind == "block":
                try:
                    async with storage.transaction():
                        await self.steps(arguments[0])
                except Undo:
                    pass
            elif kind == "sync":
                with contextlib.suppress(Undo):
                    sql.transaction_sync(lambda inner=arguments[0]: self.sync(inner))

    def sync(self, steps: list[Any]) -> None:
        coroutine = self.steps([step for step in steps if step[0] in ("insert", "remove", "drop", "throw", "sync")])
        try:
            coroutine.send(None)
        except StopIteration:
            return
        raise AssertionError("nothing here waits")

    def tables(self) -> list[Any]:
        return self.ctx.storage.sql.exec("SELECT name FROM sqlite_schema").to_list()

    async def look(self) -> Any:
        rows = self.ctx.storage.sql.exec("SELECT k, v FROM t") if self.tables() else []
        return [await self.ctx.storage.list(), {row["k"]: len(row["v"]) for row in rows}]


class Model:
    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        self.rows: dict[str, int] = {}

    def run(self, steps: list[Any]) -> bool:
        before = copy.deepcopy((self.keys, self.rows))
        try:
            self.steps(steps)
        except Undo:
            self.keys, self.rows = before
            return False
        return True

    def steps(self, steps: list[Any], sync: bool = False) -> None:
        for kind, *arguments in steps:
            if sync and kind not in ("insert", "remove", "drop", "throw", "sync"):
                continue
            if kind == "put":
                self.keys[arguments[0]] = arguments[1]
            elif kind == "delete":
                self.keys.pop(arguments[0], None)
            elif kind == "insert":
                self.rows[arguments[0]] = arguments[1]
            elif kind == "remove":
                self.rows.pop(arguments[0], None)
            elif kind == "drop":
                self.rows = {}
            elif kind == "clear":
                self.keys, self.rows = {}, {}
            elif kind == "throw":
                raise Undo
            else:
                before = copy.deepcopy((self.keys, self.rows))
                try:
                    self.steps(arguments[0], sync or kind == "sync")
                except Undo:
                    self.keys, self.rows = before


NAMES = st.sampled_from(["a", "b"])
SIMPLE = st.one_of(
    st.tuples(st.just("insert"), NAMES, st.sampled_from([1, 900, 5_000])),
    st.tuples(st.just("put"), NAMES, st.integers(0, 99)),
    st.just(("clear",)),
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("delete"), NAMES),
    st.just(("drop",)),
)
INSERT_AFTER_CLEAR = st.just([("clear",), ("insert", "a", 900)])


def ended(inner: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[list[Any]]:
    """Steps that throw at their end as often as not."""
    return st.builds(lambda steps, throws: [*steps, ("throw",)] if throws else steps, inner, st.booleans())


STEPS = ended(
    st.recursive(
        st.one_of(INSERT_AFTER_CLEAR, st.lists(SIMPLE, max_size=4)),
        lambda inner: st.lists(
            st.one_of(SIMPLE, st.tuples(st.sampled_from(["block", "sync"]), ended(inner))), min_size=1, max_size=4
        ),
        max_leaves=5,
    )
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("turns"), st.lists(STEPS, min_size=1, max_size=3)),
        st.tuples(st.just("full"), STEPS),
        st.sampled_from([("close",), ("evict",), ("restart",)]),
    ),
    min_size=2,
    max_size=10,
)


async def check(events: list[Any], store: Any) -> None:
    core, model = Core(Mixed, store=store), Model()
    for kind, *arguments in events:
        act = core.activations().get("a")
        if kind == "close":
            if act is not None and act.kv.used_sql is not None:
                act.kv.used_sql.drop()
        elif kind == "evict":
            if act is not None:
                core.evictor._evict(act)
                assert "a" not in core.activations()
        elif kind == "restart":
            core = Core(Mixed, store=store)
        elif kind == "full" and isinstance(store, memory_store.MemoryStore):
            before = copy.deepcopy(model)
            model.run(arguments[0])
            store.fail_write.append(memory_store.full())
            answer = await core.call("a", "run", arguments[0])
            store.fail_write.clear()
            if answer.status == 507:
                model = before
        else:  # several turns at once: they share a batch
            turns = arguments[0] if kind == "turns" else [arguments[0]]
            expected = [200 if model.run(steps) else 500 for steps in turns]
            calls = [core.call("a", "run", steps) for steps in turns]
            assert [(await call).status for call in calls] == expected
        if arguments and len(arguments[0]) % 2:  # not always: a connection that is closed must stay so for a while
            assert await core.value("a", "look") == [model.keys, model.rows]
    assert await core.value("a", "look") == [model.keys, model.rows]
    core = Core(Mixed, store=store)
    assert await core.value("a", "look") == [model.keys, model.rows]


def in_virtual_time(events: list[Any], store: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        virtual_time.run(check(events, store), patch)


@settings(max_examples=cases(100), deadline=None)
@given(EVENTS)
def test_mixed_turns_equal_the_model_on_a_store_in_memory(events: list[Any]) -> None:
    in_virtual_time(events, memory_store.MemoryStore())


@settings(max_examples=cases(20), deadline=None)
@given(EVENTS)
def test_mixed_turns_equal_the_model_on_the_real_store(events: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as directory, open_sqlite(Path(directory)) as store:
        in_virtual_time(events, store)
