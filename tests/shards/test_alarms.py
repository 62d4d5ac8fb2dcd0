"""Alarms of one worker, with both clocks moved by hand: never early, at least once, never lost."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from actord import StatefulActor
from actord.alarm import AlarmInfo
from actord.shards import alarm as clock
from actord.shards.registry import ActorType, ProgramError

from tests.shards.timers import BAD, BASE, Timer, Wall, iso, sleep, started
from tests.support.harness import steps

# -- the time


@pytest.mark.parametrize(
    ("when", "ms"),
    [
        (0, 0),
        (5, 5_000),
        (1.0005, 1_001),
        (1_700_000_000.123, 1_700_000_000_123),
        (-5, 0),
        (100_000_000_000, 100_000_000_000_000),
        (datetime(2030, 1, 1, tzinfo=UTC), 1_893_456_000_000),
        (datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 1_893_456_000_000),
        (datetime(2030, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 1_893_456_000_001),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), 0),
    ],
)
def test_a_time_is_taken_to_the_next_whole_millisecond(when: Any, ms: int) -> None:
    assert clock.due_ms(when) == ms


async def test_a_timedelta_counts_from_now_and_is_rounded_up(wall: Wall) -> None:
    wall.offset += 0.000_000_5
    assert clock.due_ms(timedelta(seconds=1)) == BASE * 1000 + 1001
    assert clock.due_ms(timedelta(days=-100_000)) == 0


@pytest.mark.parametrize("kind", BAD)
async def test_what_is_no_time_is_refused_by_name_and_leaves_the_alarm_alone(
    kind: str, timers: type[Timer], wall: Wall
) -> None:
    core = started(None, timers)
    assert await core.value("a", "bad", kind) is None
    await core.value("a", "arm_at", BASE + 500)
    assert await core.value("a", "bad", kind) == iso(BASE + 500)


async def test_a_refused_time_that_nobody_catches_fails_the_call_and_all_its_writes(timers: type[Timer]) -> None:
    core = started(None, timers)
    answer = await core.call("a", "bad_uncaught")
    assert (answer.status, answer.name, answer.applied) == (400, "AlarmTimeError", "no")
    assert core.store.rows.get(1, {}) == {}
    assert core.store.alarms == {}


class Plain(StatefulActor):
    async def arm(self) -> None:
        self.ctx.set_alarm(5)


async def test_a_class_without_a_handler_is_told_so() -> None:
    core = started(None, Plain)
    answer = await core.call("a", "arm")
    assert answer.name == "AlarmHandlerMissing"
    assert "async def alarm(self, info)" in answer.detail


def test_a_handler_of_the_wrong_shape_is_refused_when_the_program_is_loaded() -> None:
    class NotAsync(StatefulActor):
        def alarm(self, info: AlarmInfo) -> None: ...

    class NoArgument(StatefulActor):
        async def alarm(self) -> None: ...

    class Negative(StatefulActor):
        alarm_retries = -1

    for wrong in (NotAsync, NoArgument, Negative):
        with pytest.raises(ProgramError, match="alarm"):
            ActorType(wrong, "X")


# -- a turn's own view


async def test_a_turn_reads_its_own_alarm_and_the_next_one_too(timers: type[Timer], store: Any) -> None:
    core = started(store, timers)
    assert await core.value("a", "look") is None
    assert await core.value("a", "arm_at", BASE + 500) == iso(BASE + 500)
    assert await core.value("a", "look") == iso(BASE + 500)
    await core.value("a", "disarm")
    assert await core.value("a", "look") is None
    assert core.store.armed_alarms(until=1 << 60, limit=9) == []


async def test_a_turn_that_fails_leaves_the_alarm_as_it_was(timers: type[Timer], store: Any) -> None:
    core = started(store, timers)
    assert (await core.call("a", "arm_and_fail", 50)).name == "ActorError"
    assert await core.value("a", "look") is None
    await core.value("a", "arm_at", BASE + 500)
    await core.call("a", "arm_and_fail", 50)
    await core.call("a", "disarm_and_fail")
    assert await core.value("a", "look") == iso(BASE + 500)


async def test_delete_all_keeps_the_alarm(timers: type[Timer], store: Any) -> None:
    core = started(store, timers)
    await core.value("a", "arm_at", BASE + 500)
    await core.value("a", "clear")
    assert await core.value("a", "look") == iso(BASE + 500)


async def test_setting_what_is_set_writes_nothing(timers: type[Timer]) -> None:
    core = started(None, timers)
    await core.value("a", "arm_at", BASE + 500)
    count = len(core.store.batches)
    await core.value("a", "arm_at", BASE + 500)
    await core.value("b", "disarm")
    assert len(core.store.batches) == count


async def test_the_reply_of_a_turn_that_set_an_alarm_waits_for_its_fsync(timers: type[Timer]) -> None:
    core = started(None, timers)
    core.hold_fsyncs()
    pending = core.call("a", "arm", 100)
    await steps()
    assert not pending.done
    await core.fsync()
    assert pending.done


# -- firing


async def test_an_alarm_fires_when_it_is_due_and_not_a_millisecond_sooner(timers: type[Timer], store: Any) -> None:
    core = started(store, timers)
    await core.value("a", "arm_at", BASE + 10.005)
    await sleep(10.0)
    assert timers.fired == []
    await sleep(0.010)
    [(name, info, at)] = timers.fired
    assert name == "a"
    assert info == AlarmInfo(datetime.fromtimestamp(BASE, UTC) + timedelta(seconds=10.005), 0)
    assert not info.is_retry
    assert BASE + 10.005 <= at < BASE + 10.01
    assert core.store.read_alarm(1) is None
    await sleep(1000)
    assert len(timers.fired) == 1


async def test_a_past_time_fires_at_once(timers: type[Timer], store: Any) -> None:
    core = started(store, timers)
    for name, when in (("a", 0), ("b", -5), ("c", BASE - 1)):
        await core.value(name, "arm_at", when)
    await steps()
    assert [name for name, _, _ in timers.fired] == ["a", "b", "c"]
    assert asyncio.get_running_loop().time() < 1000.1


async def test_an_alarm_that_was_moved_or_removed_does_not_fire(timers: type[Timer], store: Any) -> None:
    core = started(store, timers)
    for name in "abc":
        await core.value(name, "arm", 10)
    await core.value("a", "disarm")
    await core.value("b", "arm", 20)
    await core.value("c", "arm", 5)
    await sleep(6)
    assert [name for name, _, _ in timers.fired] == ["c"]
    await sleep(10)
    assert [name for name, _, _ in timers.fired] == ["c"]
    await sleep(5)
    assert [name for name, _, _ in timers.fired] == ["c", "b"]


async def test_an_alarm_that_an_earlier_turn_moves_while_it_waits_its_turn_does_not_fire(
    timers: type[Timer], store: Any
) -> None:
    core = started(store, timers)
    await core.value("a", "arm", 1)
    busy = core.call("a", "wait", 5)
    moving = core.call("a", "arm", 100)
    await sleep(2)
    assert len(core.alarms.running) == 1
    await sleep(10)
    assert busy.done
    assert moving.done
    assert timers.fired == []
    assert not core.alarms.running
    await sleep(100)
    assert len(timers.fired) == 1


async def test_in_the_handler_there_is_no_alarm_unless_it_is_set_anew(timers: type[Timer], store: Any) -> None:
    seen = []

    async def script(timer: Timer, info: AlarmInfo) -> None:
        seen.append(await timer.ctx.storage.get_alarm())
        timer.ctx.set_alarm(BASE + 60)
        seen.append(await timer.ctx.storage.get_alarm())
        await timer.ctx.storage.delete_alarm()
        seen.append(await timer.ctx.storage.get_alarm())

    timers.script = script
    core = started(store, timers)
    await core.value("a", "arm", 1)
    await sleep(2)
    assert seen == [None, datetime.fromtimestamp(BASE + 60, UTC), None]
    assert await core.value("a", "look") is None


async def test_two_cycles_that_re_arm_themselves_go_on_without_a_call_also_across_eviction(
    timers: type[Timer], store: Any
) -> None:
    def script(timer: Timer, info: AlarmInfo) -> None:
        timer.ctx.set_alarm(info.scheduled_time + timedelta(seconds=3 if timer.ctx.id == "a" else 5))

    timers.script = script
    core = started(store, timers)
    await core.value("a", "arm", 3)
    await core.value("b", "arm", 5)
    for _ in range(30):
        await sleep(1)
        core.sweep()
    assert core.evictor.evictions >= 6
    assert sum(name == "a" for name, _, _ in timers.fired) in (9, 10)
    assert sum(name == "b" for name, _, _ in timers.fired) in (5, 6)
    for name, info, at in timers.fired:
        assert 0 <= at - info.scheduled_time.timestamp() < 0.01, name


async def test_an_armed_alarm_does_not_keep_its_instance_in_memory(timers: type[Timer], store: Any) -> None:
    core = started(store, timers)
    await core.value("a", "arm", 100)
    for _ in range(4):
        core.sweep()
    assert core.activations() == {}
    await sleep(101)
    assert [name for name, _, _ in timers.fired] == ["a"]


async def test_an_alarm_due_while_nobody_was_there_fires_when_the_next_worker_starts(
    timers: type[Timer], store: Any, wall: Wall
) -> None:
    core = started(store, timers)
    await core.value("a", "arm", 100)
    core.alarms.stop()
    await sleep(500)
    assert timers.fired == []
    started(store, timers)
    await steps()
    [(_, info, at)] = timers.fired
    assert at - info.scheduled_time.timestamp() == pytest.approx(400)


async def test_a_crash_before_the_handlers_commit_means_redelivery(timers: type[Timer]) -> None:
    core = started(None, timers)
    await core.value("a", "arm", 1)
    core.hold_fsyncs()
    kept = dict(core.store.alarms), dict(core.store.actors)
    await sleep(2)
    assert len(timers.fired) == 1
    core.store.alarms, core.store.actors = kept  # the power cut: the removal was never durable
    core.alarms.stop()
    core.store.commit_seq = core.store.durable_seq
    started(core.store, timers)
    await steps()
    assert len(timers.fired) == 2
    assert timers.fired[1][1].retry_count == 0


async def test_no_second_run_starts_while_the_first_ones_commit_is_under_way(timers: type[Timer]) -> None:
    core = started(None, timers)
    await core.value("a", "arm", 1)
    core.hold_fsyncs()
    for _ in range(5):
        await sleep(2)
    assert len(timers.fired) == 1
    await core.fsync()
    assert not core.alarms.running


# -- the wall clock is set


async def test_when_the_wall_clock_is_set_forward_what_is_due_fires_within_a_second(
    timers: type[Timer], wall: Wall
) -> None:
    core = started(None, timers)
    await core.value("a", "arm", 3600)
    await sleep(2.5)
    wall.offset += 3600
    await sleep(1.001)
    assert len(timers.fired) == 1


async def test_when_the_wall_clock_is_set_back_nothing_is_early(timers: type[Timer], wall: Wall) -> None:
    core = started(None, timers)
    await core.value("a", "arm", 10)
    await sleep(5)
    wall.offset -= 100
    await sleep(104)
    assert timers.fired == []
    await sleep(2)
    [(_, info, at)] = timers.fired
    assert at >= info.scheduled_time.timestamp()


async def test_a_clock_set_back_between_start_and_turn_keeps_the_alarm(timers: type[Timer], wall: Wall) -> None:
    core = started(None, timers)
    await core.value("a", "arm", 1)
    busy = core.call("a", "wait", 5)
    await sleep(2)
    assert core.alarms.running
    wall.offset -= 50
    await sleep(10)
    assert busy.done
    assert timers.fired == []
    await sleep(50)
    assert len(timers.fired) == 1
