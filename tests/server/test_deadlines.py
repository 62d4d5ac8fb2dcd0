"""The sweep over connections, with time stepped by hand and a transport that only records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from actord.server.connection import Connection
from actord.server.httpserver import SWEEP_STEP, SWEEP_STEPS, HttpServer
from actord.server.router import Router, Worker
from actord.server.slotmap import SlotMap
from actord.settings import Http, Settings

GET = b"GET /-/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
CALL = b"POST /actors/A/x/m HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


class Transport:
    """Records what is written; ``unsent`` bytes of it are said to be waiting."""

    def __init__(self) -> None:
        self.written = b""
        self.unsent = 0
        self.reading = True
        self.eof = self.aborted = self.closed = False

    def write(self, data: bytes) -> None:
        assert not (self.eof)
        assert not (self.closed)
        assert not (self.aborted)
        self.written += data

    def write_eof(self) -> None:
        self.eof = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None


class World:
    """A server without sockets whose worker never comes up, and its clock."""

    def __init__(self, folder: Path, http: Http) -> None:
        router = Router(
            [Worker(str(folder / "none"), (0,))], 1, caller="test", begun_path=lambda k: str(folder / f"begun{k}")
        )
        self.server = HttpServer(Settings(http=http), router, SlotMap([{"shards": [0]}], 1, "", ""), version="0")
        self.now = monotonic()

    def connect(self) -> tuple[Connection, Transport]:
        connection, transport = Connection(self.server), Transport()
        connection.connection_made(transport)  # type: ignore[arg-type]
        return connection, transport

    def later(self, seconds: float) -> None:
        """Time passes, one sweep a second."""
        for _ in range(int(seconds)):
            self.now += 1
            for _ in self.server.sweep(self.now):
                pass


Scenario = Callable[[World], None]


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., None]:
    def run(scenario: Scenario, **http: Any) -> None:
        async def main() -> None:
            world = World(tmp_path, Http(**http))
            scenario(world)
            world.server.router.close()

        asyncio.run(main())

    return run


def test_a_sweep_lets_others_run_after_a_few_connections(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        transports = [world.connect()[1] for _ in range(2 * SWEEP_STEP + 1)]
        silent = [sum(transport.aborted for transport in transports) for _ in world.server.sweep(world.now + 60)]
        assert silent == [0, SWEEP_STEP, 2 * SWEEP_STEP]
        assert all(transport.aborted for transport in transports)

    play(scenario, head_timeout=30)


def test_a_sweep_of_very_many_connections_has_no_more_than_a_hundred_steps(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        transports = [world.connect()[1] for _ in range(SWEEP_STEP * SWEEP_STEPS + 1)]
        assert sum(1 for _ in world.server.sweep(world.now + 60)) <= SWEEP_STEPS
        assert all(transport.aborted for transport in transports)

    play(scenario, head_timeout=30)


def test_a_connection_that_ends_between_two_steps_is_not_looked_after(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        both = [world.connect() for _ in range(2 * SWEEP_STEP)]
        steps = world.server.sweep(world.now + 60)
        next(steps)
        next(steps)
        left = [(connection, transport) for connection, transport in both if not transport.aborted]
        assert len(left) == SWEEP_STEP
        for connection, _ in left:
            connection.server.connections.discard(connection)  # as when it becomes a socket
        assert sum(1 for _ in steps) == 0
        assert not any(transport.aborted for _, transport in left)

    play(scenario, head_timeout=30)


def test_a_head_has_one_deadline_for_all_of_it_however_it_trickles(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        connection, transport = world.connect()
        for byte in GET[:9]:
            connection.data_received(bytes([byte]))
            world.later(1)
        assert not transport.written
        connection.data_received(b"h")
        world.later(3)
        assert transport.written.startswith(b"HTTP/1.1 408 ")
        assert transport.eof
        connection.data_received(GET)
        assert transport.written.count(b"HTTP/1.1") == 1

    play(scenario)


def test_a_connection_that_sends_nothing_is_dropped_without_a_word(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        _, transport = world.connect()
        world.later(9)
        assert not transport.aborted
        world.later(2)
        assert transport.aborted
        assert not transport.written

    play(scenario)


def test_a_later_head_has_its_deadline_from_its_own_first_byte(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        connection, transport = world.connect()
        connection.data_received(GET)
        world.later(1)
        connection.data_received(b"GET /")
        connection._since = world.now  # the connection looks at the real clock here
        world.later(9)
        assert transport.written.count(b"HTTP/1.1 ") == 1
        world.later(2)
        assert b"HTTP/1.1 408 " in transport.written

    play(scenario)


def test_an_idle_connection_is_closed_after_keep_alive_and_not_before(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        connection, transport = world.connect()
        for _ in range(3):
            connection.data_received(GET)
            world.later(70)
            assert not transport.eof
        world.later(10)
        assert transport.eof
        assert b"408" not in transport.written

    play(scenario)


def test_a_body_must_come_at_the_minimum_rate_after_its_grace(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        slow, slow_transport = world.connect()
        fast, fast_transport = world.connect()
        for connection in (slow, fast):
            connection.data_received(CALL + b"Content-Length: 100000\r\n\r\n")
        for _ in range(20):
            slow.data_received(b"x" * 100)
            fast.data_received(b"x" * 1100)
            world.later(1)
        assert b"HTTP/1.1 408 " in slow_transport.written
        assert not fast_transport.written

    play(scenario)


def test_a_chunked_body_must_come_at_the_minimum_rate_too(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        connection, transport = world.connect()
        connection.data_received(CALL + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(14):
            connection.data_received(b"1\r\nx\r\n")
            world.later(1)
        assert b"HTTP/1.1 408 " in transport.written

    play(scenario)


def test_a_client_that_does_not_read_is_dropped_after_the_write_stall(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        connection, transport = world.connect()
        connection.data_received(GET)
        transport.unsent = 1000
        world.later(30)
        assert not transport.aborted
        world.later(2)
        assert transport.aborted

    play(scenario)


def test_a_client_that_reads_slowly_but_steadily_is_kept(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        connection, transport = world.connect()
        connection.data_received(GET)
        transport.unsent = 100_000
        for _ in range(5):
            transport.unsent -= 100
            world.later(20)
        # It asks for more as fast as it reads: the backlog stands still, but it is not the same backlog.
        for _ in range(5):
            before = len(transport.written)
            connection.data_received(GET)
            transport.unsent += len(transport.written) - before - 100
            transport.unsent = max(1, transport.unsent)
            world.later(20)
        assert not transport.aborted

    play(scenario)


def test_a_call_under_way_is_no_idle_connection(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        connection, transport = world.connect()
        connection.data_received(CALL + b"Content-Length: 0\r\nActord-Timeout: 300\r\n\r\n")
        world.later(200)
        assert not transport.eof
        assert not transport.aborted
        assert not transport.written

    play(scenario)


def test_after_a_refusal_the_client_has_a_moment_to_read_it(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        connection, transport = world.connect()
        connection.data_received(b"GET / HTTP/1.1\n")
        assert transport.written.startswith(b"HTTP/1.1 400 ")
        assert transport.eof
        assert not transport.closed
        assert transport.reading  # what is still coming is read and thrown away, or the kernel would reset
        connection.data_received(GET * 100)
        world.later(4)
        assert transport.aborted
        assert transport.written.count(b"HTTP/1.1 ") == 1

    play(scenario)


def test_a_client_that_closes_after_a_refusal_is_done(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        connection, _ = world.connect()
        connection.data_received(b"GET / HTTP/1.1\n")
        assert connection.eof_received() is False  # the transport closes itself

    play(scenario)


def test_the_bodies_being_received_are_bounded_over_all_connections(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        world.server.receiving_limit = 10_000
        first, first_transport = world.connect()
        second, second_transport = world.connect()
        for connection in (first, second):
            connection.data_received(CALL + b"Content-Length: 9000\r\n\r\n" + b"x" * 6000)
        assert not first_transport.written
        assert second_transport.written.startswith(b"HTTP/1.1 503 ")
        assert world.server.receiving == 6000
        first.data_received(b"x" * 3000)
        assert world.server.receiving == 0
        third, third_transport = world.connect()
        third.data_received(CALL + b"Content-Length: 9000\r\n\r\n" + b"x" * 6000)
        assert not third_transport.written
        third.connection_lost(None)
        assert world.server.receiving == 0

    play(scenario)


def test_a_call_whose_worker_stays_away_is_answered_at_its_deadline(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        connection, transport = world.connect()
        connection.data_received(CALL + b"Content-Length: 0\r\nActord-Timeout: 0\r\n\r\n")
        [exchange] = connection.queue
        late = (*exchange.frame[:-2], 0, exchange.frame[-1])  # as if its deadline were long past
        exchange.frame = late
        world.server.router.expire()
        assert transport.written.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1\r\n" in transport.written
        assert b'"applied":"no"' in transport.written
        connection.data_received(GET)
        assert transport.written.endswith(b'{"status":"live"}')

    play(scenario)


def test_reading_stops_while_the_client_does_not_read_and_goes_on_after(play: Callable[..., None]) -> None:
    def scenario(world: World) -> None:
        connection, transport = world.connect()
        connection.pause_writing()
        assert not transport.reading
        world.later(60)  # the client's clocks stand still meanwhile
        assert not transport.aborted
        connection.resume_writing()
        connection._resume()
        assert transport.reading
        connection.data_received(GET)
        assert transport.written.endswith(b'{"status":"live"}')

    play(scenario)
