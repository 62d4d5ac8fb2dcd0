"""Streamed answers as a link sees them: after the commit, within the window, over exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from actord import Request, Response, StatefulActor, StreamingResponse
from actord.limits import STREAM_FRAME_BYTES, STREAM_PIECE_BYTES, STREAM_WINDOW_BYTES
from actord.shards.wire import BROKEN, CANCEL, DATA, DOOR, END, GRANT, HEAD, MORE, REPLY, TIMING

from tests.support.harness import Core, steps
from tests.support.link_end import LinkEnd
from tests.support.memory_store import broken, full

fate: dict[str, str] = {}


async def body(what: str) -> AsyncIterator[bytes]:
    try:
        if what == "/endless":
            while True:
                yield b"x" * 1_000
        elif what == "/large":
            yield b"y" * (STREAM_WINDOW_BYTES * 2)
        elif what == "/waits":
            yield b"first"
            await asyncio.Event().wait()
        elif what == "/fails":
            yield b"first"
            raise KeyError("gone")
        else:
            yield b"a"
            yield b""
            yield b"b"
    except BaseException as error:
        fate[what] = type(error).__name__
        raise
    else:
        fate[what] = "ended"


class Feed(StatefulActor):
    async def fetch(self, request: Request) -> Response:
        await self.ctx.storage.put("seen", 1)
        return StreamingResponse(body(request.path), 201, {"X-A": "b"})


async def front_door(request: Request, env: Any) -> Response:
    events = {"media_type": "text/event-stream"} if request.query_string else {}
    return StreamingResponse(body(request.path), **events)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_fate() -> None:
    fate.clear()


def sent(end: LinkEnd, id_: int) -> int:
    """What the window counts of an answer."""
    return sum(len(frame[2]) + STREAM_FRAME_BYTES for frame in end.of(id_) if frame[0] == DATA and frame[3] == MORE)


async def test_a_stream_is_one_head_its_data_and_one_end() -> None:
    end = LinkEnd(Core(front_door=front_door))
    await end.door(1)
    assert end.frames == [
        [HEAD, 1, 200, b""],
        [DATA, 1, b"a", MORE],
        [DATA, 1, b"b", MORE],
        [DATA, 1, b"", END],
    ]
    assert not end.connection.streams
    assert not end.connection.doors


async def test_an_actors_stream_begins_after_the_fsync_of_its_turns_batch() -> None:
    core = Core(Feed)
    end = LinkEnd(core)
    core.hold_fsyncs()
    await end.fetch(1, "a")
    assert end.frames == []
    assert fate == {}
    await core.fsync()
    assert end.of(1)[0] == [HEAD, 1, 201, b"X-A: b\r\n"]
    assert end.kinds(1) == [HEAD, DATA, DATA, DATA]
    assert fate == {"/": "ended"}


@pytest.mark.parametrize("failure", [full, broken])
async def test_a_stream_whose_commit_failed_never_begins(failure: Any) -> None:
    core = Core(Feed)
    core.store.fail_write.append(failure())
    end = LinkEnd(core)
    await end.fetch(1, "a")
    assert end.kinds(1) == [REPLY]
    assert end.of(1)[0][2] in (500, 507)
    assert fate == {}


async def test_an_actors_stream_can_be_timed() -> None:
    end = LinkEnd(Core(Feed))
    await end.fetch(1, "a", flags=TIMING)
    assert b"Server-Timing: queue;" in end.of(1)[0][3]


@pytest.mark.parametrize("path", ["/endless", "/large"])
async def test_no_more_than_a_window_is_on_the_way(path: str) -> None:
    end = LinkEnd(Core(front_door=front_door))
    await end.door(1, path)
    await steps(20)
    first = sent(end, 1)
    piece = STREAM_PIECE_BYTES + STREAM_FRAME_BYTES
    assert STREAM_WINDOW_BYTES <= first < STREAM_WINDOW_BYTES + piece
    await end.tell((GRANT, 1, 100_000))
    await steps(20)
    assert STREAM_WINDOW_BYTES + 100_000 <= sent(end, 1) < STREAM_WINDOW_BYTES + 100_000 + piece
    await end.tell((CANCEL, 1))


async def test_a_piece_of_one_byte_counts_for_more() -> None:
    async def drops() -> AsyncIterator[str]:
        while True:
            yield "."

    async def fetch(request: Request, env: Any) -> Response:
        return StreamingResponse(drops())

    end = LinkEnd(Core(front_door=fetch))
    await end.door(1)
    assert len(end.of(1)) < STREAM_WINDOW_BYTES / STREAM_FRAME_BYTES
    await end.tell((CANCEL, 1))


@pytest.mark.parametrize("actor", [True, False])
@pytest.mark.parametrize("path", ["/waits", "/endless"])
async def test_a_caller_that_gives_up_cancels_the_iterator_and_gets_its_id_back(actor: bool, path: str) -> None:
    end = LinkEnd(Core(Feed, front_door=front_door))
    await (end.fetch(1, "a", path) if actor else end.door(1, path))
    await end.tell((CANCEL, 1))
    assert end.of(1)[-1] == [DATA, 1, b"", BROKEN]
    assert fate == {path: "CancelledError" if path == "/waits" else "GeneratorExit"}
    assert not end.connection.streams
    assert not end.connection.doors
    await (end.fetch(1, "b") if actor else end.door(1))
    assert end.of(1)[-1] == [DATA, 1, b"", END]


@pytest.mark.parametrize("actor", [True, False])
async def test_a_call_given_up_before_its_first_step_still_gives_its_id_back(actor: bool) -> None:
    end = LinkEnd(Core(Feed, front_door=front_door))
    url = end.request("/waits")
    if actor:
        end.core.hold_fsyncs()
        await end.fetch(1, "a", "/waits")
        end.core.flusher.fsync()
        await end.tell((CANCEL, 1))
    else:
        await end.tell((DOOR, 1, url, 0, end.deadline(), b""), (CANCEL, 1))
    assert end.of(1)[-1][0] in (REPLY, DATA)
    assert sum(frame[0] == REPLY or (frame[0] == DATA and frame[3] != MORE) for frame in end.of(1)) == 1
    assert not end.connection.doors


async def test_an_iterator_that_raises_breaks_the_stream_off() -> None:
    end = LinkEnd(Core(Feed, front_door=front_door))
    await end.fetch(1, "a", "/fails")
    assert end.of(1)[-2:] == [[DATA, 1, b"first", MORE], [DATA, 1, b"", BROKEN]]
    await end.fetch(2, "a")
    assert end.of(2)[-1] == [DATA, 2, b"", END], "the actor goes on"


async def test_streams_end_with_the_link_of_their_caller() -> None:
    end = LinkEnd(Core(Feed, front_door=front_door))
    await end.fetch(1, "a", "/waits")
    await end.door(2, "/endless")
    end.connection.connection_lost(None)
    await steps()
    assert fate == {"/waits": "CancelledError", "/endless": "GeneratorExit"}


async def test_a_grant_for_a_stream_that_is_over_is_nothing_and_a_senseless_one_closes_the_link() -> None:
    end = LinkEnd(Core(front_door=front_door))
    await end.tell((GRANT, 5, 100))
    assert not end.aborted
    for size in (0, -1, "1", 1 << 60):
        end = LinkEnd(Core(front_door=front_door))
        await end.tell((GRANT, 5, size))
        assert end.aborted


async def test_a_draining_worker_ends_what_stands_still_and_events_at_once() -> None:
    end = LinkEnd(Core(front_door=front_door))
    loop = asyncio.get_running_loop()
    await end.door(1, "/waits")
    await end.door(2, "/waits?events")
    began = loop.time()
    for stream in list(end.connection.streams.values()):
        stream.end_if_idle(began, began)
    await steps()
    assert end.of(2)[-1] == [DATA, 2, b"", BROKEN]
    assert 1 in end.connection.streams
    await asyncio.sleep(1.5)
    end.connection.streams[1].end_if_idle(loop.time(), began)
    await steps()
    assert end.of(1)[-1] == [DATA, 1, b"", BROKEN]


async def test_a_stub_passes_a_stream_on_and_a_dropped_one_ends() -> None:
    kept: list[Any] = []

    async def fetch(request: Request, env: Any) -> Response:
        response: Response = await env.FEED.id_from_name("a").fetch(request)
        if request.path == "/waits":
            kept.append(response)
            return Response.text("dropped")
        return response

    end = LinkEnd(Core(Feed, front_door=fetch))
    await end.door(1)
    assert end.of(1)[0] == [HEAD, 1, 201, b"X-A: b\r\n"]
    assert [frame[2] for frame in end.of(1)[1:]] == [b"a", b"b", b""]
    await end.door(2, "/waits")
    assert end.kinds(2) == [REPLY]
    assert fate == {"/": "ended"}, "an iterator that nobody asks is not begun"


async def test_what_is_no_async_iterator_or_no_bytes_is_refused_with_words() -> None:
    with pytest.raises(TypeError, match="async iterator, not list"):
        StreamingResponse([b"a"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="length is a number"):
        StreamingResponse(body("/"), length=-1)
    with pytest.raises(TypeError, match="StreamingResponse"):
        Response(body("/"))  # type: ignore[arg-type]
