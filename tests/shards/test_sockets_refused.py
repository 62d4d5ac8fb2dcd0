"""Frames and values that make no sense, and upgrades at the front door."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from actord import ActorError, CodecError, Request, Response, StatefulActor, WebSocket
from actord.shards import wire
from actord.shards.registry import ActorType, ProgramError

from tests.shards.test_sockets import Room, opened
from tests.support.harness import Core, steps
from tests.support.socket_front import Front


@pytest.mark.parametrize(
    "frame",
    [
        (wire.WS_MESSAGE, 9, 1, "no such socket"),
        (wire.WS_MESSAGE, 1, 0, "x"),
        (wire.WS_MESSAGE, 1, 5, 7),
        (wire.WS_MESSAGE, 65_536, 5, "x"),
        (wire.WS_MESSAGE, "1", 5, "x"),
        (wire.WS_CLOSED, 1, 5, "1000", ""),
        (wire.WS_OPEN, 1, 5, "u", "Room", "a", ["GET", "/", [], None], 1 << 60),
        (wire.WS_OPEN, 2, 5, "u", "Room", "a", None, 1 << 60),
        (wire.WS_OPEN, 2, 5, b"u", "Room", "a", ["GET", "/", [], None], 1 << 60),
        (wire.WS_HELD, [[1, "u", "Room", "a", None, [], None]]),
        (wire.WS_HELD, [[2, "u", "Room"]]),
        (wire.WS_HELD, 7),
        (wire.WS_DOOR, 2),
    ],
    ids=str,
)
async def test_a_frame_that_makes_no_sense_closes_the_link(frame: Any) -> None:
    front = await opened(Core(Room), 1)
    front.feed(frame)
    assert front.aborted


# -- what may be given


class Checks(StatefulActor):
    error: Any = None

    async def web_socket(self, ws: WebSocket, request: Request) -> None:
        pass

    async def web_socket_message(self, ws: WebSocket, data: str) -> None:
        calls: dict[str, Any] = {
            "int": lambda: ws.send(7),  # type: ignore[arg-type]
            "long": lambda: ws.send("x" * (4 * 1_048_576 + 1)),
            "surrogate": lambda: ws.send("\ud800"),
            "much": lambda: [ws.send(b"x" * (4 * 1_048_576 - 1)) for _ in range(17)],
            "code": lambda: ws.close(1005),
            "low": lambda: ws.close(999),
            "reason": lambda: ws.close(1000, "x" * 124),
            "accept": lambda: ws.accept(),
            "tags": lambda: setattr(ws, "tags", "red"),
            "tag": lambda: ws.tags.add(""),
            "many": lambda: setattr(ws, "tags", map(str, range(17))),
            "attachment": lambda: setattr(ws, "attachment", object()),
            "large": lambda: setattr(ws, "attachment", b"x" * 16_385),
            "exclude": lambda: self.ctx.broadcast("x", exclude=["a"]),  # type: ignore[list-item]
        }
        with pytest.raises((ValueError, TypeError, RuntimeError, CodecError)) as caught:
            calls[data]()
        ws.send(type(caught.value).__name__)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("int", "TypeError"),
        ("long", "ValueError"),
        ("surrogate", "ValueError"),
        ("much", "ValueError"),
        ("code", "ValueError"),
        ("low", "ValueError"),
        ("reason", "ValueError"),
        ("accept", "RuntimeError"),
        ("tags", "TypeError"),
        ("tag", "ValueError"),
        ("many", "ValueError"),
        ("attachment", "CodecError"),
        ("large", "CodecError"),
        ("exclude", "TypeError"),
    ],
)
async def test_what_can_not_be_is_refused_where_it_is_written(what: str, error: str) -> None:
    front = Front(Core(Checks))
    front.open(1, "a", "Checks")
    await front.frames()
    front.message(1, what)
    assert (await front.said())[-1] == error


class Hasty(StatefulActor):
    async def web_socket(self, ws: WebSocket, request: Request) -> None:
        ws.send_now("one moment")
        raise ActorError("no", status=403)


async def test_a_client_that_was_sent_something_at_once_is_let_in_and_can_only_be_closed() -> None:
    front = Front(Core(Hasty))
    front.open(1, "a", "Hasty")
    said = [frame for frame in await front.said() if frame[0] != "accept"]
    assert said == ["one moment", ("close", 1, 1011, "the handler failed")]


def test_handlers_of_another_form_are_refused_when_the_program_is_loaded() -> None:
    class Wrong(StatefulActor):
        def web_socket(self, ws: Any, request: Any) -> None:
            pass

    class Short(StatefulActor):
        async def web_socket_message(self, ws: Any) -> None:
            pass

    for cls in (Wrong, Short):
        with pytest.raises(ProgramError, match="must be `async def web_socket"):
            ActorType(cls, "X")


# -- the front door


async def at_door(request: Request, env: Any) -> Response:
    if request.path == "/slow":
        await asyncio.sleep(1_000)
    if "x-token" not in request.headers:
        return Response.text("who are you", status=401)
    request.headers["x-user"] = "ann"
    response: Response = await env.ROOM.id_from_name("a").fetch(request)
    if request.path == "/changed-its-mind":
        return Response.text("no", status=403)
    response.headers["x-door"] = "yes"
    return response


def door(front: Front, sid: int, path: str, *headers: list[str]) -> int:
    return front.event(wire.WS_DOOR, sid, "u", ["GET", path, [["upgrade", "websocket"], *headers], None], 1 << 60)


async def test_the_front_door_refuses_over_http_or_leaves_the_socket_to_an_actor() -> None:
    front = Front(Core(Room, front_door=at_door))
    door(front, 1, "/chat")
    assert [frame[:4] for frame in await front.frames()] == [["refuse", 1, 401, b"who are you"], ["done", 1, 1]]
    door(front, 1, "/chat", ["x-token", "t"])
    forward, done = await front.frames()
    assert forward[:4] == ["forward", 1, "Room", "a"]
    assert ["x-user", "ann"] in forward[4][2]
    assert forward[5] == b"x-door: yes\r\n"
    assert done == ["done", 1, 2]
    door(front, 1, "/changed-its-mind", ["x-token", "t"])
    assert [frame[0] for frame in await front.frames()] == ["refuse", "done"]


async def test_a_client_that_leaves_the_front_door_waiting_is_done_after_its_opening() -> None:
    front = Front(Core(Room, front_door=at_door))
    door(front, 1, "/slow")
    await steps()
    front.closed(1, 1006)
    frames = await front.frames()
    assert [frame[0] for frame in frames] == ["refuse", "done", "done"]
    assert [frame[2] for frame in frames[1:]] == [1, 2]


# -- a worker that begins


def _held(sid: int) -> list[Any]:
    return [sid, f"uid{sid}", "Room", "a", None, [], None]


async def test_nothing_is_taken_before_every_front_has_told_of_its_sockets() -> None:
    core = Core(Room)
    one, two = Front(core), Front(core)
    one.connection.caller, two.connection.caller = "front-0", "front-1"
    core.dispatcher.await_fronts(["front-0", "front-1"])
    one.hold(_held(1))
    one.hold()
    one.message(1, "all x")
    assert await one.frames() == []
    two.hold(_held(2))
    assert await two.frames() == []
    two.hold()
    assert (await one.said(), await two.said()) == (["x"], ["x"])


async def test_a_front_that_is_away_is_not_waited_for_long() -> None:
    core = Core(Room)
    front = Front(core)
    front.connection.caller = "front-0"
    core.dispatcher.await_fronts(["front-0", "front-1"])
    front.hold(_held(1))
    front.hold()
    front.message(1, "all x")
    assert await front.frames() == []
    await asyncio.sleep(1.1)
    assert await front.said() == ["x"]
