"""Clients that call workers without a front: the same results and errors, and nothing lost or done twice."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from actord import ActorArgumentError, ActorError, ActorMethodError, ActorMethodTimeoutError, client_wire, errors
from actord.client import AsyncClient, Client
from actord.client_direct import read_map
from actord.server import tokens
from actord.shards import direct, wire

from tests.sdk.codec_values import EVERY_TYPE, same
from tests.support.clients import KINDS, Driver
from tests.support.fifo import Fifo
from tests.support.fixtures import Serve, fifo, serve
from tests.support.server import Server, until

__all__ = ["fifo", "serve"]

DIRECT = {"server.direct": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = DIRECT | {"server.workers": 2, "http.body_bytes": 100_000, "runtime.mailbox": 5}
    with Server("parcels.py", tmp_path_factory.mktemp("data"), settings=settings) as made:
        yield made
        assert made.unexpected("Parcel.fail raised", "Parcel.abort", "wait_for ran over") == []


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture(params=KINDS)
def driver(request: pytest.FixtureRequest, server: Server) -> Iterator[Driver]:
    made = Driver(request.param, url(server), idempotent=False, direct=True)
    made.do(lambda c: c.actor("Parcel", "a").echo())
    yield made
    made.close()


@contextmanager
def without_fronts(server: Server) -> Iterator[None]:
    """Meanwhile no call gets through a front."""
    fronts = [child.pid for child in server.children("front")]
    for pid in fronts:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in fronts:
            os.kill(pid, signal.SIGCONT)


def test_the_client_and_the_worker_mean_the_same_frames() -> None:
    for name in ("VERSION", "HELLO", "CALL", "CANCEL", "CALLX", "READY", "REPLY", "DRAINING", "STOPPED", "ELSEWHERE"):
        assert getattr(client_wire, name) == getattr(wire, name)
    assert (client_wire.CLIENT, client_wire.CALLER) == (direct.CLIENT, direct.CALLER)
    assert client_wire.PYTHON_CALL == wire.MSGPACK | wire.PAIR
    frames: list[Any] = [[wire.REPLY, 1, 200, b"x" * 70_000, None], [wire.DRAINING]]
    batches = wire.pack_batch(frames) + client_wire.pack_batch(frames)
    for size in (1, 3, 4, 1_000, len(batches)):
        reader = client_wire.Reader()
        pieces = [batches[at : at + size] for at in range(0, len(batches), size)] if size > 3 else [batches]
        assert [frame for piece in pieces for frame in reader.feed(piece)] == frames * 2


# -- the same as through the front


def test_calls_go_to_all_workers_without_a_front(driver: Driver, server: Server) -> None:
    with without_fronts(server):
        for number in range(20):
            assert driver.do(lambda c, n=number: c.actor("Parcel", f"w{n}", timeout=10).echo(n)) == [[number], {}]


def test_every_type_of_the_codec_goes_there_and_back(driver: Driver) -> None:
    for sent in EVERY_TYPE:
        (by_position,), by_name = driver.do(lambda c, sent=sent: c.actor("Parcel", "a").echo(sent, value=sent))
        assert same(by_position, sent)
        assert same(by_name, {"value": sent})


@pytest.mark.parametrize("name", ["..", "a/b c", "%2F", "ä€😀", "+", "a" * 512])
def test_a_name_is_the_same_actor_by_either_way(driver: Driver, server: Server, name: str) -> None:
    kind = type(driver.client).__name__
    driver.do(lambda c: c.actor("Parcel", name).swap(kind))
    with Client(url(server), idempotent=False) as other:
        assert other.actor("Parcel", name).swap(None) == kind


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
        ("Parcel", "pack", (), errors.ActorUnknownMethodError, "It has: abort, add"),
        ("Package", "add", (), errors.ActorUnknownTypeError, "Parcel"),
        ("Parcel", "echo", (b"x" * 100_001,), errors.PayloadTooLarge, "100000"),
    ],
)
def test_an_error_of_the_runtime_is_raised_as_its_class(
    driver: Driver, type_: str, method: str, arguments: tuple[Any, ...], kind: type, words: str
) -> None:
    with pytest.raises(kind, match=words) as raised:
        driver.do(lambda c: getattr(c.actor(type_, "a"), method)(*arguments))
    assert isinstance(raised.value, errors.ActordError)
    assert raised.value.applied == "no"


def test_a_key_is_one_call_by_either_way(driver: Driver, server: Server) -> None:
    kind = type(driver.client).__name__
    assert driver.do(lambda c: c.actor("Parcel", kind, idempotency_key="order 7").add(5)) == 5
    with Client(url(server)) as front:
        assert front.actor("Parcel", kind).with_key("order 7").add(5) == 5
        with pytest.raises(errors.IdempotencyKeyReused):
            driver.do(lambda c: c.actor("Parcel", kind).with_key("order 7").add(6))
        assert front.actor("Parcel", kind).add(0) == 5


def test_requests_go_through_the_front(driver: Driver) -> None:
    assert driver.do(lambda c: c.actor("Parcel", "a").fetch("/teapot")).status == 418
    assert driver.do(lambda c: c.fetch("/-/version")).status == 200


# -- deadlines, cancellation, many at a time


def test_a_call_ends_at_its_deadline_and_leaves_nothing(driver: Driver, fifo: Fifo, tmp_path: Path) -> None:
    go = Fifo(tmp_path / "go")
    with pytest.raises(ActorMethodTimeoutError) as raised:
        driver.do(lambda c: c.actor("Parcel", "slow", timeout=0.3).wait_for(fifo.path, go.path))
    assert raised.value.applied == "no"
    go.close()


def test_calls_that_have_not_begun_are_given_up_for_certain(
    driver: Driver, server: Server, fifo: Fifo, tmp_path: Path
) -> None:
    """One at its deadline, one that is cancelled: neither is ever made."""
    go = tmp_path / "go"
    os.mkfifo(go)
    name = f"busy-{type(driver.client).__name__}"
    with Client(url(server), idempotent=False) as other, ThreadPoolExecutor(1) as thread:
        first = thread.submit(lambda: other.actor("Parcel", name).wait_for(fifo.path, str(go)))
        fifo.wait()
        with pytest.raises(errors.ActorUnavailable) as raised:
            driver.do(lambda c: c.actor("Parcel", name, timeout=0.2).add())
        assert raised.value.applied == "no"

        async def cancelled(client: AsyncClient) -> None:
            task = asyncio.ensure_future(client.actor("Parcel", name).add())
            await client.actor("Parcel", "a").echo()  # perhaps on another link
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for number in range(8):  # the worker has heard of it, whichever it is
                await client.actor("Parcel", f"n{number}").echo()

        if isinstance(driver.client, AsyncClient):
            driver.do(cancelled)
        go.write_bytes(b"x")
        assert first.result() == "waited"
        assert other.actor("Parcel", name).add(0) == 0


def test_more_calls_than_a_link_carries_wait_for_their_turn(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actord.client_direct_async.DIRECT_CALLS", 2)

    async def run() -> list[int]:
        async with AsyncClient(url(server), idempotent=False, direct=True) as client:
            await client.actor("Parcel", "gathered").echo()
            with without_fronts(server):
                return await asyncio.gather(*(client.actor("Parcel", "gathered").add() for _ in range(100)))

    assert sorted(asyncio.run(run())) == list(range(1, 101))


def test_a_mailbox_that_is_full_is_tried_again_as_over_http(server: Server) -> None:
    async def run() -> list[Any]:
        async with AsyncClient(url(server), idempotent=False, direct=True, retries=0) as client:
            stub = client.actor("Parcel", "crowded")
            await stub.echo()
            return await asyncio.gather(*(stub.add() for _ in range(50)), return_exceptions=True)

    results = asyncio.run(run())
    refused = [result for result in results if isinstance(result, BaseException)]
    assert {(type(error), error.applied) for error in refused} <= {(errors.ActorOverloaded, "no")}  # type: ignore[attr-defined]
    assert len(results) - len(refused) >= 5


def test_threads_share_a_client(server: Server) -> None:
    with Client(url(server), idempotent=False, direct=True) as client, ThreadPoolExecutor(4) as threads:
        stub = client.actor("Parcel", "shared")
        assert sorted(threads.map(lambda _: stub.add(), range(100))) == list(range(1, 101))


# -- no way to the workers


def test_without_permission_calls_go_through_the_front_and_the_log_says_why(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve("parcels.py", settings={"server.workers": 1})
    caplog.set_level(logging.INFO, "actord.client")
    for count, kind in enumerate(KINDS, 1):
        driver = Driver(kind, url(server), direct=True)
        assert driver.do(lambda c: c.actor("Parcel", "a").add()) == count
        driver.close()
    assert [r.getMessage() for r in caplog.records] == [
        "calls go through the front: server.direct is off, or the token does not allow every call of every actor"
    ] * 2
    assert not list(Path(server.data_dir, "run").glob("direct*"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_the_workers_do_not_let_in_goes_through_the_front(
    server: Server, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "actord.client")
    real = client_wire.pack_batch
    monkeypatch.setattr("actord.client_direct.pack_batch", lambda frames: real([(*frames[0][:3], "forged")]))
    driver = Driver(kind, url(server), idempotent=False, direct=True)
    assert driver.do(lambda c: c.actor("Parcel", f"outside {kind}").add()) == 1
    driver.close()
    assert "calls go to the workers directly" not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_does_not_see_the_sockets_goes_through_the_front_and_asks_seldom(
    server: Server, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on another machine, or in a container."""
    asked = []

    def elsewhere(answer: Any) -> Any:
        asked.append(answer)
        table = read_map(answer)
        return table._replace(paths=[f"/nowhere{path}" for path in table.paths])

    caplog.set_level(logging.INFO, "actord.client")
    for module in ("client_direct_async", "client_direct_threads"):
        monkeypatch.setattr(f"actord.{module}.read_map", elsewhere)
    driver = Driver(kind, url(server), idempotent=False, direct=True)
    for number in range(40):
        assert driver.do(lambda c, n=number: c.actor("Parcel", f"n{n}").echo(n)) == [[number], {}]
    driver.close()
    assert len(asked) <= 3
    assert {record.getMessage() for record in caplog.records} == {
        "calls go through the front: a worker's socket can't be reached: No such file or directory"
    }


def test_where_tokens_are_needed_workers_are_for_those_alone_who_may_call_everything(
    serve: Serve, tmp_path: Path
) -> None:
    """A worker knows no tokens: nobody gets past the front's with one that allows less, or without."""
    texts = {}
    with tokens.changing(str(tmp_path / "tokens.json")) as content:
        for scope in ("*", "Parcel:add"):
            texts[scope], made = tokens.make([scope])
            content.tokens.append(made)
    settings = DIRECT | {"server.workers": 1, "server.token_file": str(tmp_path / "tokens.json")}
    server = serve("parcels.py", settings=settings)
    for kind in KINDS:
        all_, some, none = (
            Driver(kind, url(server), direct=True, idempotent=False, token=token)
            for token in (texts["*"], texts["Parcel:add"], None)
        )
        assert all_.do(lambda c: c.actor("Parcel", "a").echo()) == [[], {}]
        with without_fronts(server):
            before = all_.do(lambda c: c.actor("Parcel", "a", timeout=10).add())
        assert some.do(lambda c: c.actor("Parcel", "a").add()) == before + 1
        with pytest.raises(errors.Forbidden):
            some.do(lambda c: c.actor("Parcel", "a").echo())
        with pytest.raises(errors.Unauthorized):
            none.do(lambda c: c.actor("Parcel", "a").add())
        for driver in (all_, some, none):
            driver.close()


def test_the_workers_sockets_are_the_server_s_user_s_alone(server: Server) -> None:
    run = Path(server.data_dir, "run")
    assert run.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in run.glob("direct-*.sock")] == [0o600, 0o600]


# -- workers, fronts and servers that go away

CALLS, NAMES, KILLS = 300, 8, 3


def goes_directly(server: Server, driver: Driver) -> bool:
    """Whether calls of any name get through without a front."""
    driver.do(lambda c: c.actor("Parcel", "n0").echo())
    with without_fronts(server):
        try:
            for number in range(4):
                driver.do(lambda c, n=number: c.actor("Parcel", f"n{n}", timeout=0.5).echo())
        except errors.ActorUnavailable:
            return False
    return True


def test_calls_take_effect_exactly_once_while_workers_and_fronts_are_killed(serve: Serve) -> None:
    server = serve("parcels.py", settings=DIRECT | {"server.workers": 2})
    done = threading.Semaphore(0)

    async def run() -> list[int]:
        async with AsyncClient(url(server), retries=100, direct=True) as client:
            turns = asyncio.Semaphore(16)

            async def one(number: int) -> int:
                async with turns:
                    times: int = await client.actor("Parcel", f"n{number % NAMES}").once(f"{number}")
                done.release()
                return times

            return await asyncio.gather(*(one(number) for number in range(CALLS)))

    def threaded() -> list[int]:
        with Client(url(server), retries=100, direct=True) as client, ThreadPoolExecutor(8) as threads:

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
            server.kill_child(server.children("front" if number == 1 else "worker")[0].pid)
        assert [result.result(60) for result in results] == [[1] * CALLS] * 2
    with Client(url(server), idempotent=False) as client:
        for name in range(NAMES):
            marks = client.actor("Parcel", f"n{name}").marks()
            assert set(marks.values()) == {1}
            assert len(marks) == 2 * CALLS // NAMES


@pytest.mark.parametrize("kind", KINDS)
def test_after_the_death_of_a_worker_each_call_says_what_is_known_and_direct_calls_come_back(
    serve: Serve, fifo: Fifo, tmp_path: Path, kind: str
) -> None:
    """Without keys: what had begun is unknown, what had not is made by the successor."""
    server = serve("parcels.py", settings=DIRECT | {"server.workers": 1})
    go = Fifo(tmp_path / "go")  # nobody writes to it
    driver = Driver(kind, url(server), idempotent=False, direct=True)
    driver.do(lambda c: c.actor("Parcel", "a").echo())

    def kill() -> None:
        fifo.wait()
        server.kill_child(server.worker_of(0))

    killer = threading.Thread(target=kill)
    killer.start()

    async def both(client: AsyncClient) -> Any:
        begun = asyncio.ensure_future(client.actor("Parcel", "a").wait_for(fifo.path, go.path))
        waiting = asyncio.ensure_future(client.actor("Parcel", "a").add())
        return await asyncio.gather(begun, waiting, return_exceptions=True)

    if isinstance(driver.client, AsyncClient):
        error, value = driver.do(both)
    else:
        with pytest.raises(errors.ActorUnavailable) as raised:
            driver.do(lambda c: c.actor("Parcel", "a").wait_for(fifo.path, go.path))
        error, value = raised.value, driver.do(lambda c: c.actor("Parcel", "a").add())
    killer.join()
    go.close()
    assert (type(error), error.applied, error.retryable) == (errors.ActorUnavailable, "unknown", True)
    assert value == 1

    until(lambda: goes_directly(server, driver), "calls to go directly again")
    driver.close()


def test_a_server_with_other_workers_gets_a_new_map(serve: Serve) -> None:
    """The addresses are the same, the slots are not: a stale map must not decide anything."""
    server = serve("parcels.py", settings=DIRECT | {"server.workers": 2})
    drivers = [Driver(kind, url(server), retries=100, direct=True) for kind in KINDS]
    for driver in drivers:
        for number in range(8):
            driver.do(lambda c, n=number: c.actor("Parcel", f"n{n}").once("x"))
    server.stop()
    server.settings["server.workers"] = 1
    server.start()
    for count, driver in enumerate(drivers, 3):
        for number in range(8):
            assert driver.do(lambda c, n=number: c.actor("Parcel", f"n{n}").once("x")) == count
        until(lambda driver=driver: goes_directly(server, driver), "calls to go directly again")  # type: ignore[misc]
        driver.close()
    assert server.unexpected() == []


@pytest.mark.parametrize("kind", KINDS)
def test_after_its_end_a_client_calls_nothing(server: Server, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "actord.client")
    driver = Driver(kind, url(server), direct=True)
    driver.do(lambda c: c.actor("Parcel", "a").echo())
    assert [record.getMessage() for record in caplog.records] == ["calls go to the workers directly"]
    driver.do(lambda c: c.close())
    with pytest.raises(RuntimeError, match="closed"):
        driver.do(lambda c: c.actor("Parcel", "a").echo())
    driver.close()
