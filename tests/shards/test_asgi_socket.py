"""A WebSocket of an ASGI application: the messages of the specification, in order, and what comes of others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from actord.limits import LINK_CALLS, SOCKET_SEND_BYTES
from actord.shards import wire
from actord.shards.asgi_socket import RESPONSE_BYTES
from actord.shards.mounts import MountedDoors

from tests.support.harness import Core
from tests.support.socket_front import HEADERS, Front

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]
Handler = Callable[[Any, Receive, Send], Awaitable[None]]

ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}
RESPONSE = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-a", b"1")]}
BODY = {"type": "websocket.http.response.body", "body": b"who "}
CONNECT = {"type": "websocket.connect"}
GONE = {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}


def text(data: str) -> dict[str, str]:
    return {"type": "websocket.send", "text": data}


class Door(Front):
    """A front with sockets of one application, which does this with them."""

    def __init__(self, handler: Handler, **settings: Any) -> None:
        async def app(scope: Any, receive: Receive, send: Send) -> None:
            assert scope["type"] == "websocket", "no lifespan here"
            await handler(scope, receive, send)

        self.core = Core(app=app, **settings)
        super().__init__(self.core)

    async def connect(self, sid: int = 1, url: str = "/ws", headers: Any = HEADERS) -> int:
        """Its event's number, once the application has started."""
        assert self.core.app is not None
        await self.core.app.startup(5)
        deadline = int((asyncio.get_running_loop().time() + 60) * 1000)
        return self.event(wire.WS_DOOR, sid, "u", ["GET", url, headers, "10.0.0.9"], deadline)


async def echo(scope: Any, receive: Receive, send: Send) -> None:
    assert await receive() == CONNECT
    await send(ACCEPT)
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")})


async def test_a_socket_from_its_opening_to_its_end() -> None:
    door = Door(echo)
    opening = await door.connect()
    assert await door.frames() == [["accept", 1, None, b""], ["done", 1, opening]]
    one, two = door.message(1, "hello"), door.message(1, b"\x00\xff")
    frames = await door.frames()
    assert [frame for frame in frames if frame[0] == "send"] == [["send", 1, "hello"], ["send", 1, b"\x00\xff"]]
    assert [frame for frame in frames if frame[0] == "done"] == [["done", 1, one], ["done", 1, two]]
    closed = door.closed(1, 4001, "bye")
    assert await door.frames() == [["done", 1, closed]]
    assert not door.connection.sockets.parties  # type: ignore[union-attr]
    assert door.core.app.open == 0  # type: ignore[union-attr]
    await door.connect()  # the number is free again
    assert (await door.said())[0][0] == "accept"


async def test_the_scope_says_what_was_asked() -> None:
    seen: dict[str, Any] = {}

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        seen.update(scope)
        await send(CLOSE)

    door = Door(handler)
    await door.connect(url="/caf%C3%A9?q=%20+1")
    await door.frames()
    assert (seen["type"], seen["scheme"], seen["http_version"]) == ("websocket", "ws", "1.1")
    assert seen["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert (seen["path"], seen["raw_path"], seen["query_string"]) == ("/café", b"/caf%C3%A9", b"q=%20+1")
    assert seen["subprotocols"] == ["chat.v1", "chat.v2"]
    assert seen["headers"][0] == (b"upgrade", b"websocket")
    assert (seen["client"], seen["server"], seen["root_path"]) == (("10.0.0.9", 0), None, "")
    assert seen["extensions"] == {"websocket.http.response": {}}
    assert "method" not in seen
    assert "state" not in seen


async def test_accept_picks_a_subprotocol_and_adds_headers_that_are_not_the_server_s() -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        with pytest.raises(ValueError, match=r"offers no subprotocol 'chat\.v3'"):
            await send(ACCEPT | {"subprotocol": "chat.v3"})
        with pytest.raises(ValueError, match="control character"):
            await send(ACCEPT | {"headers": [(b"x-a", b"1\r\nx-b: 2")]})
        headers = [(b"x-a", b"1"), (b"Set-Cookie", b"a=1"), (b"connection", b"close"), (b"sec-websocket-accept", b"x")]
        await send(ACCEPT | {"subprotocol": "chat.v2", "headers": headers})
        await receive()
        await receive()

    door = Door(handler)
    await door.connect()
    assert await door.said() == [("accept", 1, "chat.v2", b"x-a: 1\r\nSet-Cookie: a=1\r\n")]


async def test_a_close_before_accept_is_a_403_and_the_last_word() -> None:
    seen = []

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(CLOSE)
        with pytest.raises(RuntimeError, match="comes after the end"):
            await send(ACCEPT)
        seen.append(await receive())

    door = Door(handler)
    opening = await door.connect()
    assert await door.frames() == [["refuse", 1, 403, b"", b""], ["done", 1, opening]]
    assert seen == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]
    await door.connect()
    await door.frames()
    assert len(seen) == 2


async def test_a_response_stands_in_the_place_of_a_socket() -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await send(RESPONSE)
        with pytest.raises(RuntimeError, match=r"'websocket\.http\.response\.body' was expected"):
            await send(ACCEPT)
        await send(BODY | {"more_body": True})
        await send(BODY)

    door = Door(handler)
    await door.connect()
    assert await door.said() == [("refuse", 1, 401, b"who who ", b"x-a: 1\r\n")]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [RESPONSE],
        [RESPONSE | {"status": 101}],
        [RESPONSE | {"headers": [(b"content-length", b"9")]}, BODY],
        [RESPONSE, BODY | {"body": bytes(RESPONSE_BYTES + 1)}],
        [text("too early")],
        [{"type": "websocket.http.response.body"}],
        [{"type": "http.response.start", "status": 200}],
    ],
)
async def test_an_application_that_fails_before_its_answer_is_answered_with_a_500(messages: list[Any]) -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    door = Door(handler)
    opening = await door.connect()
    refuse, done = await door.frames()
    assert refuse[:3] == ["refuse", 1, 500]
    assert json.loads(refuse[3])["type"] == "urn:actord:error:ActorMethodError"
    assert done == ["done", 1, opening]


@pytest.mark.parametrize(
    "message",
    [
        ACCEPT,
        RESPONSE,
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": "a", "bytes": b"a"},
        {"type": "websocket.send", "text": b"a"},
        {"type": "websocket.send", "bytes": "a"},
        {"type": "websocket.send", "text": "\ud800"},
        {"type": "websocket.send", "bytes": bytes(SOCKET_SEND_BYTES + 1)},
        CLOSE | {"code": 1006},
        CLOSE | {"code": 2999},
        CLOSE | {"reason": "x" * 124},
    ],
)
async def test_a_message_that_makes_no_sense_raises_and_nothing_of_it_is_sent(message: Any) -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        with pytest.raises((RuntimeError, ValueError, TypeError)):
            await send(message)
        await send(text("still open"))
        await send(message)

    door = Door(handler)
    await door.connect()
    assert (await door.said())[1:] == ["still open", ("close", 1, 1011, "the application failed")]


async def test_a_close_has_a_code_and_a_reason_and_nothing_after_it() -> None:
    seen = []

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send(CLOSE | {"code": 4003, "reason": "enough"})
        for message in (text("late"), CLOSE):
            with pytest.raises(RuntimeError, match="comes after the end"):
                await send(message)
        seen.append(await receive())

    door = Door(handler)
    await door.connect()
    assert (await door.said())[1:] == [("close", 1, 4003, "enough")]
    late = door.message(1, "on its way")
    assert await door.frames() == [["done", 1, late]]
    door.closed(1, 4003, "enough")
    await door.frames()
    assert seen == [{"type": "websocket.disconnect", "code": 4003, "reason": "enough"}]


async def test_an_application_that_returns_closes_with_1000() -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await send(ACCEPT)

    door = Door(handler)
    await door.connect()
    assert (await door.said())[1:] == [("close", 1, 1000, "")]
    late = door.message(1, "on its way")
    assert await door.frames() == [["done", 1, late]]


async def test_after_the_client_has_gone_send_raises_and_what_had_come_is_received_first() -> None:
    go_on = asyncio.Event()
    seen: list[Any] = []

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await go_on.wait()
        for message in (text("late"), CLOSE):
            with pytest.raises(OSError, match="gone"):
                await send(message)
        seen.extend([await receive(), await receive(), await receive(), await receive()])

    door = Door(handler)
    await door.connect()
    assert await door.said() == [("accept", 1, None, b"")]
    one, two = door.message(1, "one"), door.message(1, b"two")
    closed = door.closed(1, 4001, "bye")
    assert await door.frames() == [["done", 1, one], ["done", 1, two]]
    go_on.set()
    assert await door.frames() == [["done", 1, closed]], "a front that drains waits for the application's last steps"
    assert seen == [
        {"type": "websocket.receive", "text": "one"},
        {"type": "websocket.receive", "bytes": b"two"},
        GONE,
        GONE,
    ]


async def test_a_message_is_acknowledged_when_it_is_received() -> None:
    go_on = asyncio.Event()

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        await go_on.wait()
        await receive()

    door = Door(handler)
    await door.connect()
    await door.frames()
    one, two, three = (door.message(1, str(number)) for number in range(3))
    assert await door.frames() == [["done", 1, one]]
    go_on.set()
    assert sorted(await door.frames()) == [["close", 1, 1000, ""], ["done", 1, two], ["done", 1, three]]


async def test_a_client_that_leaves_before_the_answer_is_a_disconnect() -> None:
    go_on = asyncio.Event()
    seen = []

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        seen.append(await receive())
        with pytest.raises(OSError, match="gone"):
            await send(ACCEPT)
        await go_on.wait()

    door = Door(handler)
    opening = await door.connect()
    closed = door.closed(1, 1006)
    assert await door.frames() == [["done", 1, opening]]
    assert seen == [CONNECT, {"type": "websocket.disconnect", "code": 1006, "reason": ""}]
    go_on.set()
    assert await door.frames() == [["done", 1, closed]]


async def test_the_time_limit_is_for_the_answer_to_the_handshake() -> None:
    async def slow(scope: Any, receive: Receive, send: Send) -> None:
        await asyncio.sleep(100)

    door = Door(slow, call_timeout=5)
    await door.connect()
    await asyncio.sleep(6)
    ((_, _, status, *_),) = await door.said()
    assert status == 504

    async def long(scope: Any, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        await asyncio.sleep(100)
        await send(text("still there"))

    door = Door(long, call_timeout=5)
    await door.connect()
    await asyncio.sleep(101)
    assert (await door.said())[1] == "still there"


async def test_a_front_that_dies_is_a_disconnect_with_1006() -> None:
    seen = []

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        seen.append(await receive())
        with pytest.raises(OSError, match="gone"):
            await send(text("late"))

    door = Door(handler)
    await door.connect()
    await door.frames()
    door.connection.connection_lost(None)
    await door.frames()
    assert seen == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


async def test_a_worker_that_leaves_closes_its_sockets_with_1012_and_tells_the_application() -> None:
    seen = []
    go_on = asyncio.Event()

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/slow":
            await go_on.wait()
        await send(ACCEPT)
        seen.append(await receive())

    door = Door(handler)
    await door.connect(1)
    slow = await door.connect(2, "/slow")
    await door.frames()
    assert door.core.app is not None
    door.core.app.drain()
    frames = await door.frames()
    assert ["close", 1, 1012, "the worker is being replaced"] in frames
    assert [frame[:3] for frame in frames if frame[1] == 2] == [["refuse", 2, 503], ["done", 2, slow]]
    assert seen == [{"type": "websocket.disconnect", "code": 1012, "reason": "the worker is being replaced"}]
    late = door.message(1, "on its way")
    closed = door.closed(1, 1012)
    assert await door.frames() == [["done", 1, late], ["done", 1, closed]]
    opening = await door.connect(3)
    assert await door.frames() == [], "its front asks the successor"
    assert memoryview(door.begun)[LINK_CALLS:].cast("Q")[3] < opening
    go_on.set()
    await door.frames()
    assert door.core.app.open == 0


async def test_one_that_sends_without_end_lets_others_run_and_waits_for_its_front() -> None:
    sent = 0

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(ACCEPT)
        while True:
            await send(text("x"))
            sent += 1

    door = Door(handler)
    await door.connect()
    await door.frames()
    assert sent > 0, "and this test goes on"
    door.connection.pause_writing()
    await door.frames()
    before = sent
    await door.frames()
    assert sent == before
    door.connection.resume_writing()
    await door.frames()
    assert sent > before
    door.closed(1, 1000)
    await door.frames()
    assert door.core.app is not None
    assert door.core.app.open == 0


async def test_mounts_pass_sockets_on_to_the_program_that_has_the_path() -> None:
    seen = []

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        seen.append((scope["root_path"], scope["path"], scope["raw_path"]))
        await send(CLOSE)

    door = Door(handler)
    assert door.core.app is not None
    door.core.dispatcher.front_door = MountedDoors({"/shop": door.core.app})
    await door.connect(1, "/shop/ws?x")
    await door.connect(2, "/shopping")
    assert sorted(frame[:3] for frame in await door.said()) == [("refuse", 1, 403), ("refuse", 2, 404)]
    assert seen == [("", "/ws", b"/ws")]  # the mount comes back as the root path that the application was given


async def test_an_upgrade_without_a_front_door_is_a_404() -> None:
    front = Front(Core())
    front.event(wire.WS_DOOR, 1, "u", ["GET", "/", HEADERS, None], 1 << 60)
    ((_, _, status, *_),) = await front.said()
    assert status == 404
