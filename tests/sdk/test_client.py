"""The clients against a real server."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from actord import ActorArgumentError, ActorError, ActorMethodError, ActorMethodTimeoutError, Request, errors
from actord.client import AsyncClient, Client

from tests.sdk.codec_values import EVERY_TYPE, same
from tests.support.clients import KINDS, Driver
from tests.support.fifo import Fifo
from tests.support.fixtures import Serve, fifo, serve
from tests.support.server import Server

__all__ = ["fifo", "serve"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server("parcels.py", tmp_path_factory.mktemp("data"), settings={"server.workers": 1})
    with made:
        yield made
        faults = ("Parcel.fail raised", "Parcel.abort", "wait_for ran over")
        assert made.unexpected(*faults) == [], "clients that go away, or give up, are nothing to complain about"


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture(params=KINDS)
def driver(request: pytest.FixtureRequest, server: Server) -> Iterator[Driver]:
    made = Driver(request.param, url(server), idempotent=False)
    yield made
    made.close()


# -- values


def test_every_type_of_the_codec_goes_there_and_back(driver: Driver) -> None:
    for sent in EVERY_TYPE:
        (by_position,), by_name = driver.do(lambda c, sent=sent: c.actor("Parcel", "a").echo(sent, value=sent))
        assert same(by_position, sent)
        assert same(by_name, {"value": sent})


def test_every_type_of_the_codec_is_stored_and_read(driver: Driver) -> None:
    before = driver.do(lambda c: c.actor("Parcel", "b").swap(None))
    for value in [*EVERY_TYPE, None]:
        last = driver.do(lambda c, value=value: c.actor("Parcel", "b").swap(value))
        assert same(last, before)
        before = value


def test_arguments_are_given_by_position_and_by_name_at_once(driver: Driver) -> None:
    assert driver.do(lambda c: c.actor("Parcel", "a").echo(1, 2, three=3, name=4)) == [
        [1, 2],
        {"three": 3, "name": 4},
    ]


@pytest.mark.parametrize("name", ["..", "a/b c", "%2F", "ä€😀", "+", "?x#y", "a" * 512])
def test_any_legal_name_is_reached_and_no_other(driver: Driver, name: str) -> None:
    kind = type(driver.client).__name__
    driver.do(lambda c: c.actor("Parcel", name).swap(f"{kind}{name}"))
    assert driver.do(lambda c: c.actor("Parcel", name).swap(None)) == f"{kind}{name}"


# -- errors


def test_an_error_of_the_actor_is_raised_whole(driver: Driver) -> None:
    with pytest.raises(ActorError, match="too heavy") as raised:
        driver.do(lambda c: c.actor("Parcel", "a").refuse())
    error = raised.value
    assert (error.code, error.http_status, error.applied, error.retryable) == ("weight", 409, "no", False)
    assert same(error.data, {"limit": Decimal("1.50"), "of": (b"\x00", {1})})


@pytest.mark.parametrize(
    ("type_", "method", "arguments", "kind", "words"),
    [
        ("Parcel", "fail", (), ActorMethodError, "KeyError"),
        ("Parcel", "add", ("x",), ActorArgumentError, "'amount'"),
        ("Parcel", "add", (1, 2, 3), ActorArgumentError, "too many"),
        ("Parcel", "pack", (), errors.ActorUnknownMethodError, "It has: abort, add"),
        ("Package", "add", (), errors.ActorUnknownTypeError, "Parcel"),
    ],
)
def test_an_error_of_the_runtime_is_raised_as_its_class(
    driver: Driver, type_: str, method: str, arguments: tuple[Any, ...], kind: type, words: str
) -> None:
    with pytest.raises(kind, match=words) as raised:
        driver.do(lambda c: getattr(c.actor(type_, "a"), method)(*arguments))
    assert isinstance(raised.value, errors.ActordError)
    assert raised.value.applied == "no"


def test_an_instance_that_was_dropped_is_called_again(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actord.client_calls.BACKOFF_SECONDS", 0.001)
    with pytest.raises(errors.InstanceAborted, match="by order"):
        driver.do(lambda c: c.actor("Parcel", "a").abort())


# -- fetch


def test_a_request_reaches_the_actors_own_fetch(driver: Driver) -> None:
    request = Request("PUT", "/a%20b?c=d", headers={"X-Of": "me"}, body="text")
    response = driver.do(lambda c: c.actor("Parcel", "a").fetch(request))
    assert response.status == 200
    assert response.body == b'["PUT","/a%20b?c=d","me","text"]'
    assert driver.do(lambda c: c.actor("Parcel", "a").fetch("/teapot")).status == 418


def test_an_error_of_a_fetch_is_raised(driver: Driver) -> None:
    with pytest.raises(ActorError) as raised:
        driver.do(lambda c: c.actor("Parcel", "a").fetch("/refuse"))
    assert raised.value.code == "weight"


def test_a_request_reaches_the_front_door(driver: Driver) -> None:
    response = driver.do(lambda c: c.fetch(Request("POST", "/any/path?x", body=b"hello")))
    assert (response.status, response.body) == (203, b'["POST","/any/path?x","hello"]')
    assert driver.do(lambda c: c.fetch("/-/version")).headers["content-type"] == "application/json"


# -- deadlines, cancellation, threads


def test_a_call_ends_at_its_deadline_and_leaves_nothing(driver: Driver, fifo: Fifo, tmp_path: Path) -> None:
    go = Fifo(tmp_path / "go")
    with pytest.raises(ActorMethodTimeoutError) as raised:
        driver.do(lambda c: c.actor("Parcel", "slow", timeout=0.3).wait_for(fifo.path, go.path))
    assert raised.value.applied == "no"
    go.close()  # the thread that reads it comes to its end


def test_a_cancelled_call_that_has_not_begun_is_not_made(server: Server, fifo: Fifo, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)

    async def run() -> None:
        async with AsyncClient(url(server), idempotent=False) as client:
            busy, other = client.actor("Parcel", "busy"), client.actor("Parcel", "other")
            first = asyncio.ensure_future(busy.wait_for(fifo.path, str(go)))
            await asyncio.to_thread(fifo.wait)
            queued = asyncio.ensure_future(busy.add(5))
            await other.add()
            await other.add()  # it went over the same link, behind the queued one
            queued.cancel()
            with pytest.raises(asyncio.CancelledError):
                await queued
            await other.add()  # the front has seen the connection close ...
            await other.add()  # ... and the worker what the front made of it
            await asyncio.to_thread(go.write_bytes, b"x")
            assert await first == "waited"
            assert await busy.add(0) == 0

    asyncio.run(run())


def test_threads_share_a_client(server: Server) -> None:
    with Client(url(server), idempotent=False, connections=4) as client, ThreadPoolExecutor(8) as threads:
        stub = client.actor("Parcel", "shared")
        results = sorted(threads.map(lambda _: stub.add(1, note="x"), range(200)))
        assert results == list(range(1, 201))


def test_many_calls_of_one_loop_share_a_client(server: Server) -> None:
    async def run() -> list[int]:
        async with AsyncClient(url(server), idempotent=False, connections=8) as client:
            stub = client.actor("Parcel", "gathered")
            return await asyncio.gather(*(stub.add() for _ in range(200)))

    assert sorted(asyncio.run(run())) == list(range(1, 201))


# -- a server that dies


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_waits_for_a_server_that_comes_back(serve: Serve, kind: str) -> None:
    server = serve("parcels.py", settings={"server.workers": 1})
    driver = Driver(kind, url(server), idempotent=False, retries=100)
    assert driver.do(lambda c: c.actor("Parcel", "a").add()) == 1
    server.stop()
    back = threading.Thread(target=server.start)
    back.start()
    driver.idle()
    assert driver.do(lambda c: c.actor("Parcel", "a").add()) == 2
    back.join()
    driver.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_without_a_key_tells_that_its_worker_died(serve: Serve, fifo: Fifo, tmp_path: Path, kind: str) -> None:
    server = serve("parcels.py", settings={"server.workers": 1})
    go = Fifo(tmp_path / "go")  # nobody writes to it

    def kill() -> None:
        fifo.wait()
        server.kill_child(server.worker_of(0))

    killer = threading.Thread(target=kill)
    killer.start()
    driver = Driver(kind, url(server), idempotent=False)
    with pytest.raises(errors.ActorUnavailable) as raised:
        driver.do(lambda c: c.actor("Parcel", "a").wait_for(fifo.path, go.path))
    killer.join()
    go.close()
    assert raised.value.applied == "unknown"
    assert raised.value.retryable
    assert driver.do(lambda c: c.actor("Parcel", "a").add()) == 1
    driver.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_ones_own_makes_calls_one(server: Server, kind: str) -> None:
    driver = Driver(kind, url(server))
    first = driver.do(lambda c: c.actor("Parcel", kind, idempotency_key="order 7").add(5))
    again = driver.do(lambda c: c.actor("Parcel", kind).with_key("order 7").add(5))
    assert first == again == driver.do(lambda c: c.actor("Parcel", kind, idempotent=False).add(0)) == 5
    with pytest.raises(errors.IdempotencyKeyReused):
        driver.do(lambda c: c.actor("Parcel", kind, idempotency_key="order 7").add(6))
    driver.close()


CALLS, NAMES, KILLS = 400, 8, 3


def test_calls_take_effect_exactly_once_while_workers_and_fronts_are_killed(serve: Serve) -> None:
    """Every call succeeds, with a client whose attempts are lost in front and behind of the front."""
    server = serve("parcels.py", settings={"server.workers": 2})
    done = threading.Semaphore(0)

    async def run() -> list[int]:
        async with AsyncClient(url(server), retries=100, connections=16) as client:

            async def one(number: int) -> int:
                times: int = await client.actor("Parcel", f"n{number % NAMES}").once(f"{number}")
                done.release()
                return times

            return await asyncio.gather(*(one(number) for number in range(CALLS)))

    def threaded() -> list[int]:
        with Client(url(server), retries=100, connections=8) as client, ThreadPoolExecutor(8) as threads:

            def one(number: int) -> int:
                times: int = client.actor("Parcel", f"n{number % NAMES}").once(f"{number}")
                done.release()
                return times

            return list(threads.map(one, range(CALLS, 2 * CALLS)))

    with ThreadPoolExecutor(2) as threads:
        results = [threads.submit(asyncio.run, run()), threads.submit(threaded)]
        for number in range(KILLS):
            for _ in range(2 * CALLS // (KILLS + 2)):
                assert done.acquire(timeout=60)
            role = "front" if number == 1 else "worker"
            server.kill_child(server.children(role)[0].pid)
        assert [result.result(60) for result in results] == [[1] * CALLS] * 2
    with Client(url(server), idempotent=False) as client:
        for name in range(NAMES):
            marks = client.actor("Parcel", f"n{name}").marks()
            assert set(marks.values()) == {1}
            assert len(marks) == 2 * CALLS // NAMES
