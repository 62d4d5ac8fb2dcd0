"""An ASGI application as the front door: the messages of the specification, in order, and what comes of others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from actord import ActorError, StatefulActor
from actord.shards.lifespan import Lifespan
from actord.shards.registry import ProgramError
from actord.shards.wire import BROKEN, CANCEL, DATA, DOOR, END, GRANT, HEAD, MORE, REPLY

from tests.support.harness import Answer, Core, steps
from tests.support.link_end import LinkEnd

START = {"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"1"), (b"X-A", b"2")]}
BODY = {"type": "http.response.body", "body": b"hello"}
MORE_BODY = {"type": "http.response.body", "body": b"hello", "more_body": True}

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]


class Account(StatefulActor):
    async def add(self, n: int) -> int:
        total: int = await self.ctx.storage.get("n", 0) + n
        await self.ctx.storage.put("n", total)
        return total


def link_to(handler: Callable[[Any, Receive, Send], Awaitable[None]], *classes: Any, **settings: Any) -> LinkEnd:
    """A worker whose application does this with requests, and knows no lifespan."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise AssertionError("no lifespan here")
        await handler(scope, receive, send)

    return LinkEnd(Core(*classes, app=app, **settings))


async def ask(end: LinkEnd, url: str = "/", body: bytes = b"", method: str = "GET", headers: Any = ()) -> None:
    """A request with the id 1, once the application has started."""
    assert end.core.app is not None
    await end.core.app.startup(5)
    request = [method, url, [list(pair) for pair in headers], "10.0.0.9"]
    await end.tell((DOOR, 1, request, 0, end.deadline(), body))


def reply(end: LinkEnd) -> Answer:
    assert end.kinds(1) == [REPLY], end.frames
    return Answer(*end.of(1)[0][2:])


async def test_a_response_of_one_body_message_leaves_whole() -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(BODY)

    end = link_to(handler)
    await ask(end)
    answer = reply(end)
    assert (answer.status, answer.body, answer.head) == (201, b"hello", b"x-a: 1\r\nX-A: 2\r\n")
    assert not end.connection.doors


async def test_a_response_of_several_body_messages_is_a_stream() -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(MORE_BODY)
        await send({"type": "http.response.body", "more_body": True})
        await send({"type": "http.response.body", "body": memoryview(b"end")})

    end = link_to(handler)
    await ask(end)
    assert end.kinds(1) == [HEAD, DATA, DATA, DATA]
    assert [frame[2:] for frame in end.of(1)[1:]] == [[b"hello", MORE], [b"end", MORE], [b"", END]]
    assert not end.connection.doors
    assert not end.connection.streams


async def test_nothing_is_sent_before_the_first_body_message() -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await asyncio.sleep(5)
        await send(BODY)

    end = link_to(handler)
    await ask(end)
    assert end.frames == []
    await asyncio.sleep(6)
    assert reply(end).body == b"hello"


async def test_the_scope_says_what_was_asked() -> None:
    seen: dict[str, Any] = {}

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        seen.update(scope)
        seen["event"] = await receive()
        await send(START)
        await send(BODY)

    end = link_to(handler)
    headers = [("host", "a"), ("x-t", "gr\xfc\xdf"), ("x-t", "2")]
    await ask(end, "/caf%C3%A9%2Fx?q=%20+1", b"body", "POST", headers)
    assert seen["type"] == "http"
    assert seen["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert (seen["method"], seen["scheme"], seen["http_version"]) == ("POST", "http", "1.1")
    assert (seen["path"], seen["raw_path"], seen["query_string"]) == ("/café/x", b"/caf%C3%A9%2Fx", b"q=%20+1")
    assert seen["headers"] == [(b"host", b"a"), (b"x-t", b"gr\xfc\xdf"), (b"x-t", b"2")]
    assert (seen["client"], seen["server"], seen["root_path"]) == (("10.0.0.9", 0), None, "")
    assert "state" not in seen
    assert seen["event"] == {"type": "http.request", "body": b"body", "more_body": False}


async def test_receive_waits_and_tells_of_the_end_of_the_response() -> None:
    seen = []

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        waiting = asyncio.create_task(receive())  # type: ignore[arg-type]
        await asyncio.sleep(1)
        seen.append(waiting.done())
        await send(START)
        await send(BODY)
        seen.append(await waiting)
        seen.append(await receive())
        with pytest.raises(RuntimeError, match="response that is complete"):
            await send(BODY)
        seen.append("end")

    end = link_to(handler)
    await ask(end)
    await asyncio.sleep(2)
    gone = {"type": "http.disconnect"}
    assert seen == [False, gone, gone, "end"]
    assert reply(end).status == 201


async def test_a_client_that_goes_is_told_of_and_the_application_goes_on() -> None:
    seen: list[Any] = []

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/stream":
            await send(START)
            await send(MORE_BODY)
        seen.append(await receive())
        for message in (BODY,) if scope["path"] == "/stream" else (START, BODY):
            with pytest.raises(OSError, match="gone"):
                await send(message)
        await asyncio.sleep(1)
        seen.append("after")

    for path, last in (("/stream", [DATA, 1, b"", BROKEN]), ("/", [REPLY, 1, 503, b"", b""])):
        seen.clear()
        end = link_to(handler)
        await ask(end, path)
        await end.tell((CANCEL, 1))
        assert end.of(1)[-1] == last, "the id is free at once"
        assert not end.connection.doors
        await asyncio.sleep(2)
        assert seen == [{"type": "http.disconnect"}, "after"]
        assert end.core.app is not None
        assert end.core.app.open == 0


async def test_an_application_that_waits_for_a_slow_client_is_woken_when_it_goes() -> None:
    seen: list[Any] = []

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
        except OSError as error:
            seen.append(type(error).__name__)

    end = link_to(handler)
    await ask(end)
    count = len(end.of(1))
    await end.tell((GRANT, 1, 200_000))
    assert len(end.of(1)) > count
    assert not seen
    await end.tell((CANCEL, 1))
    assert seen == ["ClientGone"]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([BODY], "begins with 'http.response.start'"),
        ([START, START], "'http.response.body' was expected"),
        ([START, {"type": "http.response.trailers", "headers": []}], "was expected"),
        ([{"type": "http.response.start", "status": 99}], "from 200 to 599"),
        ([{"type": "http.response.start", "status": "200"}], "from 200 to 599"),
        ([{"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\r\nc: d")]}], "control character"),
        ([{"type": "http.response.start", "status": 200, "headers": [(b"a b", b"c")]}], "not a header name"),
        ([START, {"type": "http.response.body", "body": "text"}], "is bytes, not str"),
        ([START | {"headers": [(b"content-length", b"3")]}, BODY], "has 5 bytes"),
        ([START | {"headers": [(b"content-length", b"x")]}], "invalid literal"),
        ([], "without a response"),
        ([START], "in the middle of its response"),
    ],
)
async def test_a_message_out_of_order_or_shape_raises_and_is_answered_500(messages: Any, words: str) -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    end = link_to(handler)
    await ask(end)
    answer = reply(end)
    assert (answer.status, answer.name, answer.applied) == (500, "ActorMethodError", "no")
    assert words in answer.detail


@pytest.mark.parametrize("length", [4, 6, 11])
async def test_a_stream_of_another_length_than_announced_breaks_off(length: int) -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await send(START | {"headers": [(b"content-length", b"%d" % length)]})
        await send(MORE_BODY)
        await send(BODY)

    end = link_to(handler)
    await ask(end)
    assert end.of(1)[0] == [HEAD, 1, 201, b"content-length: %d\r\n" % length]
    assert end.of(1)[-1] == [DATA, 1, b"", BROKEN]
    assert sum(len(frame[2]) for frame in end.of(1)[1:]) <= length


async def test_an_application_that_ends_in_the_middle_of_a_stream_breaks_it_off() -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(MORE_BODY)
        if scope["path"] == "/raise":
            raise KeyError("x")

    for path in ("/", "/raise"):
        end = link_to(handler)
        await ask(end, path)
        assert end.of(1)[-1] == [DATA, 1, b"", BROKEN]


async def test_errors_are_problems_and_say_what_may_have_been_applied() -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/call":
            await end.core.env.ACCOUNT.id_from_name("a").add(1)
        if scope["path"] == "/refuse":
            raise ActorError("poor", code="poor", status=409, data=[1])
        raise KeyError("x")

    for path, status, name, applied in [
        ("/", 500, "ActorMethodError", "no"),
        ("/call", 500, "ActorMethodError", "unknown"),
        ("/refuse", 409, "ActorError", "no"),
    ]:
        end = link_to(handler, Account)
        await ask(end, path)
        answer = reply(end)
        assert (answer.status, answer.name, answer.applied) == (status, name, applied)


async def test_the_time_limit_is_for_what_comes_before_the_response() -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await asyncio.sleep(3)
        await send(START)
        await send(MORE_BODY)
        await asyncio.sleep(60)
        await send(BODY)

    end = link_to(handler, call_timeout=2)
    await ask(end, "/late")
    await asyncio.sleep(4)
    assert (reply(end).status, reply(end).name) == (504, "ActorFetchTimeoutError")
    end = link_to(handler, call_timeout=2)
    await ask(end)
    await asyncio.sleep(70)
    assert end.of(1)[-1] == [DATA, 1, b"", END]


async def test_an_error_after_the_response_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(BODY)
        raise KeyError("afterwards")

    end = link_to(handler)
    await ask(end)
    assert reply(end).body == b"hello"
    assert "failed after its response" in caplog.text


async def test_a_step_that_blocks_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actord.shards.watched._told", set())
    clock = iter(range(100))
    monkeypatch.setattr("actord.shards.watched.monotonic", lambda: next(clock))

    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(BODY)

    await ask(link_to(handler))
    assert caplog.text.count("the front door held its worker") == 1


# -- lifespan


def spanned(events: list[Any], *, fail: str = "") -> Any:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            events.append(scope["state"])
            scope["state"]["mine"] = True
            await send(START)
            await send(BODY)
            return
        assert await receive() == {"type": "lifespan.startup"}
        if fail == "raise":
            raise OSError("no database")
        if fail == "tell":
            await send({"type": "lifespan.startup.failed", "message": "Traceback ...\nOSError: no database\n"})
            return
        if fail == "late":
            await asyncio.sleep(1000)
        scope["state"]["pool"] = 1
        events.append("up")
        await send({"type": "lifespan.startup.complete"})
        assert await receive() == {"type": "lifespan.shutdown"}
        events.append("down")
        await send({"type": "lifespan.shutdown.complete"})

    return app


async def test_requests_wait_for_the_startup_and_have_a_copy_of_its_state() -> None:
    events: list[Any] = []
    end = LinkEnd(Core(app=spanned(events)))
    door = end.core.app
    assert door is not None
    for id_ in (1, 2):
        await end.door(id_)
    assert end.frames == []
    await door.startup(5)
    await steps()
    assert events == ["up", {"pool": 1, "mine": True}, {"pool": 1, "mine": True}]
    await end.door(3)
    assert events[3] == {"pool": 1, "mine": True}
    assert events[1] is not events[3]
    await door.shutdown(5)
    assert events[-1] == "down"


@pytest.mark.parametrize("how", ["raise", "tell", "late"])
async def test_a_startup_that_fails_is_a_refusal_with_its_reason(how: str) -> None:
    words = "did not complete its startup within 5 s" if how == "late" else "OSError: no database"
    with pytest.raises(ProgramError, match=words):
        await Lifespan(spanned([], fail=how)).startup(5)


async def test_an_application_without_lifespan_is_served() -> None:
    async def returns(scope: Any, receive: Receive, send: Send) -> None:
        return

    async def raises(scope: Any, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"

    for app in (returns, raises):
        lifespan = Lifespan(app)
        await lifespan.startup(5)
        assert lifespan.state is None
        await lifespan.shutdown(5)


async def test_a_shutdown_that_hangs_or_fails_ends_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if scope["state"].get("fail"):
            raise OSError("no")
        await asyncio.sleep(1000)

    lifespan = Lifespan(app)
    await lifespan.startup(5)
    await lifespan.shutdown(5)
    assert "did not complete its shutdown" in caplog.text
    lifespan = Lifespan(app)
    await lifespan.startup(5)
    assert lifespan.state is not None
    lifespan.state["fail"] = True
    await lifespan.shutdown(5)
    assert "the shutdown of `app` failed" in caplog.text


async def test_requests_are_counted_by_their_outcome() -> None:
    async def handler(scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/fails":
            raise RuntimeError("a fault")
        if scope["path"] == "/waits":
            await asyncio.sleep(1_000)
        await send(START | {"status": 404} if scope["path"] == "/none" else START)
        await send(MORE_BODY)
        await send(BODY)

    end = link_to(handler)
    app = end.core.app
    assert app is not None
    await app.startup(5)
    for number, path in enumerate(("/", "/none", "/fails", "/waits")):
        await end.tell((DOOR, number, ["GET", path, [], None], 0, end.deadline(), b""))
    await end.tell((CANCEL, 3))
    await steps()
    assert app.requests.outcomes == {"ok": 1, "refused": 1, "failed": 1, "gone": 0}  # it is told, and may go on
    await asyncio.sleep(60)
    assert app.requests.outcomes["gone"] == 1
    assert sum(app.requests.times.counts) == 4
