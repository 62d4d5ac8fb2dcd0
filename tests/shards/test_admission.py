"""A worker to which more comes than it can do: the excess is refused at once, the rest is served as before, and what
waits for one name delays no other. In virtual time: a turn takes what its method says."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

import pytest
from actord import Env, Request, Response, StatefulActor
from actord.shards import call as call_module
from actord.shards import turns
from actord.shards.admission import CALM_SECONDS, LEAST
from actord.shards.problem import problem_reply
from actord.shards.slices import (
    COMPANY_SECONDS,
    FULL_SECONDS,
    LINGER_SECONDS,
    LOOK_SECONDS,
    SHORT_SECONDS,
    SLICE_SECONDS,
)

from tests.support.harness import Core, Pending

COST = 0.001  # seconds of a turn, so that 1,000 a second are what a worker can do
CAPACITY = 1 / COST
TARGET = 0.2


def use(seconds: float) -> None:
    """Hold the worker for so long."""
    loop: Any = asyncio.get_running_loop()
    loop.advance(seconds)


class Work(StatefulActor):
    async def work(self, seconds: float = 0) -> None:
        await self.ctx.storage.put("n", await self.ctx.storage.get("n", 0) + 1)
        use(seconds or COST)

    async def look(self) -> None:
        use(COST)

    async def cheap(self) -> None:
        use(COST / 10)

    async def slow(self) -> None:
        use(COST * 10)

    async def rest_a_moment(self) -> None:
        use(COST)
        await asyncio.sleep(1)

    async def ask(self, count: int) -> None:
        await asyncio.gather(*(self.env.get(Work, f"asked-{number}").work() for number in range(count)))


class Load:
    """Calls at even distances, to names that nobody else calls, and what came of each."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._loop = asyncio.get_running_loop()
        self.calls: list[tuple[float, Pending]] = []
        self.ended: dict[int, float] = {}
        self.share = 0.0  # that a front refuses itself
        self._lot = random.Random(1)

    async def make(
        self, rate: float, seconds: float, method: str = "work", name: str = "", names: int = 0, grain: float = 0.001
    ) -> Load:
        """``grain``: so many seconds late a call may be made."""
        start, made = self._loop.time(), 0
        while (passed := self._loop.time() - start) < seconds:
            while made < passed * rate:
                if self._lot.random() >= self.share:
                    self.one(start + made / rate, name or self.name(names), method)
                made += 1
            await asyncio.sleep(grain)
        return self

    def name(self, names: int) -> str:
        return f"n-{self._lot.randrange(names) if names else len(self.calls)}"

    def shed(self, share: float) -> None:
        self.share = share

    def one(self, due: float, name: str, method: str = "work") -> None:
        pending = self._core.call(name, method)
        number = len(self.calls)
        self.calls.append((due, pending))
        pending.future.add_done_callback(lambda _: self.ended.setdefault(number, self._loop.time()))

    async def end(self) -> Load:
        await asyncio.gather(*(pending.future for _, pending in self.calls))
        await asyncio.sleep(0)
        return self

    def latencies(self, status: int, since: float = 0.0) -> list[float]:
        """Of the answers with that status whose call was due ``since`` seconds after the first, sorted."""
        first = self.calls[0][0]
        return sorted(
            self.ended[number] - due
            for number, (due, pending) in enumerate(self.calls)
            if number in self.ended and pending.answer.status == status and due - first >= since
        )


async def test_a_worker_that_keeps_up_refuses_nothing_and_neither_do_bursts() -> None:
    core = Core(Work)
    load = Load(core)
    await load.make(CAPACITY * 0.9, 3)
    for _ in range(3):
        for number in range(int(CAPACITY * 0.3)):  # 0.3 s of work at once: over the target, but not for long
            load.one(asyncio.get_running_loop().time(), f"burst-{number}")
        await load.end()
    assert load.latencies(503) == []


@pytest.mark.parametrize("method", ["work", "look", "rest_a_moment"])
async def test_the_excess_is_refused_at_once_and_the_rest_is_served_within_the_target(method: str) -> None:
    core = Core(Work)
    load = await Load(core).make(CAPACITY * 2, 3, method)
    assert core.runner.admission.crowded
    await load.end()
    # The first second is what it takes to notice.
    served, refused = load.latencies(200, since=1), load.latencies(503, since=1)
    assert len(served) >= 0.95 * CAPACITY * 2
    assert served[-1] <= TARGET * 1.25 + (1 if method == "rest_a_moment" else 0)
    assert len(refused) >= 0.9 * CAPACITY * 2
    assert refused[-1] <= 0.05
    answer = next(pending.answer for _, pending in load.calls if pending.answer.status == 503)
    assert (answer.name, answer.applied, answer.value["retryable"]) == ("ActorOverloaded", "no", True)
    assert b"Retry-After: 1\r\n" in answer.head


@pytest.mark.parametrize("times", [1.3, 2, 8])
async def test_fronts_are_told_to_refuse_nearly_all_of_the_excess_and_the_worker_never_idles(times: float) -> None:
    core = Core(Work)
    load = Load(core)
    core.runner.admission.on_shed = load.shed
    await load.make(CAPACITY * times, 3.5)
    await load.end()
    served, refused = load.latencies(200, since=1.5), load.latencies(503, since=1.5)
    assert len(served) >= 0.95 * CAPACITY * 2
    assert served[-1] <= TARGET * 1.25
    assert len(refused) <= 0.15 * len(served), "the worker has little to refuse itself"
    later = await Load(core).make(CAPACITY / 2, 1)
    await later.end()
    assert later.latencies(503) == []
    assert load.share == 0


@pytest.mark.parametrize("names", [20, 50, 300])
async def test_the_same_holds_when_calls_wait_behind_others_of_their_own_names(names: int) -> None:
    core = Core(Work)
    load = Load(core)
    core.runner.admission.on_shed = load.shed
    await load.make(CAPACITY * 2, 3, names=names)
    await load.end()
    served = load.latencies(200, since=1)
    assert len(served) >= 0.95 * CAPACITY * 2
    assert served[len(served) * 99 // 100] <= 3 * TARGET
    assert load.latencies(503)


async def test_what_was_refused_was_not_applied_and_what_was_answered_was() -> None:
    core = Core(Work)
    load = await Load(core).make(CAPACITY * 2, 1.5)
    await load.end()
    answers = {f"n-{number}": pending.answer.status for number, (_, pending) in enumerate(load.calls)}
    assert 503 in answers.values()
    for name, status in answers.items():
        act = core.dispatcher.find(("Work", name))
        if status == 200:
            assert act is not None
        elif act is not None:  # it had been let in, and was turned away when the queue was shortened
            assert act.instance is None
            assert act.evictable


async def test_it_ends_when_the_load_does() -> None:
    core = Core(Work)
    await (await Load(core).make(CAPACITY * 2, 2)).end()
    assert core.runner.admission.refused > 0
    load = await Load(core).make(CAPACITY * 0.9, 2)
    await load.end()
    assert load.latencies(503) == []
    assert not core.runner.admission.crowded


async def test_turns_that_become_cheaper_let_more_calls_in_at_once() -> None:
    core = Core(Work)
    await Load(core).make(CAPACITY * 2, 2)
    room = core.runner.admission._room
    load = Load(core)
    for _ in range(60):  # the same number of calls, of which ten take as long as one did
        await load.make(CAPACITY * 10, 0.02, "cheap")
    assert core.runner.admission._room > 2 * room or not core.runner.admission.crowded


async def test_what_waits_when_turns_become_slower_is_turned_away_and_not_served_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = Core(Work)
    load = Load(core)
    await load.make(CAPACITY * 2, 2)
    monkeypatch.setattr(sys.modules[__name__], "COST", 4 * COST)
    first = len(load.calls)
    await load.make(CAPACITY * 2, 2)
    await load.end()
    late = [load.ended[n] - due for n, (due, call) in enumerate(load.calls) if n >= first and call.answer.status == 200]
    assert len(late) >= 0.9 * CAPACITY / 4 * 2
    assert max(late) <= 3 * TARGET  # 4 times and more without it


async def test_an_overload_is_not_found_anew_after_a_moment_in_which_turns_were_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when something else has the core: the queue is shortened, and short when turns are quick again."""
    core = Core(Work)
    load = Load(core)
    core.runner.admission.on_shed = load.shed
    await load.make(CAPACITY * 2, 3)
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules[__name__], "COST", 5 * COST)
            await load.make(CAPACITY * 2, 0.2)
        since = asyncio.get_running_loop().time() - load.calls[0][0]
        for _ in range(30):
            await load.make(CAPACITY * 2, 0.1)
        # Found anew, it took up to 0.36 s to answer, and 0.15 s to refuse.
        assert load.latencies(200, since)[-1] <= 1.25 * TARGET
        assert load.latencies(503, since)[-1] <= 0.05
    await load.end()


async def test_a_hot_name_fills_its_mailbox_and_no_call_to_another_name_waits_or_is_refused() -> None:
    core = Core(Work)
    hot, others = Load(core), Load(core)
    await asyncio.gather(hot.make(CAPACITY * 2, 4, name="hot"), others.make(50, 4, "look"))
    assert not core.runner.admission.crowded
    await hot.end()
    await others.end()
    assert hot.latencies(503), "the mailbox was full"
    assert others.latencies(503) == []
    assert others.latencies(200)[-1] <= 5 * (SLICE_SECONDS + COST)


@pytest.mark.parametrize(("hot_names", "share"), [(1, 0.1), (3, 0.1), (1, 0.3)])
async def test_a_call_to_another_name_waits_for_at_most_one_slice_of_a_hot_name(hot_names: int, share: float) -> None:
    core = Core(Work)
    cost = COST / 10  # of "cheap"
    others, *hot = (Load(core) for _ in range(1 + hot_names))
    making = [load.make(2 / cost / hot_names, 0.6, "cheap", f"hot-{n}") for n, load in enumerate(hot)]
    await asyncio.gather(others.make(share / cost, 0.6, "cheap", grain=SHORT_SECONDS), *making)
    for load in (others, *hot):
        await load.end()
    assert min(load.latencies(200)[-1] for load in hot) > 20 * SLICE_SECONDS, "they were hot"
    # A call that is due is made within a slice or a grain of Load's, comes in the middle of a slice, and has its turn
    # in the next one, which one or two other calls may share.
    assert others.latencies(200, since=COMPANY_SECONDS)[-1] <= 4 * (SHORT_SECONDS + (hot_names + 2) * cost)


async def test_calls_of_a_hot_name_are_committed_in_long_intervals_and_those_beside_it_at_once() -> None:
    core, loop = Core(Work), asyncio.get_running_loop()
    cost = COST / 10
    for _ in range(900):
        core.send("hot", "work", b"[%f]" % cost)
    await core.send("another", "work", b"[%f]" % cost)
    began, commits = loop.time(), core.flusher.count
    await asyncio.sleep(0.03)
    assert core.flusher.count - commits == pytest.approx((loop.time() - began) / SLICE_SECONDS, abs=2)
    for number in range(5):
        began, commits = loop.time(), core.flusher.count
        await core.send(f"n-{number}", "work", b"[%f]" % cost)
        assert loop.time() - began <= 3 * (SHORT_SECONDS + cost)
        assert core.flusher.count > commits


async def test_a_worker_gives_its_core_away_at_the_ends_of_short_slices_and_at_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[float] = []
    core, loop = Core(Work), asyncio.get_running_loop()
    monkeypatch.setattr(turns, "give_way", lambda: given.append(loop.time()))
    for number in range(100):
        core.send("hot", "work")
        core.send(f"n-{number}", "work")
    await core.call("last", "look")
    assert given == [], "a crowd"
    await asyncio.sleep(1)
    waiting = [core.send("hot", "work") for _ in range(100)]
    await waiting[20]
    assert given == [], "a name alone"
    began = loop.time()
    await core.call("another", "look")
    await waiting[60]
    assert given
    assert len(given) == pytest.approx((loop.time() - began) / max(SHORT_SECONDS, COST), abs=5)


async def test_a_worker_is_pressed_when_it_has_not_rested_for_a_while_and_for_a_moment_after_it() -> None:
    core = Core(Work)
    pressed = core.runner.slices.pressed
    told: list[bool] = []
    core.runner.slices.on_full = lambda: told.append(pressed())
    few = max(1, int(FULL_SECONDS / COST / 2))
    for _ in range(10):
        await asyncio.gather(*(core.send(f"n-{number}", "work") for number in range(few)))
        assert not pressed()
        await asyncio.sleep(COST)
    waiting = [core.send("hot", "work") for _ in range(10 * few)]
    await waiting[4 * few]
    assert pressed()
    await waiting[-1]
    assert pressed(), "calls come in waves"
    assert told == [True]
    await asyncio.sleep(2 * LINGER_SECONDS)
    assert not pressed()


async def test_a_worker_is_pressed_at_once_when_names_with_long_queues_have_company() -> None:
    core = Core(Work)
    slices = core.runner.slices
    assert not slices.pressed()
    for number in range(2):  # more than fit into the first millisecond
        for _ in range(8):
            core.send(f"n-{number}", "work", b"[%f]" % (LOOK_SECONDS / 4))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert slices.pressed()
    await asyncio.sleep(FULL_SECONDS)
    assert slices.pressed()
    await asyncio.sleep(2 * COMPANY_SECONDS)
    assert not slices.pressed()


async def test_calls_that_are_answered_without_a_turn_end_slices_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands may be late at once, when the disk has stalled; or come again with their keys."""
    core, loop = Core(Work), asyncio.get_running_loop()

    def refuse_slowly(*args: Any, **options: Any) -> Any:
        use(COST / 10)
        return problem_reply(*args, **options)

    monkeypatch.setattr(call_module, "problem_reply", refuse_slowly)
    calls = [core.send(f"n-{number}", "work", within=-1) for number in range(1_000)]
    longest = 0.0
    while not calls[-1].done:
        began = loop.time()
        await asyncio.sleep(0)
        longest = max(longest, loop.time() - began)
    assert {call.answer.status for call in calls} == {503}
    assert longest <= SLICE_SECONDS + COST


async def test_slices_are_long_where_nobody_waits_for_their_end() -> None:
    """A commit, and a look at what has come, have their price."""
    core = Core(Work)
    cost = COST / 10
    began = core.flusher.count
    for _ in range(1_000):
        core.send("hot", "work", b"[%f]" % cost)
    await core.send("hot", "work", b"[%f]" % cost)
    assert core.flusher.count - began <= 1_000 * cost / SLICE_SECONDS + 3
    began = core.flusher.count
    for number in range(1_000):  # a crowd of names has no use for short ones either
        core.send(f"n-{number}", "work", b"[%f]" % cost)
    await core.send("last", "work", b"[%f]" % cost)
    assert core.flusher.count - began <= 1_000 * cost / SLICE_SECONDS + 3


async def test_a_call_after_a_long_silence_waits_for_one_long_slice_and_those_after_it_for_short_ones() -> None:
    core = Core(Work)
    loop = asyncio.get_running_loop()
    cost = COST / 10
    for _ in range(900):
        core.send("hot", "work", b"[%f]" % cost)
    await asyncio.sleep(2 * COMPANY_SECONDS / 10)
    waited = []
    for number in range(5):
        began = loop.time()
        await core.send(f"n-{number}", "work", b"[%f]" % cost)
        waited.append(loop.time() - began)
    assert waited[0] <= SLICE_SECONDS + 2 * (SHORT_SECONDS + cost)
    assert max(waited[1:]) <= 3 * (SHORT_SECONDS + cost)


async def test_a_pause_of_the_worker_is_no_overload() -> None:
    core = Core(Work)
    load = Load(core)
    await load.make(CAPACITY * 0.3, 1)
    core.send("pause", "work", b"[0.6]")
    await load.make(CAPACITY * 0.3, 2)  # what would have come in the pause comes at once
    await load.end()
    assert load.latencies(503) == []


async def test_a_few_callers_of_a_slow_method_are_never_refused() -> None:
    core = Core(Work)
    load = Load(core)
    for number in range(LEAST):
        load.one(asyncio.get_running_loop().time(), f"slow-{number}", "slow")
    while len(load.calls) < 5 * LEAST:  # as one is answered, its caller calls again
        await asyncio.sleep(0.005)
        for _ in range(len(load.ended) + LEAST - len(load.calls)):
            load.one(asyncio.get_running_loop().time(), f"slow-{len(load.calls)}", "slow")
    await load.end()
    assert load.latencies(503) == []
    assert load.latencies(200)[-1] > 3 * TARGET


async def test_work_that_was_let_in_is_not_refused_in_the_middle() -> None:
    core = Core(Work)
    load = Load(core)
    asking: list[Pending] = []

    async def ask() -> None:
        await asyncio.sleep(2)
        assert core.runner.admission.crowded
        while not asking or (asking[-1].done and asking[-1].answer.status == 503):
            asking.append(core.call("asker", "ask", 20))
            await asyncio.sleep(0.001)

    await asyncio.gather(load.make(CAPACITY * 2, 4), ask())
    assert (await asking[-1]).status == 200
    await load.end()


async def test_without_a_target_calls_wait_for_as_long_as_it_takes() -> None:
    core = Core(Work, queue_target=0)
    load = await Load(core).make(CAPACITY * 2, 2)
    await load.end()
    assert load.latencies(503) == []
    assert load.latencies(200)[-1] > 1.5


async def test_replies_leave_and_new_names_are_served_while_a_long_queue_is_worked_off() -> None:
    core = Core(Work, queue_target=0)
    began = asyncio.get_running_loop().time()
    queued = Load(core)
    for number in range(int(CAPACITY)):  # one second of work
        queued.one(began, f"n-{number}", "look")
    assert (await queued.calls[0][1]).status == 200
    assert asyncio.get_running_loop().time() - began <= 2 * (SLICE_SECONDS + COST)
    await queued.end()
    waits = queued.latencies(200)
    assert waits[len(waits) // 2] == pytest.approx(0.5, abs=3 * SLICE_SECONDS)


async def test_the_limit_of_a_worker_holds_for_everybody() -> None:
    core = Core(Work, worker_queue=10)
    calls = [core.call("hot", "look") for _ in range(20)]
    assert [(await call).status for call in calls] == [200] * 10 + [503] * 10


async def test_an_overload_that_lasts_is_told_once_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    core = Core(Work)
    for _ in range(3):
        await (await Load(core).make(CAPACITY * 2, 2)).end()
        await (await Load(core).make(CAPACITY / 2, 2 * CALM_SECONDS)).end()
        assert not core.runner.admission.crowded
    assert [record.name for record in caplog.records].count("actord.admission") == 1


async def test_requests_to_the_front_door_are_refused_as_calls_are() -> None:
    async def front_door(request: Request, env: Env) -> Response:
        return Response.text("in")

    core = Core(Work, front_door=front_door)
    load = Load(core)
    await load.make(CAPACITY * 2, 2)
    for _ in range(300):  # until no call is let in any more
        load.one(load._loop.time(), f"n-{len(load.calls)}")
    refused = core.door()
    core.gate.flush()
    assert (refused.answer.status, refused.answer.name) == (503, "ActorOverloaded")
    await load.end()
    assert (await core.door()).status == 200
