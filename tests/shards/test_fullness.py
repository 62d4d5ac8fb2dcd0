"""Full mailboxes, as fronts are told of them. In virtual time: a turn takes what its method says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from actord import StatefulActor
from actord.shards.fullness import AGAIN_SECONDS, LEAST

from tests.shards.test_admission import CAPACITY, Load, Work
from tests.support.harness import Caller, Core, Pending

MAILBOX = 2 * LEAST


class Held(StatefulActor):
    """Its turns end one by one, as the test says."""

    mailbox = MAILBOX
    turns: asyncio.Queue[None]

    async def wait(self) -> None:
        await Held.turns.get()


class Short(Held):
    mailbox = LEAST - 1


class Told(list[tuple[str, bool]]):
    """What fronts were told of names."""

    def __init__(self, core: Core) -> None:
        core.runner.admission.fullness.on_change = lambda act, full: self.append((act.name, full))


def fill(core: Core, type_: str, calls: int) -> list[Pending]:
    """So many calls of one name, of which the first has its turn."""
    Held.turns = asyncio.Queue()
    return [core.send("hot", "wait", type_=type_) for _ in range(calls)]


async def let(turns: int, calls: list[Pending]) -> None:
    """Let so many turns end, the first of these calls."""
    for _ in range(turns):
        Held.turns.put_nowait(None)
    await asyncio.gather(*(call.future for call in calls[:turns]))
    del calls[:turns]
    for _ in range(3):
        await asyncio.sleep(0)


async def test_fronts_are_told_of_a_full_mailbox_and_of_room_when_an_eighth_of_it_is_free() -> None:
    core = Core(Held)
    told = Told(core)
    calls = fill(core, "Held", 1 + MAILBOX)
    await asyncio.sleep(0)
    assert told == [], "nothing was refused yet"
    for _ in range(10):  # under way when fronts heard of it
        assert (await core.send("hot", "wait")).name == "ActorOverloaded"
    assert told == [("hot", True)]
    await let(MAILBOX // 8 - 1, calls)
    assert told == [("hot", True)]
    await let(1, calls)
    assert told == [("hot", True), ("hot", False)]
    await let(len(calls), calls)


async def test_they_are_told_again_while_calls_still_come_and_are_refused() -> None:
    core = Core(Held)
    told = Told(core)
    calls = fill(core, "Held", 1 + MAILBOX)
    for passed in (0.0, AGAIN_SECONDS / 2, AGAIN_SECONDS / 2, AGAIN_SECONDS / 2):
        await asyncio.sleep(passed)
        assert (await core.send("hot", "wait")).status == 503
    assert told == [("hot", True)] * 2
    await let(len(calls), calls)


async def test_a_short_mailbox_is_the_workers_own_business() -> None:
    core = Core(Short)
    told = Told(core)
    calls = fill(core, "Short", 1 + Short.mailbox)
    assert (await core.send("hot", "wait", type_="Short")).status == 503
    assert told == []
    await let(len(calls), calls)


async def test_a_call_of_another_actor_that_is_refused_concerns_no_front() -> None:
    core = Core(Held)
    told = Told(core)
    calls = fill(core, "Held", 1 + MAILBOX)
    within = Caller()
    within.outside = False
    assert (await core.send("hot", "wait", caller=within)).status == 503
    assert told == []
    await let(len(calls), calls)


async def test_fronts_hear_of_it_and_nobody_else_does() -> None:
    class Connection:
        def __init__(self, caller: str) -> None:
            self.caller, self.frames = caller, list[Any]()
            core.dispatcher.connections.add(self)  # type: ignore[arg-type]

        def put_frame(self, frame: Any) -> None:
            self.frames.append(frame)

    core = Core(Held)
    front, worker, client = (Connection(caller) for caller in ("front-0", "worker-1", "client"))
    calls = fill(core, "Held", 2 + MAILBOX)
    await calls.pop()
    await let(MAILBOX // 8, calls)
    assert [frame[1:] for frame in front.frames] == [("Held", "hot", True), ("Held", "hot", False)]
    assert worker.frames == client.frames == []
    await let(len(calls), calls)


@pytest.mark.parametrize("times", [1.5, 8])
async def test_fronts_refuse_most_of_what_comes_for_a_hot_name_and_its_worker_never_idles(times: float) -> None:
    core = Core(Work, mailbox=MAILBOX)
    load = Load(core)
    core.runner.admission.fullness.on_change = lambda act, full: load.shed(float(full))
    await load.make(CAPACITY * times, 1.5, name="hot")
    await load.end()
    served, refused = load.latencies(200), load.latencies(503)
    assert len(served) >= 0.99 * CAPACITY * (max(load.ended.values()) - load.calls[0][0])
    assert len(refused) <= 0.05 * len(served), "the worker has little to refuse itself"
