"""Messages between actors of one worker: sent with the turn's commit, in order, once, again after failures."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from actord import ActorArgumentError, ActorError, CodecError, Response, StatefulActor
from actord.errors import SendError, StoreFull, TurnEnded
from actord.shards.registry import ActorType, ProgramError
from actord.storage.api import Batch

from tests.shards.timers import Wall, sleep
from tests.support.harness import Core, steps
from tests.support.memory_store import MemoryStore, full

arrived: list[Any] = []
failing: dict[Any, int] = {}  # value -> how often it still fails


@pytest.fixture(autouse=True)
def fresh() -> None:
    arrived.clear()
    failing.clear()


class Box(StatefulActor):
    async def take(self, value: Any) -> None:
        if failing.get(value, 0) > 0:
            failing[value] -= 1
            await self.ctx.storage.put("torn", value)
            raise ActorError(f"not {value}")
        arrived.append((self.ctx.id, value))
        await self.ctx.storage.put("all", [*await self.ctx.storage.get("all", []), value])

    async def held(self) -> Any:
        return [await self.ctx.storage.get("all", []), await self.ctx.storage.get("torn")]

    async def typed(self, n: int) -> None:
        arrived.append((self.ctx.id, n))

    async def later(self, to: str, value: Any, delay: float) -> None:
        self.env.send(Box, to, delay=delay).take(value)

    async def give(self, to: str, *values: Any) -> int:
        for value in values:
            self.env.send(Box, to).take(value)
        await self.ctx.storage.put("given", values)
        return len(values)

    async def give_and_fail(self, to: str, value: Any) -> None:
        await self.env.BOX.id_from_name(to).send.take(value)
        raise ActorError("no")

    async def give_in_blocks(self, to: str) -> None:
        box = self.env.BOX.id_from_name(to)
        await box.send.take(1)
        with suppress(ZeroDivisionError):
            async with self.ctx.storage.transaction():
                box.send.take(2)
                1 / 0  # noqa: B018
        async with self.ctx.storage.transaction() as block:
            box.send.take(3)
            block.rollback()
        async with self.ctx.storage.transaction():
            box.send.take(4)

    async def refused(self) -> list[str]:
        box = self.env.BOX.id_from_name("b")
        found = []
        for send in (
            lambda: box.send.missing(),
            lambda: box.send._private(),
            lambda: box.send.fetch(),
            lambda: box.send.typed("x"),
            lambda: box.send.typed(),
            lambda: box.send.take(object()),
            lambda: box.send.take(bytes(2 * 1024 * 1024)),
            lambda: box.send(delay=-1),
            lambda: box.send(delay=float("nan")),
            lambda: box.send(delay=True),
            lambda: box.send(delay="1"),
            lambda: box.send(delay=timedelta(days=36_500)),
            lambda: self.env.send(Box, ""),
        ):
            try:
                send()
            except Exception as error:
                found.append(type(error).__name__)
        return found

    async def flood(self, to: str, count: int, size: int) -> str:
        for number in range(count):
            if size:
                self.env.send(Box, to).take(bytes(size))
            else:
                self.env.send(Box, f"{to}{number}").typed(number)
        return "sent"

    async def leave_behind(self) -> None:
        async def later() -> None:
            await asyncio.sleep(1)
            try:
                self.env.send(Box, "b").take(1)
            except TurnEnded:
                arrived.append("refused")

        self.task = asyncio.create_task(later())

    async def on_deactivate(self) -> None:
        pass


def started(store: Any = None, *types: type[StatefulActor], **options: Any) -> Core:
    core = Core(*(types or (Box,)), store=store, **options)
    core.outbox.start()
    return core


def kept(core: Core) -> list[Any]:
    return [entry.message for entry in core.store.list_messages(parked=False, after=0, limit=1000)]


async def test_messages_arrive_in_the_order_of_the_sends_and_leave_nothing_behind(store: Any) -> None:
    core = started(store)
    assert await core.value("a", "give", "b", *range(5)) == 5
    assert await core.value("a", "give", "b", *range(5, 8)) == 3
    await steps(100)
    assert arrived == [("b", n) for n in range(8)]
    assert await core.value("b", "held") == [list(range(8)), None]
    assert kept(core) == []
    assert core.outbox.delivered == 8
    assert core.broken == []


async def test_a_message_leaves_only_when_the_commit_of_its_turn_is_durable(store: Any) -> None:
    core = started(store)
    core.hold_fsyncs()
    given = core.call("a", "give", "b", 1)
    await steps(100)
    assert not given.done
    assert arrived == []
    await core.fsync()
    assert (await given).value == 1
    await steps()
    assert arrived == [("b", 1)]
    core.flusher.auto = True
    await core.fsync()
    await steps()
    assert kept(core) == []


async def test_a_turn_that_fails_sends_nothing(store: Any) -> None:
    core = started(store)
    assert (await core.call("a", "give_and_fail", "b", 1)).status == 400
    await steps(100)
    assert arrived == []
    assert kept(core) == []


async def test_a_storage_block_that_is_undone_takes_its_sends_with_it(store: Any) -> None:
    core = started(store)
    await core.value("a", "give_in_blocks", "b")
    await steps(100)
    assert arrived == [("b", 1), ("b", 4)]


async def test_mistakes_surface_at_the_send() -> None:
    core = started()
    assert await core.value("a", "refused") == [
        "AttributeError",
        "AttributeError",
        "AttributeError",
        ActorArgumentError.__name__,
        ActorArgumentError.__name__,
        CodecError.__name__,
        CodecError.__name__,
        *[SendError.__name__] * 5,
        "BadRequest",
    ]
    await steps()
    assert arrived == []


async def test_a_turn_sends_so_many_messages_and_bytes_at_most() -> None:
    core = started()
    answer = await core.call("a", "flood", "b", 10_001, 0)
    assert (answer.status, answer.name) == (500, "SendError")
    answer = await core.call("a", "flood", "b", 17, 1024 * 1024)
    assert "bytes of arguments" in answer.detail
    assert kept(core) == []
    assert await core.value("a", "flood", "b", 10_000, 0) == "sent"
    while core.outbox.delivered < 10_000:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert sorted(arrived) == sorted((f"b{n}", n) for n in range(10_000))


async def test_outside_of_a_turn_send_says_what_to_do() -> None:
    said: list[str] = []

    async def door(request: Any, env: Any) -> Response:
        try:
            env.BOX.id_from_name("b").send.take(1)
        except SendError as error:
            said.append(error.detail)
        return Response.text("ok")

    core = started(front_door=door)
    await core.door()
    assert "call the actor and await it" in said[0]


async def test_what_a_turn_left_behind_sends_nothing() -> None:
    core = started()
    await core.value("a", "leave_behind")
    await sleep(2)
    assert arrived == ["refused"]
    assert kept(core) == []


# -- failures


async def test_a_failure_is_repeated_with_back_off_and_leaves_nothing_of_the_failed_run(store: Any, wall: Wall) -> None:
    core = started(store)
    failing[1] = 3
    await core.value("a", "give", "b", 1, 2)
    await core.value("x", "give", "b", 3)
    await steps(100)
    assert arrived == [("b", 3)], "other pairs do not wait, this one does"
    assert [m.attempts for m in kept(core)] == [1, 0]
    await sleep(0.99)
    assert len(arrived) == 1
    await sleep(0.02)
    await sleep(1.99)
    assert len(arrived) == 1
    await sleep(4.1)
    assert arrived == [("b", 3), ("b", 1), ("b", 2)]
    assert core.outbox.retried == 3
    assert kept(core) == []
    assert await core.value("b", "held") == [[3, 1, 2], None]


async def test_after_its_last_retry_a_message_is_parked_and_the_pair_goes_on(
    store: Any, wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    core = started(store, send_retries=2)
    failing[1] = 99
    await core.value("a", "give", "b", *range(1, 60))
    await sleep(3.5)
    assert arrived == [("b", n) for n in range(2, 60)]
    (parked,) = kept(core)
    assert (parked.attempts, parked.error) == (3, "ActorError: not 1")
    assert core.outbox.parked == 1
    assert [r.levelname for r in caplog.records if "is parked" in r.message] == ["ERROR"]
    await sleep(1000)
    assert len(arrived) == 58


async def test_a_type_says_how_often_its_messages_are_retried(wall: Wall) -> None:
    class Once(Box):
        send_retries = 0

        async def start(self) -> None:
            self.env.send(Once, "b").take(1)

    core = started(None, Once)
    failing[1] = 99
    await core.value("a", "start")
    await steps(100)
    assert core.outbox.parked == 1


async def test_what_the_runtime_could_not_do_is_no_attempt_and_is_tried_for_ever(wall: Wall) -> None:
    class Tight(Box):
        mailbox = 1

        async def block(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

        async def start(self, to: str) -> None:
            self.env.send(Tight, to).take(1)

    core = started(None, Tight, call_timeout=3000)
    calls = [core.send("b", "block", b"[%d]" % seconds, within=3000) for seconds in (1000, 1)]
    await steps()
    await core.value("a", "start", "b")
    await sleep(900)
    assert arrived == []
    assert [m.attempts for m in kept(core)] == [0]
    await sleep(110)
    await asyncio.gather(*calls)
    await sleep(10)
    assert arrived == [("b", 1)]


async def test_a_full_disk_takes_nothing_and_nothing_is_lost(wall: Wall) -> None:
    store = MemoryStore()
    core = started(store)
    store.fail_write.append(full())
    assert (await core.call("a", "give", "b", 1)).status == 507
    await sleep(5)
    assert arrived == []
    assert kept(core) == []
    store.fail_write += [None, full(), full()]  # the sender's commit, then those of the receiver
    await core.value("a", "give", "b", 2)
    await sleep(5)
    assert await core.value("b", "held") == [[2], None]
    assert kept(core) == []
    assert isinstance(full(), StoreFull)


async def test_a_full_disk_keeps_an_attempt_from_being_written_but_not_from_being_counted(wall: Wall) -> None:
    store = MemoryStore()
    core = started(store, send_retries=1)
    failing[1] = 99
    store.fail_write += [None, full(), full()]
    await core.value("a", "give", "b", 1)
    await sleep(10)
    assert core.outbox.parked == 1
    assert [m.error for m in kept(core)] == ["ActorError: not 1"]


# -- delays


async def test_a_delayed_message_is_never_early_and_takes_its_place_when_it_is_due(store: Any, wall: Wall) -> None:
    core = started(store)
    await core.value("a", "later", "b", "later", 60)
    await core.value("a", "later", "b", "soon", 0.25)
    await core.value("a", "give", "b", "now")
    await steps(50)
    assert arrived == [("b", "now")]
    await sleep(0.2)
    assert arrived == [("b", "now")]
    await sleep(0.1)
    assert arrived[1:] == [("b", "soon")]
    await sleep(59.6)
    assert len(arrived) == 2
    await sleep(0.2)
    assert arrived[2:] == [("b", "later")]
    assert kept(core) == []


async def test_delays_of_many_end_in_the_order_of_their_due_times(store: Any, wall: Wall) -> None:
    core = started(store)
    for number in range(70):
        await core.value("a", "later", "b", number, 10 + (number % 7) / 100)
    await sleep(12)
    assert [n for _, n in arrived] == sorted(range(70), key=lambda n: (n % 7, n))


async def test_a_clock_that_is_set_forward_is_noticed(wall: Wall) -> None:
    core = started()
    await core.value("a", "later", "b", 1, 3600)
    await sleep(5)
    assert arrived == []
    wall.offset += 3600
    await sleep(1.1)
    assert arrived == [("b", 1)]


# -- restarts


async def test_another_worker_delivers_what_the_first_one_left(store: Any, wall: Wall) -> None:
    first = Core(Box, store=store)  # it does not deliver
    await first.value("a", "give", "b", *range(150))
    await first.value("c", "give", "d", "x")
    await first.value("a", "later", "b", "delayed", 30)
    first.runner.stop()
    second = started(store)
    await steps(1500)
    assert [v for name, v in arrived if name == "b"] == list(range(150))
    assert ("d", "x") in arrived
    await sleep(31)
    assert arrived[-1] == ("b", "delayed")
    assert kept(second) == []


async def test_attempts_and_parked_messages_survive_a_restart(store: Any, wall: Wall) -> None:
    first = started(store, send_retries=3)
    failing[1] = 3
    await first.value("a", "give", "b", 1, 2)
    await sleep(1.1)
    assert [m.attempts for m in kept(first)] == [2, 0]
    first.runner.stop()
    first.outbox.stop()
    second = started(store, send_retries=3)
    await steps(100)
    assert arrived == [], "the pair waits for its first message, also now"
    await sleep(10)
    assert arrived == [("b", 1), ("b", 2)]
    assert second.outbox.retried == 1


async def test_nothing_more_is_delivered_once_it_is_stopped(store: Any) -> None:
    core = started(store)
    core.outbox.stop()
    await core.value("a", "give", "b", 1)
    await steps(100)
    assert arrived == []
    assert len(kept(core)) == 1


async def test_more_than_memory_holds_is_read_from_the_store(monkeypatch: pytest.MonkeyPatch, store: Any) -> None:
    from actord.shards import outbox

    monkeypatch.setattr(outbox, "HELD_BYTES", 20 * outbox.MESSAGE_BYTES)
    monkeypatch.setattr(outbox, "PAGE", 16)
    core = started(store, sends_at_once=4)
    for start in range(0, 120, 40):
        for name in ("p", "q", "r"):
            await core.value("a", "give", name, *range(start, start + 40))
    most = 0
    while core.outbox.delivered < 360:
        most = max(most, core.outbox._held)
        await asyncio.sleep(0)
    assert most <= 40 * (outbox.MESSAGE_BYTES + 10)
    for name in ("p", "q", "r"):
        assert [v for n, v in arrived if n == name] == list(range(120))
    await steps(100)
    assert kept(core) == []
    assert core.outbox._held == 0
    assert core.outbox.lanes[0].pairs == {}


# -- what it costs others


async def test_a_turn_without_sends_has_no_part_in_it() -> None:
    core = started()
    await core.value("a", "take", 1)
    await steps()
    assert all(batch.outbox == {} == batch.inbox for batch in core.store.batches)
    assert isinstance(core.store.batches[0], Batch)


@pytest.mark.parametrize("name", ["send", "id", "with_key"])
def test_a_method_that_a_stub_could_not_reach_is_refused_at_load(name: str) -> None:
    async def method(self: Any) -> None: ...

    cls = type("Bad", (StatefulActor,), {name: method})
    with pytest.raises(ProgramError, match=f"Bad.{name}: a stub has its own '{name}'"):
        ActorType(cls, "BAD")
    assert name not in ActorType(type("Good", (StatefulActor,), {name: method, "rpc": ()}), "GOOD").methods
