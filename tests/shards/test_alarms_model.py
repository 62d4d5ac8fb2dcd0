"""Random calls, failures, evictions, restarts, full disks and set clocks, against a model of one alarm each."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from actord import ActorError, StatefulActor
from actord.alarm import AlarmInfo
from actord.shards import alarm as clock
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shards.timers import Wall
from tests.support import virtual_time
from tests.support.harness import Core, steps
from tests.support.lots import cases
from tests.support.memory_store import MemoryStore, full

NAMES = "a", "b", "c"
RETRIES = 2

names = st.sampled_from(NAMES)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("set"), names, st.integers(-5, 40)),
        st.tuples(st.just("set and throw"), names, st.integers(-5, 40)),
        st.tuples(st.just("delete"), names),
        st.tuples(st.just("delete and throw"), names),
        st.tuples(st.just("clear"), names),
        st.tuples(st.just("fail"), names, st.integers(0, RETRIES)),
        st.tuples(st.just("evict")),
        st.tuples(st.just("restart")),
        st.tuples(st.just("disk full")),
        st.tuples(st.just("clock"), st.integers(-30, 30)),
        st.tuples(st.just("wait"), st.integers(1, 30)),
    ),
    min_size=8,
    max_size=30,
)


class Timer(StatefulActor):
    idle_after = 1.0
    alarm_retries = RETRIES

    fired: list[tuple[str, int, int]]  # name, scheduled, wall; in milliseconds
    failures: dict[str, int]  # runs that are to fail

    async def alarm(self, info: AlarmInfo) -> None:
        left = self.failures.get(self.ctx.id, 0)
        if left:
            self.failures[self.ctx.id] = left - 1
            raise RuntimeError("told to")
        assert await self.ctx.storage.get_alarm() is None
        self.fired.append((self.ctx.id, round(info.scheduled_time.timestamp() * 1000), clock.time_ns() // 1_000_000))

    async def change(self, seconds: int | None, throw: bool, clear: bool) -> int | None:
        """The due time afterwards, in milliseconds."""
        storage = self.ctx.storage
        if clear:
            await storage.delete_all()
        elif seconds is None:
            storage.delete_alarm()
        else:
            storage.set_alarm(timedelta(seconds=seconds))
        found = await storage.get_alarm()
        if throw:
            raise ActorError("thrown")
        return None if found is None else round(found.timestamp() * 1000)


async def play(script: list[tuple[Any, ...]], wall: Wall) -> None:
    Timer.fired, Timer.failures = [], {}
    store = MemoryStore()
    core = Core(Timer, store=store)
    core.alarms.start()
    expected: dict[str, int] = {}  # what is armed, by the model
    allowed: dict[str, set[int]] = {name: set() for name in NAMES}  # what was ever armed

    async def settle() -> None:
        await steps(60)
        taken()

    def taken() -> None:
        for name, scheduled, at in Timer.fired:
            assert at >= scheduled, "early"
            assert scheduled in allowed[name], "fired what was never set"
            if expected.get(name) == scheduled:
                del expected[name]
        Timer.fired.clear()

    for action, *rest in script:
        if action in ("set", "set and throw", "delete", "delete and throw", "clear"):
            name, seconds = rest[0], rest[1] if len(rest) > 1 else None
            throw = action.endswith("throw")
            taken()
            answer = await core.call(name, "change", seconds, throw, action == "clear")
            if answer.status == 200 and action == "set":
                assert answer.value is not None
                expected[name] = answer.value
                allowed[name].add(answer.value)
            elif answer.status == 200 and action == "delete":
                assert answer.value is None
                expected.pop(name, None)
            elif answer.status == 507:
                assert answer.applied == "no"
        elif action == "fail":
            # Together with those that the alarm has behind it no more than it is given.
            known = [store.alarms.get(id_) for (_, _, name), id_ in store.actors.items() if name == rest[0]]
            Timer.failures[rest[0]] = min(rest[1], RETRIES - sum(alarm.retries for alarm in known if alarm))
        elif action == "evict":
            core.sweep()
            core.sweep()
        elif action == "restart":
            core.alarms.stop()
            core.runner.stop()
            store.commit_seq = store.durable_seq = store.commit_seq
            core = Core(Timer, store=store)
            core.alarms.start()
        elif action == "disk full":
            store.fail_write.append(full())
        elif action == "clock":
            wall.offset += rest[0]
        else:
            await asyncio.sleep(rest[0])
        await settle()
        for name, due in expected.items():
            actor = store.actors.get((core.activation(name).slot if name in core.activations() else -1, "Timer", name))
            if actor is not None and actor in store.alarms:
                assert store.alarms[actor].error is None, "few failures, and it was given up"
            elif actor is not None:
                assert due <= clock.wall_ms(), f"{name} is lost"
    store.fail_write.clear()
    Timer.failures.clear()
    await asyncio.sleep(2000)
    await settle()
    assert expected == {}, "never fired"
    assert store.alarms == {}
    assert not core.alarms.running


@settings(max_examples=cases(120), deadline=None)
@given(script=actions)
def test_any_sequence_equals_the_model_at_least_once_never_early_never_lost(script: list[tuple[Any, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        wall = Wall()
        patch.setattr(clock, "time_ns", wall)
        virtual_time.run(play(script, wall), patch)
