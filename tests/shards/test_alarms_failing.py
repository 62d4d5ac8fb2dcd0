"""Alarms that fail, that are overdue, that are many: repeated, kept, in order, and never in the way of calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from actord import ActorError, StatefulActor
from actord.alarm import AlarmInfo
from actord.errors import StoreCorrupt
from actord.shards import alarms
from actord.storage.api import Alarm

from tests.shards.timers import BASE, Timer, Wall, sleep, started
from tests.support.harness import steps
from tests.support.memory_store import full

# -- failure


def failing(times: int, error: BaseException | None = None) -> Callable[[Timer, AlarmInfo], None]:
    left = iter([True] * times)

    def script(timer: Timer, info: AlarmInfo) -> None:
        if next(left, False):
            raise error or RuntimeError("not yet")

    return script


async def test_a_run_that_fails_is_repeated_later_and_later(timers: type[Timer], store: Any) -> None:
    timers.script = failing(6)
    core = started(store, timers)
    await core.value("a", "arm", 1)
    await sleep(100)
    times = [at - BASE - 1 for _, _, at in timers.fired]
    assert times == pytest.approx([0, 1, 3, 7, 15, 31, 63], abs=0.05)
    assert [info.retry_count for _, info, _ in timers.fired] == list(range(7))
    assert [info.is_retry for _, info, _ in timers.fired] == [False] + [True] * 6
    assert len({info.scheduled_time for _, info, _ in timers.fired}) == 1
    assert await core.value("a", "runs") == 1, "a run that fails leaves nothing"
    assert (core.alarms.fired, core.alarms.retried, core.alarms.failed) == (1, 6, 0)
    assert await core.value("a", "look") is None


def test_the_wait_doubles_from_one_second_to_five_minutes_and_a_quarter_by_chance() -> None:
    assert [alarms.backoff_ms(n, 0) // 1000 for n in range(1, 12)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert alarms.backoff_ms(1, 1) == 1250
    assert alarms.backoff_ms(1000, 1) == 375_000


@pytest.mark.parametrize("error", [ActorError("refused", code="no"), RuntimeError("broken"), KeyboardInterrupt()])
async def test_an_alarm_that_goes_on_failing_is_kept_counted_logged_and_listed(
    error: BaseException, timers: type[Timer], store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    timers.script = failing(1000, error)
    core = started(store, timers)
    await core.value("a", "arm", 1)
    await sleep(2000)
    assert len(timers.fired) == 7
    [entry] = core.store.failed_alarms(limit=9)
    assert (entry.type, entry.name, entry.alarm.retries) == ("Timer", "a", 7)
    assert type(error).__name__ in (entry.alarm.error or "")
    assert core.store.armed_alarms(until=1 << 60, limit=9) == []
    assert core.alarms.failed == 1
    kept = [r for r in caplog.records if "kept as failed" in r.getMessage()]
    assert [r.levelno for r in kept] == [logging.ERROR]
    assert await core.value("a", "look") is None
    again = started(store, timers)
    await sleep(1000)
    assert len(timers.fired) == 7, "a restart does not bring it back"
    await again.value("a", "arm", 5)
    assert again.store.failed_alarms(limit=9) == []
    timers.script = None
    await sleep(6)
    assert timers.fired[-1][1].retry_count == 0


async def test_a_type_says_how_often_and_how_long(timers: type[Timer], wall: Wall) -> None:
    class Impatient(Timer):
        alarm_retries = 1
        alarm_timeout = 4.0

    async def script(timer: Timer, info: AlarmInfo) -> None:
        await timer.ctx.storage.put("late", True)
        await asyncio.sleep(100)

    Impatient.script = script
    core = started(None, Impatient)
    await core.value("a", "arm", 1)
    await sleep(1000)
    assert [at - BASE for _, _, at in Impatient.fired] == pytest.approx([1, 6], abs=0.05)
    [entry] = core.store.failed_alarms(limit=9)
    assert "ActorMethodTimeoutError" in (entry.alarm.error or "")
    assert set(core.store.rows.get(1, {})) == set(), "the run's writes were discarded"


async def test_by_default_a_run_may_take_fifteen_minutes(timers: type[Timer]) -> None:
    ended = []

    async def script(timer: Timer, info: AlarmInfo) -> None:
        await asyncio.sleep(899 if info.retry_count else 901)
        ended.append(info.retry_count)

    timers.script = script
    core = started(None, timers)
    await core.value("a", "arm", 1)
    await sleep(2000)
    assert ended == [1]
    assert core.alarms.retried == 1


async def test_an_alarm_that_a_later_turn_sets_replaces_the_retry(timers: type[Timer], store: Any) -> None:
    core = started(store, timers)

    def script(timer: Timer, info: AlarmInfo) -> None:
        core.call("a", "arm", 50)  # its turn comes before the failure is written down
        raise RuntimeError("not yet")

    timers.script = script
    await core.value("a", "arm", 1)
    await sleep(20)
    assert [at - BASE for _, _, at in timers.fired] == pytest.approx([1], abs=0.05)
    timers.script = None
    await sleep(40)
    assert timers.fired[-1][1].retry_count == 0
    assert len(timers.fired) == 2


async def test_an_instance_that_can_not_be_activated_is_a_failed_run(wall: Wall) -> None:
    class Broken(StatefulActor):
        alarm_retries = 2
        broken = False
        tries = 0

        async def on_activate(self) -> None:
            type(self).tries += self.broken
            if self.broken:
                raise RuntimeError("no way in")

        async def alarm(self, info: AlarmInfo) -> None: ...

        async def arm(self) -> None:
            self.ctx.set_alarm(timedelta(seconds=100))

    core = started(None, Broken)
    await core.value("a", "arm")
    core.activation("a").instance = None
    Broken.broken = True
    await sleep(200)
    assert Broken.tries == 3
    [entry] = core.store.failed_alarms(limit=9)
    assert "no way in" in (entry.alarm.error or "")


async def test_a_full_disk_delays_an_alarm_and_counts_nothing(timers: type[Timer]) -> None:
    core = started(None, timers)
    await core.value("a", "arm", 1)
    core.store.fail_write.extend([full(), full(), full()])
    await sleep(20)
    assert [info.retry_count for _, info, _ in timers.fired] == [0, 0, 0, 0]
    assert core.store.alarms == {}
    assert not core.alarms.running


async def test_an_alarm_whose_removal_was_taken_back_still_fires(timers: type[Timer]) -> None:
    core = started(None, timers)
    await core.value("a", "arm", 10)
    core.hold_fsyncs()
    blocker = core.call("b", "arm", 1000)
    await steps()
    removing = core.call("a", "disarm")
    await steps()
    core.store.fail_write.append(full())
    await sleep(15)
    assert timers.fired == []
    core.flusher.auto = True
    await core.fsync()
    assert blocker.done
    assert (await removing).status == 507
    await sleep(1)
    assert [name for name, _, _ in timers.fired] == ["a"]


# -- many


async def test_overdue_alarms_run_in_due_order_and_calls_get_through(timers: type[Timer], store: Any) -> None:
    core = started(store, timers, alarms_at_once=8)
    core.alarms.stop()
    for number in range(200):
        await core.value(f"n{number}", "arm_at", BASE + 500 - number)
    await sleep(1000)
    most = 0
    order: list[str] = []

    async def script(timer: Timer, info: AlarmInfo) -> None:
        nonlocal most
        most = max(most, len(core.alarms.running))
        order.append(timer.ctx.id)
        await asyncio.sleep(0.5)

    timers.script = script
    core.alarms.start()
    await steps()
    before = asyncio.get_running_loop().time()
    assert await core.value("other", "wait", 0.1) == "waited"
    assert asyncio.get_running_loop().time() - before < 0.2
    assert len(order) <= 8
    await sleep(100)
    assert order == [f"n{number}" for number in reversed(range(200))]
    assert most == 8
    assert core.store.armed_alarms(until=1 << 60, limit=9) == []


async def test_a_slice_at_a_time_starts_so_that_the_loop_turns_between(timers: type[Timer]) -> None:
    core = started(None, timers)
    core.alarms.stop()
    for number in range(100):
        await core.value(f"n{number}", "arm_at", 1)
    seen = []
    core.alarms.start()
    for _ in range(50):
        await asyncio.sleep(0)
        seen.append(len(timers.fired))
    assert max(b - a for a, b in pairwise(seen)) <= alarms.SLICE
    await steps(200)
    assert len(timers.fired) == 100


async def test_memory_holds_a_page_however_many_are_armed(timers: type[Timer], store: Any) -> None:
    core = started(store, timers)
    for number in range(300):
        await core.value(f"n{number:03}", "arm_at", BASE + 500 + (number * 7919 % 300))
    await sleep(10)
    [queue] = core.alarms._queues
    assert len(queue._page) <= alarms.PAGE
    await sleep(1000)
    assert len(timers.fired) == 300
    assert [info.scheduled_time for _, info, _ in timers.fired] == sorted(i.scheduled_time for _, i, _ in timers.fired)


async def test_alarms_of_a_type_that_is_gone_are_kept_reported_once_and_fire_when_it_is_back(
    timers: type[Timer], wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    class Stays(Timer):
        pass

    core = started(None, timers, Stays)
    core.alarms.stop()
    for number in range(400):
        await core.send(f"n{number}", "arm_at", b"[%d]" % (BASE + 1 + number % 3), type_="Timer")
    await core.send("a", "arm_at", b"[%d]" % (BASE + 2), type_="Stays")
    await sleep(10)
    store = core.store
    core = started(store, Stays)
    await steps(100)
    assert [name for name, _, _ in timers.fired] == ["a"]
    assert len([r for r in caplog.records if "no such type" in r.getMessage()]) == 1
    assert len(store.alarms) == 400
    await core.value("b", "arm", -1)
    await steps()
    assert [name for name, _, _ in timers.fired] == ["a", "b"]
    core.alarms.stop()
    started(store, timers)
    await steps(600)
    assert len(timers.fired) == 402
    assert store.alarms == {}


async def test_a_damaged_store_stops_its_alarms_loudly(timers: type[Timer], caplog: pytest.LogCaptureFixture) -> None:
    core = started(None, timers)

    def corrupt(**_: Any) -> Any:
        raise StoreCorrupt("damaged")

    core.store.armed_alarms = corrupt
    await core.value("a", "arm", 1)
    await sleep(10)
    assert any("none fires" in r.getMessage() for r in caplog.records)
    assert core.store.alarms == {1: Alarm(due=int(BASE + 1) * 1000, scheduled=int(BASE + 1) * 1000)}
