"""What comes out of a turn: results, errors, and whatever hostile code throws. Nothing of it stops the worker."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import pytest
from actord import ActorError, Response, StatefulActor, codec
from actord.errors import ActordError, from_problem

from tests.support.harness import MSGPACK, TIMING, Core


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("not even my name")

    __repr__ = __str__


class Rude(ActorError):
    """Forgets to construct its base."""

    def __init__(self) -> None:
        pass


class RudeToo(ActordError):
    def __init__(self) -> None:
        pass


class OfTheUser(ActorError):
    pass


class BadRepr:
    def __repr__(self) -> str:
        raise ValueError("no")


class Liar(Exception):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("who am I?")


def strange(**attributes: Any) -> ActorError:
    error = ActorError("strange")
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


@dataclass
class Row:
    id: int
    name: str


async def awaits(seconds: float = 1) -> str:
    await asyncio.sleep(seconds)
    return "awaited"


def a_finished_coroutine() -> Any:
    coroutine = awaits()
    coroutine.close()
    return coroutine


class Odd(StatefulActor):
    make: Any

    async def give(self) -> Any:
        await self.ctx.storage.put("v", 1)
        return type(self).make()

    def give_plainly(self) -> Any:
        return type(self).make()

    async def throw(self) -> None:
        await self.ctx.storage.put("v", 1)
        raise type(self).make()

    async def throw_late(self) -> None:
        await asyncio.sleep(1)
        await self.throw()

    def throw_plainly(self) -> None:
        raise type(self).make()

    async def get(self) -> Any:
        return await self.ctx.storage.get("v")

    async def fetch(self, request: Any) -> Any:
        return type(self).make()


def core_that(make: Any) -> Core:
    Odd.make = staticmethod(make)
    return Core(Odd)


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (None, b"null"),
        ((1, 2), b"[1,2]"),
        ({"a": Row(1, "x")}, b'{"a":{"id":1,"name":"x"}}'),
        (10**30, b"1" + b"0" * 30),
        ("é", '"é"'.encode()),
    ],
)
async def test_a_result_is_the_bare_json_value(value: Any, body: bytes) -> None:
    answer = await core_that(lambda: value).call("a", "give")
    assert (answer.status, answer.body, answer.head) == (200, body, b"")


@pytest.mark.parametrize(
    "value", [object(), float("nan"), {"x": [float("inf")]}, "\ud800", Response("x"), {1: {2: object}}]
)
@pytest.mark.parametrize("flags", [0, MSGPACK])
async def test_a_result_that_can_not_be_sent_is_a_500_and_nothing_is_committed(value: Any, flags: int) -> None:
    core = core_that(lambda: value)
    answer = await core.send("a", "give", flags=flags)
    if flags and isinstance(value, float | dict) and "object" not in repr(value):
        assert answer.status == 200  # the codec carries it
        return
    assert (answer.status, answer.name, answer.applied) == (500, "ActorMethodError", "no")
    assert answer.value["error_type"] == "CodecError"
    assert await core.value("a", "get") is None
    assert core.store.commit_seq == 0


async def test_a_user_error_crosses_whole_and_is_not_logged_as_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    core = core_that(lambda: ActorError("not enough", code="insufficient", status=409, data={"balance": 3}))
    answer = await core.call("a", "throw")
    assert answer.status == 409
    problem = answer.value
    assert {problem[key] for key in ("name", "code", "detail", "applied")} == {
        "ActorError",
        "insufficient",
        "not enough",
        "no",
    }
    assert problem["data"] == {"balance": 3}
    again = from_problem(problem)
    assert isinstance(again, ActorError)
    assert (again.code, again.http_status, again.data, again.detail) == (
        "insufficient",
        409,
        {"balance": 3},
        "not enough",
    )
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert await core.value("a", "get") is None


async def test_a_users_subclass_of_actor_error_keeps_code_status_and_data() -> None:
    core = core_that(lambda: OfTheUser("no", code="c", status=418, data=[1]))
    answer = await core.call("a", "throw")
    assert (answer.status, answer.name) == (418, "OfTheUser")
    again = from_problem(answer.value)
    assert isinstance(again, ActorError)
    assert (again.code, again.http_status, again.data) == ("c", 418, [1])


async def test_data_that_only_msgpack_carries_crosses_there_and_is_described_in_json() -> None:
    core = core_that(lambda: ActorError("x", data={1, 2}))
    answer = await core.send("a", "throw", flags=MSGPACK)
    assert codec.decode(answer.body)["data"] == {1, 2}
    core = core_that(lambda: ActorError("x", data=object))
    assert "object" in (await core.call("a", "throw")).value["data"]


async def test_an_exception_of_the_method_is_named_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    core = core_that(lambda: KeyError("k"))
    answer = await core.call("a", "throw")
    assert (answer.status, answer.name, answer.applied) == (500, "ActorMethodError", "no")
    assert answer.value["error_type"] == "KeyError"
    assert "Odd.throw raised KeyError: 'k'" in answer.detail
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(faults) == 1
    assert faults[0].exc_info


HOSTILE = {
    "BaseException": BaseException,
    "SystemExit": lambda: SystemExit(1),
    "KeyboardInterrupt": KeyboardInterrupt,
    "StopIteration": lambda: StopIteration(5),
    "StopAsyncIteration": StopAsyncIteration,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "ExceptionGroup": lambda: BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError()]),
    "surrogate": lambda: ValueError("\ud800"),
    "unprintable": Unprintable,
    "liar": Liar,
    "rude": Rude,
    "rude too": RudeToo,
    "error with a surrogate": lambda: ActorError("\ud800"),
    "error with a surrogate for a code": lambda: ActorError("x", code="\ud800"),
    "error with data that nothing carries": lambda: ActorError("x", data=object()),
    "error with data without repr": lambda: ActorError("x", data=[BadRepr()]),
    "error with a strange detail": lambda: strange(detail=object()),
    "error with a strange code": lambda: strange(code=object()),
    "error with a strange retry_after": lambda: strange(retry_after="soon"),
    "error that waits for ever": lambda: strange(retry_after=float("inf")),
    "error with a strange status": lambda: strange(_status="teapot"),
    "error with a low status": lambda: strange(_status=200),
    "error that says it was applied": lambda: ActorError("x", applied="yes"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("method", ["throw", "throw_plainly", "throw_late"])
@pytest.mark.parametrize("flags", [0, MSGPACK])
async def test_whatever_a_method_raises_is_answered_and_the_worker_goes_on(name: str, method: str, flags: int) -> None:
    core = core_that(HOSTILE[name])
    calls = [core.send("a", method, flags=flags), core.call("a", "get"), core.call("b", "get")]
    answer = await calls[0]
    assert 400 <= answer.status <= 599
    assert answer.value["applied"] == "no"
    assert answer.value["status"] == answer.status
    assert [(await call).value for call in calls[1:]] == [None, None]


async def test_a_plain_method_that_raises_stop_iteration_hears_of_no_generator() -> None:
    core = core_that(lambda: StopIteration(5))
    assert "the method raised StopIteration" in (await core.call("a", "throw_plainly")).detail


@pytest.mark.parametrize("method", ["give", "give_plainly"])
async def test_whatever_a_method_returns_is_answered_and_the_worker_goes_on(method: str) -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    odd = [
        object(),
        loop,
        future,
        Odd,
        lambda: 1,
        (i for i in ()),
        BadRepr(),
        Liar(),
        [Liar()],
        type,
        ...,
        NotImplemented,
    ]
    for value in odd:
        core = core_that(lambda value=value: value)
        answer = await core.call("a", method)
        assert (answer.status, answer.name, answer.applied) == (500, "ActorMethodError", "no"), value
        assert (await core.call("a", "get")).value is None


async def test_a_plain_method_may_return_a_coroutine() -> None:
    core = core_that(awaits)
    assert await core.value("a", "give_plainly") == "awaited"
    core = core_that(a_finished_coroutine)
    assert (await core.call("a", "give_plainly")).value["error_type"] == "RuntimeError"


async def test_an_exception_as_a_result_is_no_result() -> None:
    core = core_that(lambda: StopIteration(3))
    assert (await core.call("a", "give_plainly")).status == 500


def with_attributes(**attributes: Any) -> Response:
    response = Response("x")
    for name, value in attributes.items():
        setattr(response, name, value)
    return response


async def test_fetch_answers_404_unless_it_is_overridden() -> None:
    class Silent(StatefulActor):
        pass

    answer = await Core(Silent).fetch("a", url="/any")
    assert (answer.status, answer.body) == (404, b"not found")


async def test_fetch_passes_status_headers_and_body() -> None:
    core = core_that(lambda: Response("hello", 201, {"X-One": "1", "Content-Length": "99"}))
    answer = await core.fetch("a")
    assert (answer.status, answer.body) == (201, b"hello")
    assert answer.head == b"X-One: 1\r\ncontent-type: text/plain; charset=utf-8\r\n"


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"not": "a response"},
        lambda: None,
        lambda: with_attributes(status=99),
        lambda: with_attributes(status="200"),
        lambda: with_attributes(body=5),
        lambda: with_attributes(body=object()),
        lambda: with_attributes(headers={"X": "a\r\nSet-Cookie: b"}),
        lambda: with_attributes(headers=5),
    ],
)
async def test_a_fetch_that_returns_what_is_no_response_is_a_500(make: Any) -> None:
    answer = await core_that(make).fetch("a")
    assert (answer.status, answer.name, answer.applied) == (500, "ActorMethodError", "no")


@pytest.mark.parametrize("body", ["text", bytearray(b"text"), memoryview(b"text")])
async def test_a_body_that_was_changed_to_text_or_a_buffer_is_sent_as_bytes(body: Any) -> None:
    answer = await core_that(lambda: with_attributes(body=body)).fetch("a")
    assert (answer.status, answer.body) == (200, b"text")
    assert type(answer.body) is bytes


# -- Server-Timing


def timing(head: bytes) -> dict[str, float]:
    line = next(line for line in head.decode().split("\r\n") if line.startswith("Server-Timing: "))
    parts = (part.split(";dur=") for part in line.removeprefix("Server-Timing: ").split(", "))
    return {name: float(value) for name, value in parts}


async def test_server_timing_tells_queue_run_and_commit_in_milliseconds() -> None:
    core = core_that(awaits)

    async def job(self: Any) -> None:
        await self.ctx.storage.put("v", 1)
        await asyncio.sleep(2)

    Odd.give = job  # type: ignore[method-assign]
    core = Core(Odd)
    core.hold_fsyncs()
    core.call("a", "give")
    call = core.send("a", "give", flags=TIMING)
    await asyncio.sleep(5)
    await core.fsync()
    await asyncio.sleep(3)
    await core.fsync()
    assert timing((await call).head) == {"queue": 2000.0, "run": 2000.0, "commit": 4000.0}


async def test_server_timing_is_there_on_errors_and_refusals_and_nowhere_unasked() -> None:
    core = core_that(lambda: ValueError("x"))
    for method in ("throw_plainly", "_private", "missing"):
        answer = await core.send("a", method, flags=TIMING)
        assert answer.head.startswith(b"Content-Type: application/problem+json\r\n")
        assert set(timing(answer.head)) == {"queue", "run", "commit"}
        assert max(timing(answer.head).values()) < 1.0
    assert b"Server-Timing" not in (await core.call("a", "get")).head
