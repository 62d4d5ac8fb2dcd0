"""What an actor emits: numbered in its turn's commit, told when that is durable, bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from actord import StatefulActor
from actord.limits import EVENT_BYTES
from actord.shards.events import SWEEP_SECONDS, EventSweeper
from actord.shards.registry import ActorType, ProgramError

from tests.shards.feeds import Feed, Readers, started, told
from tests.shards.timers import Wall
from tests.support.harness import Core, open_sqlite, steps
from tests.support.memory_store import broken, full


def sweeper(core: Core) -> EventSweeper:
    return EventSweeper(core.dispatcher, core.runner, [core.shard])


def numbers(core: Core, name: str = "a") -> tuple[int, int]:
    actor = core.activation(name).kv.known_id()
    assert actor is not None
    return core.store.event_log(actor)


# -- emitting


async def test_events_of_an_actor_are_numbered_without_a_gap_in_the_order_of_its_turns(store: Any) -> None:
    core = started(store)
    stream = await Readers(core).open()
    await core.value("a", "say", "one", "two")
    await core.value("b", "say", "other")
    await core.value("a", "say", "three")
    await steps()
    assert stream.events == [(1, "word", "one"), (2, "word", "two"), (3, "word", "three")]


async def test_a_turn_that_fails_emits_nothing_and_takes_no_number(store: Any) -> None:
    core = started(store)
    stream = await Readers(core).open()
    await core.value("a", "say", "one")
    assert (await core.call("a", "say_and_fail", "lost")).status == 500
    await core.value("a", "say", "two")
    await steps()
    assert stream.events == [(1, "word", "one"), (2, "word", "two")]


async def test_a_storage_block_that_is_undone_takes_its_events_along(store: Any) -> None:
    core = started(store)
    stream = await Readers(core).open()
    await core.value("a", "say_in_a_block", "kept", "undone")
    await steps()
    assert stream.events == [(1, "word", "kept"), (2, "word", "kept!")]


async def test_only_the_turn_that_runs_may_emit(store: Any) -> None:
    core = started(store)
    await core.value("a", "say_late")
    await asyncio.sleep(2)
    assert told.pop() == "TurnEnded"


@pytest.mark.parametrize("kind", ["", "two words", "a\nb", "x" * 65, "actord.gap", 5, None, "é"])
async def test_a_kind_that_is_no_word_is_refused(store: Any, kind: Any) -> None:
    core = started(store)
    answer = await core.call("a", "say_kind", kind)
    assert "ValueError" in answer.detail


async def test_data_that_json_does_not_carry_or_that_is_too_much_is_refused(store: Any) -> None:
    core = started(store)
    assert (await core.call("a", "say_kind", "k", "x" * EVENT_BYTES)).name == "CodecError"
    assert (await core.call("a", "say_kind", "k", "x" * (EVENT_BYTES - 2))).status == 200


async def test_line_ends_in_data_do_not_break_the_stream(store: Any) -> None:
    core = started(store)
    stream = await Readers(core).open()
    data = "a\r\nb\rc\nid: 77\n\ndata: x\u2028"
    await core.value("a", "say", data)
    await steps()
    assert stream.words == [data]


async def test_an_initialisation_emits_with_its_own_commit(store: Any) -> None:
    core = started(store)
    stream = await Readers(core).open("w", type_="Waking")
    pending = core.send("w", "ping", type_="Waking")
    await pending
    await steps()
    assert stream.events == [(1, "woke", None)]


async def test_numbers_go_on_after_delete_all_an_eviction_and_a_restart(tmp_path: Path) -> None:
    with open_sqlite(tmp_path) as store:
        core = Core(Feed, store=store)
        await core.value("a", "say", 1, 2)
        await core.value("a", "clear")
        await core.value("a", "say", 3)
        assert numbers(core) == (1, 3)
        await asyncio.sleep(2)
        for _ in range(3):
            core.sweep()
            await steps()
        assert core.activations() == {}
        await core.value("a", "say", 4)
        core.runner.stop()
    with open_sqlite(tmp_path) as store:
        core = Core(Feed, store=store)
        stream = await Readers(core).open(seen=0)
        await core.value("a", "say", 5)
        await steps()
        assert stream.events == [(n, "word", n) for n in range(1, 6)]


# -- durable first


async def test_a_reader_gets_an_event_only_when_its_commit_is_durable() -> None:
    core = Core(Feed)
    core.hold_fsyncs()
    readers = Readers(core)
    stream = await readers.open()
    core.call("a", "say", "one")
    await steps()
    early = await readers.open(seen=0)
    assert stream.events == early.events == []
    assert "id: 0" in stream.text
    await core.fsync()
    assert stream.words == early.words == ["one"]


async def test_what_is_written_and_not_durable_is_not_read_from_the_store_either() -> None:
    core = Core(Feed)
    readers = Readers(core)
    await core.value("a", "say", "one")
    core.hold_fsyncs()
    core.call("a", "say", "two")
    await steps()
    late = await readers.open(seen=0)
    fresh = await readers.open()
    assert late.words == ["one"]
    assert "id: 1\n" in fresh.text
    await core.fsync()
    assert late.words == ["one", "two"]
    assert fresh.words == ["two"]


async def test_a_full_disk_takes_events_back_and_their_numbers_are_given_anew() -> None:
    core = Core(Feed)
    stream = await Readers(core).open()
    core.store.fail_write.append(full())
    assert (await core.call("a", "say", "lost")).status == 507
    await core.value("a", "say", "one")
    await steps()
    assert stream.events == [(1, "word", "one")]


async def test_a_commit_that_fails_tells_readers_nothing() -> None:
    core = Core(Feed)
    readers = Readers(core)
    stream = await readers.open()
    core.store.fail_sync.append(broken())
    assert (await core.call("a", "say", "unknown")).applied == "unknown"
    assert stream.events == []
    assert (await readers.open()).refusal == (503, "ActorUnavailable")


# -- bounds


async def test_the_newest_are_kept_and_older_ones_go_with_the_commit_that_brings_others(store: Any) -> None:
    core = started(store)
    for n in range(1, 12):
        await core.value("a", "say", n)
    assert numbers(core) == (7, 11)
    await core.value("a", "say", *range(12, 32))
    assert numbers(core) == (27, 31)
    assert (await Readers(core).open(query="?from=0")).words == [27, 28, 29, 30, 31]


async def test_old_events_are_not_told_and_are_removed(store: Any, wall: Wall) -> None:
    core = started(store)
    await core.value("a", "say", 1, 2)
    wall.offset += 60
    await core.value("a", "say", 3)
    wall.offset += 41
    readers = Readers(core)
    assert (await readers.open(query="?from=0")).words == [3]
    assert (await readers.open(seen=1)).events[0] == (2, "actord.gap", {"after": 1, "next": 3})
    sweeper(core).sweep()
    await steps()
    assert numbers(core) == (3, 3)
    wall.offset += 100
    sweeper(core).sweep()
    await steps()
    assert numbers(core) == (4, 3)
    assert (await readers.open(seen=1)).events == [(3, "actord.gap", {"after": 1, "next": 4})]
    await core.value("a", "say", 4)
    assert numbers(core) == (4, 4)


async def test_old_events_are_removed_of_actors_that_are_not_in_memory_and_wake_none(store: Any, wall: Wall) -> None:
    core = started(store)
    core.settings.idle_after = 1.0
    await core.value("a", "say", 1)
    built: list[str] = []
    wall.offset += 101
    await asyncio.sleep(2)
    for _ in range(3):
        core.sweep()
        await steps()
    assert core.activations() == {}
    one = sweeper(core)
    one.sweep()
    await steps()
    assert numbers(core) == (2, 1)
    assert core.activation("a").instance is None
    assert built == []
    commits = core.store.commit_seq
    one.sweep()  # not due yet
    await asyncio.sleep(SWEEP_SECONDS)
    one.sweep()
    await steps()
    assert core.store.commit_seq == commits, "there was nothing more to do"


@pytest.mark.parametrize(("attribute", "value"), [("events_kept", 0), ("events_kept", 1.5), ("events_age", 0)])
def test_a_class_with_a_bound_that_is_none_is_refused(attribute: str, value: Any) -> None:
    with pytest.raises(ProgramError, match=attribute):
        ActorType(type("Odd", (StatefulActor,), {attribute: value, "a": lambda self: None}), "ODD")
