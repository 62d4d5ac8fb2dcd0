"""Random calls with keys, failures, evictions, restarts, full disks and time, against a model of a dict each."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from actord import ActorError, StatefulActor
from actord.shards import alarm as clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.shards.timers import Wall
from tests.support import harness, virtual_time
from tests.support.harness import Core, Pending, open_sqlite
from tests.support.lots import cases
from tests.support.memory_store import MemoryStore, full

TTL = 100
LIMIT = 3
calls = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from(["k", "l", "m", "n", "o", None]),
    st.sampled_from(["add", "add", "add", "fail", "clear"]),
    st.integers(1, 2),
)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("calls"), st.lists(calls, min_size=1, max_size=4)),
        st.tuples(st.just("wait"), st.sampled_from([1, 40, 99, 100])),
        st.tuples(st.just("evict")),
        st.tuples(st.just("restart")),
        st.tuples(st.just("disk full"), st.lists(calls, min_size=1, max_size=3)),
    ),
    max_size=25,
)


class Till(StatefulActor):
    idle_after = 1.0

    async def add(self, amount: int) -> int:
        total: int = await self.ctx.storage.get("total", 0) + amount
        await self.ctx.storage.put("total", total)
        return total

    async def fail(self, amount: int) -> None:
        await self.add(amount)
        raise ActorError("told to", status=409)

    async def clear(self, amount: int) -> int:
        await self.ctx.storage.delete_all()
        return -amount


class Model:
    """What each instance holds, and the replies kept for it: key -> (request, value, when)."""

    def __init__(self) -> None:
        self.totals = {"a": 0, "b": 0}
        self.kept: dict[str, dict[str, tuple[Any, int, float]]] = {"a": {}, "b": {}}

    def call(self, name: str, key: str | None, method: str, amount: int, now: float) -> tuple[int, Any, bool]:
        """Status, value, and whether it is a replay."""
        kept = self.kept[name]
        if key is not None and key in kept and now - kept[key][2] < TTL:
            request, value, _ = kept[key]
            return (200, value, True) if request == (method, amount) else (422, None, False)
        if method == "fail":
            return 409, None, False
        value = self.totals[name] = self.totals[name] + amount if method == "add" else 0
        value = value if method == "add" else -amount
        if key is not None:
            kept.pop(key, None)
            kept[key] = (method, amount), value, now
            if len(kept) > LIMIT:
                del kept[next(iter(kept))]
        return 200, value, False


async def play(script: list[tuple[Any, ...]], store: Any) -> None:
    def started() -> Core:
        return Core(Till, store=store, idempotency_ttl=TTL, idempotency_keys=LIMIT)

    core, model = started(), Model()

    def begin(name: str, key: str | None, method: str, amount: int) -> Pending:
        return core.keyed(name, key, method, amount) if key is not None else core.call(name, method, amount)

    for action, *rest in script:
        if action == "calls":
            now = clock.wall_ms() / 1000
            pending = [(begin(*call), model.call(*call, now)) for call in rest[0]]
            for answer, (status, value, replay) in pending:
                found = await answer
                assert (found.status, b"Idempotent-Replayed" in found.head) == (status, replay)
                assert status != 200 or found.value == value
        elif action == "wait":
            await asyncio.sleep(rest[0])
        elif action == "evict":
            core.sweep()
            core.sweep()
            core.replies.sweep()
        elif action == "restart":
            core.runner.stop()
            core = started()
        elif isinstance(store, MemoryStore):
            store.fail_write.append(full())
            for (_, key, method, _), answer in [(call, begin(*call)) for call in rest[0]]:
                found = await answer
                assert found.status in (200, 409, 422, 507)
                writes = key is not None or method == "add"  # there may be nothing to clear
                assert found.status != 200 or not writes or b"Idempotent-Replayed" in found.head
            store.fail_write.clear()
    for name, total in model.totals.items():
        assert await core.value(name, "add", 0) == total


def run(script: Any, store: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "time_ns", Wall())
        virtual_time.run(harness.stop_all_after(play(script, store)), patch)


@settings(max_examples=cases(250), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=actions)
def test_keyed_calls_equal_a_dict_over_a_store_in_memory(script: Any) -> None:
    run(script, MemoryStore())


@settings(max_examples=cases(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=actions)
def test_keyed_calls_equal_a_dict_over_sqlite(script: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    with open_sqlite(tmp_path_factory.mktemp("keys")) as store:
        run(script, store)
