"""Readers of events: from where they left off, in order, once, bounded, and in nobody's way."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from actord.limits import EVENT_BYTES, STREAM_FRAME_BYTES, STREAM_WINDOW_BYTES
from actord.shards.event_streams import KEEP_ALIVE_SECONDS, TICK_SECONDS
from actord.shards.wire import BROKEN, CANCEL, DATA, GRANT, HEAD, MORE, MOVED

from tests.shards.feeds import Feed, Readers, started
from tests.support.harness import Core, open_sqlite, steps

# -- resuming


async def test_a_reader_resumes_behind_the_last_event_it_has_seen(store: Any) -> None:
    core = started(store)
    await core.value("a", "say", 1, 2, 3)
    readers = Readers(core)
    header, query = await readers.open(seen=1), await readers.open(query="?last_event_id=2")
    both = await readers.open(query="?last_event_id=1", seen=2)
    await core.value("a", "say", 4)
    await steps()
    assert header.words == [2, 3, 4]
    assert query.words == both.words == [3, 4], "the header is the newer one"


async def test_without_a_number_the_stream_begins_with_what_comes_and_says_where_it_stands(store: Any) -> None:
    core = started(store)
    await core.value("a", "say", 1, 2)
    stream = await Readers(core).open()
    assert re.fullmatch(r"retry: 1\d\d\d\nid: 2\n\n", stream.text)
    assert stream.link.of(stream.id)[0][:3] == [HEAD, stream.id, 200]
    await core.value("a", "say", 3)
    await steps()
    assert stream.words == [3]


async def test_from_gives_what_is_kept_and_misses_nothing(store: Any) -> None:
    core = started(store)
    readers = Readers(core)
    await core.value("a", "say", *range(1, 9))
    assert (await readers.open(query="?from=0")).events == [(n, "word", n) for n in range(4, 9)]
    assert (await readers.open(query="?from=7")).words == [7, 8]
    assert (await readers.open(query="?from=9")).words == []
    assert (await readers.open("nobody", query="?from=0")).events == []


async def test_a_gap_is_told_in_its_place(store: Any) -> None:
    core = started(store)
    await core.value("a", "say", *range(1, 9))
    stream = await Readers(core).open(seen=1)
    assert stream.events[0] == (3, "actord.gap", {"after": 1, "next": 4})
    assert stream.words[1:] == [4, 5, 6, 7, 8]
    whole = await Readers(core).open(seen=3)
    assert whole.words == [4, 5, 6, 7, 8]


async def test_a_number_beyond_the_last_is_told_as_a_gap(store: Any) -> None:
    """An older copy of the data was put in place: whoever waits for number 90 would miss everything until then."""
    core = started(store)
    await core.value("a", "say", 1)
    stream = await Readers(core).open(seen=90)
    await core.value("a", "say", 2)
    await steps()
    assert stream.events == [(1, "actord.gap", {"after": 90, "next": 2}), (2, "word", 2)]


@pytest.mark.parametrize("seen", ["x", "-1", "1.5", "9" * 40, "²"])
async def test_a_last_event_id_that_is_no_number_is_refused(store: Any, seen: str) -> None:
    core = started(store)
    assert (await Readers(core).open(seen=seen)).refusal == (400, "BadRequest")


# -- readers


async def test_a_stream_needs_no_instance_and_keeps_none_in_memory(store: Any) -> None:
    core = started(store)
    stream = await Readers(core).open()
    assert core.activations() == {}
    await core.value("a", "say", 1)
    await asyncio.sleep(2)
    for _ in range(3):
        core.sweep()
        await steps()
    assert core.activations() == {}
    await core.value("a", "say", 2)
    await steps()
    assert stream.words == [1, 2]


async def test_a_type_may_keep_its_events_to_itself(store: Any) -> None:
    core = started(store)
    assert (await Readers(core).open(type_="Private")).refusal == (404, "NotFound")
    assert (await Readers(core).open(type_="Unknown")).refusal == (404, "ActorUnknownTypeError")
    assert (await Readers(core).open("x\0")).refusal == (400, "BadRequest")


async def test_readers_beyond_the_limit_are_refused_until_one_goes() -> None:
    core = Core(Feed, event_streams=2)
    readers = Readers(core)
    first, second = await readers.open(), await readers.open()
    assert (await readers.open()).refusal == (503, "ActorOverloaded")
    await readers.link.tell((CANCEL, first.id))
    assert first.state == BROKEN
    third = await readers.open()
    await core.value("a", "say", 1)
    await steps()
    assert second.words == third.words == [1]
    assert first.words == []


async def test_nothing_is_left_of_readers_that_have_gone(store: Any) -> None:
    core = started(store)
    readers = Readers(core)
    streams = [await readers.open() for _ in range(3)]
    await readers.link.tell((CANCEL, streams[0].id))
    readers.link.connection.connection_lost(None)
    await steps()
    host = core.dispatcher.hosts["Feed"]
    assert host.topics == {}
    assert len(core.dispatcher.events) == 0
    assert readers.link.connection.streams == {}
    assert readers.link.connection.doors == {}


async def test_a_reader_that_takes_nothing_costs_a_window_and_goes_on_from_the_store(store: Any) -> None:
    core = started(store)
    slow, quick = Readers(core), Readers(core)
    stream, other = await slow.open(), await quick.open()
    large = "x" * 60_000
    for n in range(40):
        await core.value("a", "say", [n, large])
        await quick.link.tell((GRANT, other.id, 70_000))
    assert len(stream.text) < STREAM_WINDOW_BYTES + 2 * EVENT_BYTES
    taken = [n for n, _ in stream.words]
    assert taken == list(range(len(taken)))
    assert [n for n, _ in other.words] == list(range(40))
    while stream.events[-1][0] < 40:
        await slow.link.tell((GRANT, stream.id, 60_000))
    gap = next(event for event in stream.events if event[1] == "actord.gap")
    assert gap[2] == {"after": len(taken), "next": 36}
    rest = [data[0] for _, kind, data in stream.events if kind == "word"]
    assert rest == [*taken, 35, 36, 37, 38, 39], "what was dropped meanwhile is told as a gap, what is kept follows"


async def test_a_quiet_stream_is_kept_alive_by_comments(store: Any) -> None:
    core = started(store)
    readers = Readers(core)
    stream = await readers.open()
    await asyncio.sleep(KEEP_ALIVE_SECONDS + TICK_SECONDS)
    assert stream.text.endswith("\n\n:\n\n")
    await asyncio.sleep(3 * KEEP_ALIVE_SECONDS)
    assert stream.text.count(":\n\n") >= 3
    await readers.link.tell((CANCEL, stream.id))


async def test_a_thousand_readers_get_every_event_once_from_one_encoding(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = started(store)
    from actord.shards import event_streams

    made: list[int] = []
    form = event_streams._form
    monkeypatch.setattr(event_streams, "_form", lambda seq, *rest: made.append(seq) or form(seq, *rest))
    readers = Readers(core)
    streams = [await readers.open() for _ in range(1_000)]
    await core.value("a", "say", 1, 2)
    await core.value("a", "say", 3)
    await steps()
    by_id: dict[int, bytes] = {}
    for frame in readers.link.frames:
        if frame[0] == DATA:
            by_id[frame[1]] = by_id.get(frame[1], b"") + frame[2]
    tails = {by_id[stream.id].partition(b"\n\n")[2] for stream in streams}
    assert len(tails) == 1
    assert re.findall(rb"id: (\d+)", tails.pop()) == [b"1", b"2", b"3"]
    assert made == [1, 2, 3]


async def test_a_worker_that_leaves_says_where_each_stream_stands(store: Any) -> None:
    core = started(store)
    readers = Readers(core)
    stream = await readers.open()
    await core.value("a", "say", 1, 2)
    await steps()
    connection = readers.link.connection
    for open_stream in list(connection.streams.values()):
        open_stream.end_if_idle(0.0, 0.0)
    await steps()
    assert stream.state == MOVED
    assert readers.link.of(stream.id)[-1] == [DATA, stream.id, b"2", MOVED]
    assert connection.streams == {}


async def test_damage_is_refused_at_the_start_and_breaks_a_stream_off_later(tmp_path: Path) -> None:
    with open_sqlite(tmp_path) as store:
        core = Core(Feed, store=store)
        readers = Readers(core)
        await core.value("a", "say", 1, 2, 3)
        store._conn.execute("UPDATE event SET data = x'39' WHERE seq = 2")
        assert (await readers.open(seen=1)).refusal == (500, "StoreCorrupt")
        good = await readers.open(seen=2)
        assert good.words == [3]
        assert good.state == MORE
        with closing(readers.link.connection.begun):
            await readers.link.tell((GRANT, good.id, STREAM_FRAME_BYTES))
