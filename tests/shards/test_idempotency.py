"""A call with an idempotency key takes effect once; whoever makes it again gets the first one's reply."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from actord import ActorError, StatefulActor, codec
from actord.errors import IdempotencyKeyReused, StoreFull
from actord.limits import VALUE_BYTES
from actord.shards.idempotency import REST_SWEEPS
from actord.storage import replies

from tests.shards.timers import Wall
from tests.support.harness import MSGPACK, PAIR, TIMING, Answer, Caller, Core, open_sqlite, steps
from tests.support.memory_store import MemoryStore, full

gate = asyncio.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    global gate
    gate = asyncio.Event()


class Till(StatefulActor):
    runs = 0

    async def add(self, amount: int = 1) -> int:
        Till.runs += 1
        total: int = await self.ctx.storage.get("total", 0) + amount
        await self.ctx.storage.put("total", total)
        return total

    async def add_slowly(self, amount: int) -> int:
        await gate.wait()
        return await self.add(amount)

    async def total(self) -> int:
        return int(await self.ctx.storage.get("total", 0))

    async def refuse(self) -> None:
        Till.runs += 1
        await self.ctx.storage.put("total", -1)
        raise ActorError("no", code="no", status=409)

    async def crash(self) -> None:
        Till.runs += 1
        raise RuntimeError("no")

    async def nothing(self) -> dict[str, int]:
        Till.runs += 1
        return {"runs": Till.runs}

    async def bytes_of(self, count: int) -> str:
        await self.ctx.storage.put("total", 7)
        return "x" * count

    async def wipe(self) -> None:
        await self.ctx.storage.delete_all()

    async def pair(self, value: Any) -> Any:
        Till.runs += 1
        return (value, {1: 2})


class Payer(StatefulActor):
    async def pay(self, key: str, amount: int) -> int:
        return int(await self.env.TILL.id_from_name("till").with_key(key).add(amount))

    async def fetch_with_key(self) -> Any:
        return await self.env.get(Till, "till", idempotency_key="k").fetch(None)

    async def key(self, key: Any) -> None:
        self.env.TILL.get("till", idempotency_key=key)


def replayed(answer: Answer) -> bool:
    return b"Idempotent-Replayed: true\r\n" in answer.head


async def test_the_same_request_runs_once_and_its_reply_comes_again_with_a_mark(store: Any) -> None:
    core = Core(Till, store=store)
    first = await core.keyed("a", "k", "add", 5)
    again = await core.keyed("a", "k", "add", 5)
    assert (first.value, again.value, again.status) == (5, 5, 200)
    assert replayed(again)
    assert not replayed(first)
    assert b"Content-Type: application/json\r\n" in again.head
    assert await core.value("a", "total") == 5


async def test_two_keys_are_two_requests_and_each_instance_has_keys_of_its_own(store: Any) -> None:
    core = Core(Till, store=store)
    for key in ("k", "l"):
        await core.keyed("a", key, "add", 5)
        await core.keyed("b", key, "add", 1)
    assert await core.value("a", "total") == 10
    assert await core.value("b", "total") == 2


async def test_another_request_under_a_used_key_is_refused_and_does_not_run(store: Any) -> None:
    core = Core(Till, store=store)
    await core.keyed("a", "k", "add", 5)
    for method, body, flags in [
        ("add", b"[6]", 0),
        ("add", b"[5 ]", 0),  # the same value in other bytes
        ("refuse", b"", 0),
        ("add", codec.encode([5]), MSGPACK),
        ("add", codec.encode([[5], {}]), MSGPACK | PAIR),
    ]:
        answer = await core.send("a", method, body, flags=flags, key="k")
        assert (answer.status, answer.name, answer.applied) == (422, "IdempotencyKeyReused", "no")
    assert replayed(await core.keyed("a", "k", "add", 5))
    assert await core.value("a", "total") == 5


async def test_a_reply_in_msgpack_comes_again_with_its_types(store: Any) -> None:
    core = Core(Till, store=store)
    for flags, body in ((MSGPACK, codec.encode([b"x"])), (MSGPACK | PAIR, codec.encode([[{1}], {}]))):
        first, again = [await core.send("a", "pair", body, flags=flags, key=f"k{flags}") for _ in range(2)]
        assert first.value == again.value
        assert type(again.value) is tuple
        assert replayed(again)
        assert b"application/msgpack" in again.head


async def test_a_turn_that_throws_stores_nothing_and_its_key_may_be_used_again(store: Any) -> None:
    core = Core(Till, store=store)
    before = Till.runs
    for method, status in (("refuse", 409), ("refuse", 409), ("crash", 500), ("crash", 500)):
        answer = await core.keyed("a", "k", method)
        assert (answer.status, replayed(answer)) == (status, False)
    assert Till.runs == before + 4
    assert (await core.keyed("a", "k", "add", 2)).value == 2


async def test_a_call_that_writes_nothing_keeps_its_reply_too(store: Any) -> None:
    core = Core(Till, store=store)
    first = await core.keyed("a", "k", "nothing")
    assert (await core.keyed("a", "k", "nothing")).value == first.value


async def test_the_second_request_waits_while_the_first_one_runs_and_gets_the_same_reply(store: Any) -> None:
    core = Core(Till, store=store)
    first = core.keyed("a", "k", "add_slowly", 5)
    others = [core.keyed("a", "k", "add_slowly", 5) for _ in range(3)]
    await steps()
    assert not any(call.done for call in (first, *others))
    gate.set()
    assert (await first).value == 5
    for other in others:
        answer = await other
        assert answer.value == 5
        assert replayed(answer)
    assert await core.value("a", "total") == 5


async def test_a_reply_that_is_held_for_its_commit_holds_those_who_ask_again(store: Any) -> None:
    core = Core(Till, store=store)
    core.hold_fsyncs()
    first = core.keyed("a", "k", "add", 5)
    await steps()
    again = core.keyed("a", "k", "add", 5)  # its batch is in flight
    core.call("b", "add")
    core.keyed("a", "l", "add", 1)
    await steps()
    late = core.keyed("a", "l", "add", 1)  # in the open batch
    await steps()
    assert not any((first.done, again.done, late.done))
    await core.fsync()
    assert first.done
    assert replayed(again.answer)
    assert not late.done
    await core.fsync()
    assert replayed(late.answer)
    assert late.answer.value == 6


async def test_a_reply_outlives_the_instance_and_the_worker(tmp_path: Path) -> None:
    with open_sqlite(tmp_path) as store:
        core = Core(Till, store=store, idle_after=1)
        await core.keyed("a", "k", "add", 5)
        for _ in range(3):
            core.sweep()
        assert not core.activations()
        assert replayed(await core.keyed("a", "k", "add", 5))
    with open_sqlite(tmp_path) as store:
        core = Core(Till, store=store)
        answer = await core.keyed("a", "k", "add", 5)
        assert replayed(answer)
        assert answer.value == 5


async def test_delete_all_keeps_the_replies_so_a_retry_does_not_run_twice(store: Any) -> None:
    core = Core(Till, store=store)
    await core.keyed("a", "k", "add", 5)
    await core.keyed("a", "w", "wipe")
    assert replayed(await core.keyed("a", "k", "add", 5))
    assert replayed(await core.keyed("a", "w", "wipe"))
    assert await core.value("a", "total") == 0


async def test_an_expired_reply_is_not_given_out_although_its_row_is_there(store: Any, wall: Wall) -> None:
    core = Core(Till, store=store, idempotency_ttl=100)
    await core.keyed("a", "k", "add", 5)
    wall.offset += 99.5
    assert replayed(await core.keyed("a", "k", "add", 5))
    wall.offset += 0.5
    assert store.reply_keys(1) == ["k"]
    assert not replayed(await core.keyed("a", "k", "add", 6))  # not even another request is refused
    wall.offset += 99.5
    answer = await core.keyed("a", "k", "add", 6)  # counted from its new use
    assert replayed(answer)
    assert answer.value == 11


async def test_expired_replies_leave_the_store_with_commits_that_add_some(
    store: Any, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "TAIL_ROWS", 27)  # so that the last of these calls completes the index a second time
    core = Core(Till, store=store, idempotency_ttl=100)
    for i in range(50):
        await core.keyed(f"a{i % 5}", f"k{i}", "add")
    wall.offset += 101
    for i in range(4):
        await core.keyed("b", f"n{i}", "add")
    assert [key for actor in range(1, 7) for key in store.reply_keys(actor)] == [f"n{i}" for i in range(4)]
    await core.keyed("a0", "k0", "add")
    assert await core.value("a0", "total") == 11


async def test_a_slow_sweep_deletes_expired_replies_of_a_shard_that_gets_no_more(store: Any, wall: Wall) -> None:
    core = Core(Till, store=store, idempotency_ttl=100)
    for i in range(300):
        core.keyed(f"a{i % 5}", f"k{i}", "add")
    await steps(400)
    wall.offset += 50
    await core.keyed("b", "young", "add")
    core.replies.sweep()
    core.replies.sweep()
    await steps()
    assert sum(len(store.reply_keys(actor)) for actor in range(1, 7)) == 301
    wall.offset += 51
    for _ in range(REST_SWEEPS + 2):
        core.replies.sweep()
        await steps()
    assert [store.reply_keys(actor) for actor in range(1, 7)] == [[]] * 5 + [["young"]]


async def test_an_instance_keeps_so_many_replies_and_the_oldest_go_first(tmp_path: Path) -> None:
    with open_sqlite(tmp_path) as store:
        core = Core(Till, store=store, idempotency_keys=3)
        for i in range(5):
            await core.keyed("a", f"k{i}", "add")
        assert store.reply_keys(1) == ["k2", "k3", "k4"]
        assert replayed(await core.keyed("a", "k2", "add"))
        assert not replayed(await core.keyed("a", "k1", "add"))
        core = Core(Till, store=store, idempotency_keys=2)  # a lower limit, read anew
        await core.keyed("a", "k9", "add")
        assert store.reply_keys(1) == ["k1", "k9"]


async def test_a_reply_over_the_limit_of_a_value_fails_before_its_commit(store: Any) -> None:
    core = Core(Till, store=store)
    answer = await core.keyed("a", "k", "bytes_of", VALUE_BYTES - 1)
    assert (answer.status, answer.applied) == (500, "no")
    assert "idempotency key" in answer.detail
    assert await core.value("a", "total") == 0
    assert (await core.keyed("a", "k", "bytes_of", VALUE_BYTES - 2)).status == 200
    assert len((await core.keyed("a", "k", "bytes_of", VALUE_BYTES - 2)).body) == VALUE_BYTES


async def test_calls_with_new_keys_read_nothing_once_the_instance_is_loaded() -> None:
    store = MemoryStore()
    core = Core(Till, store=store)
    await core.keyed("a", "k0", "add")
    reads = store.reads
    for i in range(1, 20):
        await core.keyed("a", f"k{i}", "add")
    assert store.reads == reads
    await core.keyed("a", "k3", "add")
    assert store.reads == reads + 1


async def test_a_full_disk_forgets_the_replies_of_its_batch_and_the_call_runs_when_there_is_room() -> None:
    store = MemoryStore()
    core = Core(Till, store=store)
    await core.keyed("a", "before", "add")
    store.fail_write.append(full())
    first, again, other = (core.keyed("a", key, "add", 5) for key in ("k", "k", "l"))
    for answer in (await first, await again, await other):
        assert (answer.status, answer.name, answer.applied) == (507, "ActorOutputGateError", "no")
    answer = await core.keyed("a", "k", "add", 5)
    assert (answer.value, replayed(answer)) == (6, False)
    assert replayed(await core.keyed("a", "k", "add", 5))
    assert replayed(await core.keyed("a", "before", "add"))


async def test_a_failed_commit_makes_replays_from_its_batch_unknown_as_well() -> None:
    store = MemoryStore()
    core = Core(Till, store=store)
    store.fail_sync.append(OSError("EIO"))
    answers = [await call for call in [core.keyed("a", "k", "add"), core.keyed("a", "k", "add")]]
    assert [answer.applied for answer in answers] == ["unknown", "unknown"]
    assert core.broken


async def test_a_call_that_comes_again_does_not_claim_that_nothing_was_applied_unless_it_looked(store: Any) -> None:
    core = Core(Till, store=store, mailbox=1)
    holder = core.keyed("a", "h", "add_slowly", 1)
    waits = core.send("a", "add", b"[1]", key="k", again=1, within=0.5)
    full_ = await core.send("a", "add", b"[1]", key="k", again=1)
    assert (full_.name, full_.applied) == ("ActorOverloaded", "unknown")
    assert (await core.send("b", "none", key="k", again=1)).applied == "unknown"
    assert (await core.send("a", "add", b"[1]", key="k")).applied == "no"
    gate.set()
    assert (await holder).status == 200
    assert (await waits).value == 2
    await asyncio.sleep(1)
    late = await core.send("a", "add", b"[9]", key="m", again=1, within=-1)  # looked up, so it is certain
    assert (late.status, late.applied) == (503, "no")
    assert replayed(await core.send("a", "add", b"[1]", key="k", again=1, within=-1))
    failed = await core.send("a", "refuse", key="n", again=1)
    assert (failed.status, failed.applied) == (409, "no")


async def test_a_call_that_its_caller_gave_up_still_stands_if_it_had_begun(store: Any) -> None:
    core = Core(Till, store=store)
    gone = Caller()
    core.send("a", "add_slowly", b"[5]", key="k", caller=gone)
    core.send("a", "add", b"[7]", key="never", caller=gone)
    await steps()
    for call in gone.calls.values():
        call.cancelled = True
    gate.set()
    answer = await core.keyed("a", "k", "add_slowly", 5)
    assert replayed(answer)
    assert answer.value == 5
    assert not replayed(await core.keyed("a", "never", "add", 7))


async def test_timing_is_told_of_a_replay_and_not_stored(store: Any) -> None:
    core = Core(Till, store=store)
    await core.send("a", "add", key="k", flags=TIMING)
    again = await core.send("a", "add", key="k", flags=TIMING)
    assert again.head.count(b"Server-Timing:") == 1
    assert replayed(again)
    assert b"Server-Timing" not in (await core.send("a", "add", key="k")).head


async def test_a_stub_with_a_key_runs_once_also_when_its_caller_fails_and_comes_again(store: Any) -> None:
    core = Core(Payer, Till, store=store)
    for _ in range(3):
        assert (await core.call("p", "pay", "order-1", 5)).value == 5
    refused = await core.call("p", "pay", "order-1", 6)
    assert (refused.status, refused.name) == (422, IdempotencyKeyReused.__name__)
    over_http = await core.send(
        "till", "add", codec.encode([[5], {}]), type_="Till", flags=MSGPACK | PAIR, key="order-1"
    )
    assert replayed(over_http)
    assert (await core.send("till", "total", type_="Till")).value == 5
    assert (await core.call("p", "fetch_with_key")).name == "BadRequest"
    for key in ("", "x" * 256, "é", "a\nb", 7):
        assert (await core.call("p", "key", key)).name == "BadRequest"


async def test_a_disk_that_fills_up_for_real_takes_key_and_writes_together(tmp_path: Path) -> None:
    with open_sqlite(tmp_path) as store:
        core = Core(Till, store=store)
        await core.keyed("a", "k", "add")
        write, store.write = store.write, lambda batch: (_ for _ in ()).throw(StoreFull("no room"))
        assert (await core.keyed("a", "l", "add")).status == 507
        store.write = write
        assert json.loads((await core.keyed("a", "l", "add")).body) == 2
        assert store.reply_keys(1) == ["k", "l"]
