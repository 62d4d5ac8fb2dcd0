"""What a worker counts of its calls and commits, and which actors it knows to be the busiest."""

from __future__ import annotations

import asyncio
import random
import weakref
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from actord import ActorError, StatefulActor
from actord.measures import SECONDS, Histogram
from actord.shards.call import NO_DEADLINE, Call, Lifecycle, Sink
from actord.shards.hot import KEYS, SAMPLES, WINDOW_SECONDS, HotActors
from actord.shards.meter import Meter
from actord.shards.recent import ACTORS, CALLS, WATCH_SECONDS, Recent
from actord.shards.slow import LINES
from actord.shards.slow import WINDOW_SECONDS as SLOW_WINDOW

from tests.support.harness import Core, steps


class Cell(StatefulActor):
    async def put(self, value: int) -> None:
        await self.ctx.storage.put("v", value)

    async def get(self) -> Any:
        return await self.ctx.storage.get("v")

    async def refuse(self) -> None:
        raise ActorError("no", status=409)

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def metered(**settings: Any) -> tuple[Core, Meter]:
    core = Core(Cell, **settings)
    meter = Meter(slow_call=1.0)
    core.gate._meter = meter
    core.shard.committer.meter = meter
    return core, meter


def bucket_of(seconds: float) -> int:
    return sum(seconds > bound for bound in SECONDS)


async def test_queue_run_and_commit_are_told_apart() -> None:
    core, meter = metered()
    core.hold_fsyncs()
    first = core.call("a", "wait", 2.0)
    second = core.call("a", "put", 1)
    await asyncio.sleep(2.0)
    await steps()
    assert first.done
    await asyncio.sleep(0.3)
    await core.fsync()
    assert second.done
    methods = core.dispatcher.hosts["Cell"].type.methods
    assert methods["wait"].times[bucket_of(2.0)] == 1
    assert methods["put"].times[0] == 1
    assert meter.queue.counts[bucket_of(2.0)] == 1
    assert meter.queue.counts[0] == 1
    assert meter.commit_wait.counts[bucket_of(0.3)] == sum(meter.commit_wait.counts) == 1
    assert meter.fsync.counts[bucket_of(0.3)] == 1
    assert meter.call.counts[bucket_of(2.3)] == 2
    assert meter.call.sum == pytest.approx(4.3)
    assert meter.commit_wait.sum == pytest.approx(0.3)


async def test_a_call_is_counted_when_its_reply_has_left_and_not_before() -> None:
    core, meter = metered()
    core.hold_fsyncs()
    pending = core.call("a", "put", 1)
    await steps()
    assert not pending.done
    assert sum(meter.call.counts) == 0
    await core.fsync()
    assert pending.done
    assert sum(meter.call.counts) == 1


async def test_one_batch_counts_all_calls_that_waited_for_it() -> None:
    core, meter = metered()
    core.hold_fsyncs()
    calls = [core.call(f"cell-{number}", "put", number) for number in range(9)]
    await steps()
    await core.fsync()  # of the first batch; what came meanwhile is the second
    if not all(call.done for call in calls):
        await core.fsync()
    assert meter.batch_calls.sum == sum(meter.commit_wait.counts) == 9
    assert sum(meter.batch_calls.counts) == sum(meter.fsync.counts) == core.flusher.count


async def test_refusals_are_no_calls() -> None:
    core, meter = metered(mailbox=1)
    assert (await core.call("a", "nothing")).name == "ActorUnknownMethodError"
    assert (await core.call("a", "refuse")).status == 409
    late = core.send("a", "wait", b"[5]", within=60), core.send("a", "get", within=1)
    over = core.call("a", "get")
    assert (await over).name == "ActorOverloaded"
    assert (await late[1]).name == "ActorUnavailable"
    assert core.dispatcher.refused == {"ActorUnknownMethodError": 1, "ActorOverloaded": 1}
    assert meter.refused == {"ActorUnavailable": 1}
    assert core.runner.deepest == 1


async def test_slow_calls_are_told_at_a_bounded_rate(caplog: pytest.LogCaptureFixture) -> None:
    core, meter = metered()

    async def many(count: int) -> None:
        await asyncio.gather(*(_answer(core, f"slow-{number}\n") for number in range(count)))

    await many(LINES + 5)
    lines = [record for record in caplog.records if record.name == "actord.slow"]
    assert len(lines) == LINES
    assert {record.method for record in lines} == {"wait"}  # type: ignore[attr-defined]
    assert all(record.run_ms == pytest.approx(1500) for record in lines)  # type: ignore[attr-defined]
    await asyncio.sleep(SLOW_WINDOW)
    await many(1)
    last = [record for record in caplog.records if record.name == "actord.slow"][-1]
    assert last.untold == 5  # type: ignore[attr-defined]
    assert meter.slow.count == LINES + 6
    assert (await core.call("a", "get")).status == 200
    assert meter.slow.count == LINES + 6


async def _answer(core: Core, name: str) -> None:
    assert (await core.call(name, "wait", 1.5)).status == 200


def test_a_histograms_bounds_are_inclusive() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.1):
        histogram.take(value)
    assert histogram.value() == ([2, 2, 1], 7.1)


def _calls(names: list[str]) -> list[Call]:
    host: Any = SimpleNamespace(type=SimpleNamespace(name="Cell"))
    acts: dict[str, Any] = {name: SimpleNamespace(name=name, host=host) for name in set(names)}
    method = Lifecycle("add", 0.0, lambda turn: None)
    method.times = []
    calls = [Call(Sink(), 0, None, acts[name], method, (), {}, 0, NO_DEADLINE, 0.9) for name in names]
    for call in calls:
        call.started, call.ended = 1.0, 1.001
    return calls


def test_the_busiest_actor_is_found_among_many_and_little_is_looked_at() -> None:
    now = [0.0]
    hot = HotActors(lambda: now[0])
    lot = random.Random(7)
    for _ in range(6):  # seconds, with 20,000 calls in each
        for _ in range(625):
            names = ["star" if lot.random() < 0.1 else f"other-{lot.randrange(5000)}" for _ in range(32)]
            hot.note(_calls(names), now[0])
        now[0] += 1.0
        hot.tick()
    (type_, name, rate, over, busy), *rest = hot.top(3)
    assert (type_, name) == ("Cell", "star")
    assert rate - over == pytest.approx(2_000, rel=0.5)
    assert busy == pytest.approx(2.0, rel=0.5)
    assert all(other[2] < rate for other in rest)
    assert len(hot._current.entries) <= KEYS
    assert hot._stride >= 20_000 // SAMPLES


def test_what_was_busy_a_while_ago_is_forgotten() -> None:
    now = [0.0]
    hot = HotActors(lambda: now[0])
    hot.note(_calls(["old"] * 50), now[0])
    for _ in range(int(2 * WINDOW_SECONDS) + 2):
        now[0] += 1.0
        hot.tick()
    hot.note(_calls(["new"] * 5), now[0])
    assert [entry[1] for entry in hot.top(5)] == ["new"]


def test_the_last_calls_of_each_actor_are_kept_split_and_in_bounds() -> None:
    now = [0.0]
    hot = HotActors(lambda: now[0])
    for second in range(5):
        hot.note(_calls(["rare"] if second == 0 else [f"other-{n}" for n in range(20)]), 2.0 + second)
        now[0] += 1.0
        hot.tick()
    assert hot.stride == 1  # calls are few: every one is kept
    assert hot.recent.of(("Cell", "rare")) == [("add", 200, 0.9, 1.0, 1.001, 2.0)]
    assert [entry[-1] for entry in hot.recent.of(("Cell", "other-7"))] == [3.0, 4.0, 5.0, 6.0]
    hot.note(_calls(["other-7"] * 100), 9.0)
    assert len(hot.recent.of(("Cell", "other-7"))) == CALLS
    for name in range(10 * ACTORS):
        hot.recent.add(("Cell", str(name)), _calls(["x"])[0], 10.0 + name)
        if name % 100 == 0:
            hot.recent.add(("Cell", "star"), _calls(["x"])[0], 10.0 + name)
    assert hot.recent.of(("Cell", "rare")) == []
    assert len(hot.recent.of(("Cell", "star"))) == CALLS  # seen again and again, it is not displaced
    assert hot.recent.of(("Cell", "missing")) == []


class Name(str):
    """One that a weak reference can look at."""


class Time(float):
    """The same."""


def test_the_last_calls_hold_no_object_that_a_call_made() -> None:
    recent = Recent()
    name, times = Name("a"), [Time(1.5), Time(2.5), Time(3.5), Time(4.5)]
    [call] = _calls(["x"])
    call.queued, call.started, call.ended, left = times
    made = [weakref.ref(thing) for thing in (name, *times)]
    recent.add(("Cell", name), call, left)
    del name, times, call, left
    assert [ref() for ref in made] == [None] * 5
    assert recent.of(("Cell", "a")) == [("add", 200, 1.5, 2.5, 3.5, 4.5)]


def test_whom_memory_pressure_evicted_is_forgotten_and_counted_anew() -> None:
    hot = HotActors(lambda: 0.0)
    hot.note(_calls(["a"] * 5 + ["b"] * 3), 0.0)
    hot.forget_absent({("Cell", "b"): "there"}.get)
    assert [(entry[1], entry[2]) for entry in hot.top(5)] == [("b", 3.0)]
    hot.note(_calls(["a"]), 0.0)
    assert [(entry[1], entry[2], entry[3]) for entry in hot.top(5)] == [("b", 3.0, 0.0), ("a", 1.0, 0.0)]


def test_a_watched_actor_has_every_call_kept_and_nobody_is_watched_for_ever() -> None:
    meter = Meter()
    assert meter.watch is None
    assert meter.calls_since(("Cell", "a")) == []
    assert meter.watch is not None
    meter.watch.note(_calls(["a", "b", "a"]), 3.0)
    assert [entry[-1] for entry in meter.calls_since(("Cell", "a"))] == [3.0, 3.0]
    assert meter.calls_since(("Cell", "a")) == []
    assert meter.watch.expire(monotonic())
    assert not meter.watch.expire(monotonic() + WATCH_SECONDS + 1)
