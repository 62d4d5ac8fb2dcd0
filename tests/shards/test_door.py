"""The front door: errors, time, cancellation, and the truth about what the calls that it made have applied."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from actord import ActorError, CodecError, Response, StatefulActor
from actord.errors import ActorArgumentError, ActordError, ActorMethodError, BadRequest

from tests.support.harness import TIMING, Core, steps
from tests.support.memory_store import broken


class Account(StatefulActor):
    async def add(self, n: int) -> int:
        total: int = await self.ctx.storage.get("n", 0) + n
        await self.ctx.storage.put("n", total)
        return total

    async def total(self) -> int:
        return await self.ctx.storage.get("n", 0)  # type: ignore[no-any-return]

    async def refuse(self) -> None:
        raise ActorError("poor", code="poor", status=409, data={"missing": 1})

    async def fail(self) -> None:
        raise KeyError("x")

    async def slow(self) -> None:
        await asyncio.sleep(10)
        await self.add(1)

    async def echo(self, value: Any) -> Any:
        return value

    async def calls_another(self) -> Any:
        return await self.env.ACCOUNT.id_from_name("b").total()

    async def fetch(self, request: Any) -> Response:
        return Response.json({"path": request.path, "body": await request.text()}, 201, {"X-Who": self.ctx.id})


def core_with(handler: Any, **settings: Any) -> Core:
    async def fetch(request: Any, env: Any) -> Any:
        return await handler(env.ACCOUNT.id_from_name("a"), env)

    return Core(Account, front_door=fetch, **settings)


async def test_the_front_door_calls_actors_and_its_reply_comes_after_their_commits() -> None:
    async def handler(account: Any, env: Any) -> Response:
        return Response.json([await account.add(5), await account.add(n=2), await account.total()])

    core = core_with(handler)
    core.hold_fsyncs()
    call = core.door()
    for _ in range(2):
        await steps()
        assert not call.done
        await core.fsync()
    assert (await call).value == [5, 7, 7]
    assert core.dispatcher.front_door.open == 0  # type: ignore[union-attr]


async def test_values_pass_through_the_codec_so_that_nobody_holds_the_others_objects() -> None:
    given = {"list": [1, (2, {3})]}

    async def handler(account: Any, env: Any) -> Response:
        back = await account.echo(given)
        assert back == given
        assert type(back["list"][1]) is tuple
        back["list"].clear()
        return Response.text("ok")

    assert (await core_with(handler).door()).body == b"ok"
    assert given == {"list": [1, (2, {3})]}


async def test_fetch_of_a_stub_reaches_the_actors_fetch() -> None:
    from actord import Request

    async def handler(account: Any, env: Any) -> Response:
        response: Response = await account.fetch(Request("PUT", "/x/y?z", body="hello"))
        assert response.headers["x-who"] == "a"
        return response

    answer = await core_with(handler).door()
    assert (answer.status, answer.value) == (201, {"path": "/x/y", "body": "hello"})


async def test_errors_of_a_call_are_raised_as_their_classes() -> None:
    async def handler(account: Any, env: Any) -> Response:
        with pytest.raises(ActorError) as caught:
            await account.refuse()
        assert (caught.value.code, caught.value.http_status, caught.value.data) == ("poor", 409, {"missing": 1})
        with pytest.raises(ActorArgumentError, match="'n'"):
            await account.add("x")
        with pytest.raises(ActorMethodError):
            await account.fail()
        with pytest.raises(CodecError, match=r"\$"):
            await account.echo(object())
        with pytest.raises(AttributeError, match="no method 'missing'"):
            account.missing  # noqa: B018
        with pytest.raises(AttributeError, match="private"):
            account._hidden  # noqa: B018
        with pytest.raises(AttributeError, match="It has: ACCOUNT"):
            env.NOBODY  # noqa: B018
        for name in ("", "x" * 513, "a\0b", "\ud800"):
            with pytest.raises(BadRequest):
                env.ACCOUNT.id_from_name(name)
        return Response.text("ok")

    assert (await core_with(handler).door()).body == b"ok"


async def no_calls(account: Any) -> None:
    pass


async def one_write(account: Any) -> None:
    await account.add(1)


async def two_writes(account: Any) -> None:
    await account.add(1)
    await account.add(1)


async def one_refused(account: Any) -> None:
    with contextlib.suppress(ActorError):
        await account.refuse()


async def one_write_and_one_refused(account: Any) -> None:
    await account.add(1)
    await one_refused(account)


async def one_bad_argument(account: Any) -> None:
    with contextlib.suppress(ActordError):
        await account.add("x")


async def one_under_way(account: Any) -> None:
    asyncio.ensure_future(account.slow())  # noqa: RUF006
    await asyncio.sleep(1)


@pytest.mark.parametrize(
    ("calls", "applied"),
    [
        (no_calls, "no"),
        (one_write, "unknown"),
        (two_writes, "unknown"),
        (one_refused, "no"),
        (one_bad_argument, "no"),
        (one_write_and_one_refused, "unknown"),
        (one_under_way, "unknown"),
    ],
)
@pytest.mark.parametrize("end", [ActorError, BadRequest, ValueError, KeyboardInterrupt, None])
async def test_applied_is_no_only_when_no_call_can_have_applied_anything(
    calls: Any, applied: str, end: type[BaseException] | None
) -> None:
    async def handler(account: Any, env: Any) -> Any:
        await calls(account)
        if end is not None:
            raise end("no")
        return "no response"

    core = core_with(handler)
    answer = await core.door()
    assert answer.status in (400, 500)
    assert answer.applied == applied
    assert answer.head.startswith(b"Content-Type: application/problem+json\r\n")
    assert (await core.call("a", "total")).status == 200


async def test_an_actors_refusal_that_the_door_lets_through_is_answered_whole() -> None:
    async def handler(account: Any, env: Any) -> Any:
        await account.refuse()

    answer = await core_with(handler).door()
    assert (answer.status, answer.applied, answer.value["code"], answer.value["data"]) == (
        409,
        "no",
        "poor",
        {"missing": 1},
    )


async def test_an_unknown_outcome_of_a_call_stays_unknown() -> None:
    async def handler(account: Any, env: Any) -> Any:
        await account.add(1)

    core = core_with(handler)
    core.store.fail_write.append(broken())
    answer = await core.door()
    assert (answer.status, answer.name, answer.applied) == (500, "ActorOutputGateError", "unknown")


@pytest.mark.parametrize("data", [object(), "\ud800", float("nan")])
async def test_an_error_that_can_not_be_encoded_is_answered_all_the_same(data: Any) -> None:
    async def handler(account: Any, env: Any) -> Any:
        raise ActorError(data if isinstance(data, str) else "x", data=data)

    answer = await core_with(handler).door()
    assert (answer.status, answer.applied) == (400, "no")


async def test_the_front_door_has_a_time_limit_and_the_callers_deadline() -> None:
    async def handler(account: Any, env: Any) -> Any:
        await asyncio.sleep(100)

    loop = asyncio.get_running_loop()
    for within, taken in ((60, 30), (7, 7)):
        start = loop.time()
        answer = await core_with(handler).door(within=within)
        assert (answer.status, answer.name, answer.applied) == (504, "ActorFetchTimeoutError", "no")
        assert loop.time() - start == pytest.approx(taken, abs=0.01)


async def test_a_time_out_of_the_handlers_own_is_not_the_doors() -> None:
    async def handler(account: Any, env: Any) -> Any:
        async with asyncio.timeout(1):
            await asyncio.sleep(100)

    answer = await core_with(handler).door()
    assert (answer.status, answer.value["error_type"]) == (500, "TimeoutError")


async def test_calls_of_the_door_end_at_the_doors_deadline() -> None:
    async def handler(account: Any, env: Any) -> Any:
        await account.slow()

    answer = await core_with(handler).door(within=5)
    assert answer.status == 504


@pytest.mark.parametrize("after", [0, 1, 5])
async def test_a_cancelled_door_is_answered_exactly_once(after: int) -> None:
    """Also when the CANCEL came with the request, before its task took a step."""

    async def handler(account: Any, env: Any) -> Any:
        await asyncio.sleep(100)

    core = core_with(handler)
    call = core.door()
    for _ in range(after):
        await asyncio.sleep(0)
    core.caller.doors[call.id].cancel()
    await steps()
    assert call.done
    assert core.caller.doors == {}
    assert core.dispatcher.front_door.open == 0  # type: ignore[union-attr]


async def test_a_cancelled_door_takes_the_call_that_it_waits_for_out_of_the_queue() -> None:
    async def handler(account: Any, env: Any) -> Any:
        await account.add(1)

    core = core_with(handler)
    running = core.call("a", "slow")
    await steps()
    door = core.door()
    await steps()
    core.caller.doors[door.id].cancel()
    await running
    assert (await core.call("a", "total")).value == 1  # what slow adds


async def test_a_handler_that_raises_cancelled_error_by_itself_has_failed() -> None:
    async def handler(account: Any, env: Any) -> Any:
        raise asyncio.CancelledError

    answer = await core_with(handler).door()
    assert (answer.status, answer.value["error_type"]) == (500, "CancelledError")


@pytest.mark.parametrize("attribute", [{"body": object()}, {"status": 99}, {"headers": {"X": "\n"}}])
async def test_a_response_that_can_not_be_sent_is_a_500(attribute: dict[str, Any]) -> None:
    async def handler(account: Any, env: Any) -> Any:
        response = Response("x")
        for name, value in attribute.items():
            setattr(response, name, value)
        return response

    answer = await core_with(handler).door()
    assert (answer.status, answer.name, answer.applied) == (500, "ActorMethodError", "no")


async def test_server_timing_of_the_door() -> None:
    async def handler(account: Any, env: Any) -> Response:
        await asyncio.sleep(2)
        return Response.text("x")

    answer = await core_with(handler).door(flags=TIMING)
    assert b"Server-Timing: queue;dur=0.000, run;dur=2000.000\r\n" in answer.head


async def test_a_program_without_a_front_door_refuses() -> None:
    answer = await Core(Account).door()
    assert (answer.status, answer.applied) == (404, "no")
