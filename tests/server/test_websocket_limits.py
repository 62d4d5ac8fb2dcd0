"""What a socket may cost, towards the actor and towards the client, and how it ends. The worker is fake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.test_websocket_handshake import seen, wait_for
from tests.support.front_process import FrontProcess
from tests.support.websockets import BINARY, PING, PONG, TEXT, Socket, frame

LIMITS = {
    "sockets": {
        "queue_events": 16,
        "queue_bytes": 65_536,
        "queue_wait": 0.0,
        "buffer_bytes": 1_048_576,
        "ping_interval": 0.5,
        "ping_timeout": 0.5,
        "close_timeout": 0.5,
    }
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    with FrontProcess(tmp_path_factory.mktemp("small"), settings=LIMITS) as process:
        yield process


def patient(tmp_path: Path, **sockets: Any) -> FrontProcess:
    """A front whose reading pauses for as long as the actor is busy."""
    return FrontProcess(tmp_path, settings={"sockets": {"queue_wait": 3_600.0, **sockets}})


def go_on(front: FrontProcess) -> None:
    with front.connect() as client:
        client.call("go_on")
        assert client.answer().status == 200


# -- towards the actor


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_of_more_than_a_mebibyte_closes_with_1009(front: FrontProcess, opcode: Any) -> None:
    with Socket(front.address) as client:
        client.frame(opcode, b"x" * 1_048_576)
        message = client.message()
        assert len(message) == 1_048_576
        client.raw(frame(opcode, b"x" * 1_048_577))
        assert client.closed()[0] == 1009
    wait_for_code(front, 1009)


def test_fragments_count_together(front: FrontProcess) -> None:
    with Socket(front.address) as client:
        client.raw(frame(TEXT, b"x" * 1_048_576, fin=False) + frame(0, b"x"))  # type: ignore[arg-type]
        assert client.closed()[0] == 1009


def test_more_messages_than_may_wait_close_with_1013(small: FrontProcess) -> None:
    with Socket(small.address) as client:
        client.text("busy")
        assert client.message() == "busy"
        for number in range(16):
            client.text(str(number))
        client.frame(PING)
        got = client.receive()
        assert got is not None
        assert got.opcode is PONG  # 16 may wait
        client.text("one too many")
        code, reason = client.closed()
        assert (code, reason) == (1013, "too many messages wait for the actor")
    go_on(small)
    wait_for_code(small, 1013)


def test_more_bytes_than_may_wait_close_with_1013(small: FrontProcess) -> None:
    with Socket(small.address) as client:
        client.text("x" * 200_000)  # a single message may always wait
        assert len(client.message()) == 200_000
        client.text("busy")
        assert client.message() == "busy"
        client.text("x" * 60_000)
        client.text("x" * 6_000)
        assert client.closed()[0] == 1013
    go_on(small)


def test_a_burst_waits_unread_while_the_actor_is_busy_and_then_arrives_in_order(tmp_path: Path) -> None:
    with patient(tmp_path) as front, Socket(front.address) as client:
        client.text("busy")
        assert client.message() == "busy"
        client.raw(b"".join(frame(TEXT, b"%d" % number) for number in range(5_000)))
        with front.connect() as other:  # the front serves others meanwhile
            other.call("echo", b"1")
            assert other.answer().json == 1
        go_on(front)
        assert client.message() == "done"
        assert [client.message() for _ in range(5_000)] == [str(number) for number in range(5_000)]


def test_a_close_behind_a_burst_comes_after_all_of_it(tmp_path: Path) -> None:
    with patient(tmp_path) as front:
        with Socket(front.address) as client:
            client.text("busy")
            assert client.message() == "busy"
            client.raw(b"".join(frame(TEXT, b"m%d" % number) for number in range(500)))
            client.close(4001)
            go_on(front)
            assert client.closed()[0] == 4001
        wait_for(front, ["closed", 4001, ""])
        events = [event[1] for event in seen(front) if event[0] == "message"]
        assert events[2:] == [f"m{number}" for number in range(500)]


# -- towards the client


def test_a_client_that_never_reads_is_closed_with_1013_and_harms_nobody(small: FrontProcess) -> None:
    with Socket(small.address, "/actors/Account/slow", receive_buffer=4_096) as slow, Socket(small.address) as other:
        slow.text("flood 200 100000")  # 20 MB, of which the sockets of the system take a part
        other.text("hello")
        assert other.message() == "hello"
        wait_for_code(small, 1013)
        code, reason = slow.closed()
        assert (code, reason) in [(1013, "the client reads too slowly"), (1006, "")]


def test_a_slow_client_that_goes_on_reading_gets_its_close_frame(tmp_path: Path) -> None:
    settings = {"sockets": {"buffer_bytes": 1_048_576, "close_timeout": 60.0}}
    with FrontProcess(tmp_path, settings=settings) as front, Socket(front.address, receive_buffer=4_096) as slow:
        slow.text("flood 200 100000")
        wait_for_code(front, 1013)
        assert slow.closed() == (1013, "the client reads too slowly")


def test_all_slow_clients_together_are_bounded(tmp_path: Path) -> None:
    """Each stays below its own limit; the sum does not."""
    settings = {"sockets": {"buffer_bytes": 64 * 1_048_576, "buffer_total": 8 * 1_048_576}}
    with FrontProcess(tmp_path, settings=settings) as front:
        clients = [Socket(front.address, receive_buffer=4_096) for _ in range(8)]
        for client in clients:
            client.text("flood 100 100000")
        wait_for_code(front, 1013)
        with Socket(front.address) as other:
            other.text("hello")
            assert other.message() == "hello"
        for client in clients:
            client.sock.close()


def test_a_broadcast_reaches_all_sockets_compressed_or_not(front: FrontProcess) -> None:
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    with Socket(front.address) as one, Socket(front.address, headers=offer) as two:
        text = "a long text, again and again; " * 100
        one.text("all " + text)
        first, second = one.receive(), two.receive()
        assert first is not None
        assert second is not None
        assert (first.compressed, second.compressed) == (False, True)
        assert first.data.decode() == text
        assert len(second.data) < 200


# -- life and end


def test_a_client_that_is_silent_is_asked_and_cut_off_when_it_does_not_answer(small: FrontProcess) -> None:
    with Socket(small.address) as client:
        got = client.receive()
        assert got is not None
        assert got.opcode is PING
        assert client.at_end()
    wait_for_code(small, 1006)


def test_a_client_that_answers_pings_stays(small: FrontProcess) -> None:
    with Socket(small.address) as client:
        for _ in range(3):
            got = client.receive()
            assert got is not None
            assert got.opcode is PING
            client.frame(PONG, got.data)
        client.text("here")
        assert client.message() == "here"


def test_the_actor_closes_with_its_own_code_and_hears_it_once_the_client_has_answered(small: FrontProcess) -> None:
    with Socket(small.address) as client:
        client.text("close 4002 enough")
        got = client.receive()
        assert got is not None
        assert (got.code, got.reason) == (4002, "enough")
        client.close(4002)
        assert client.at_end()
    wait_for(small, ["closed", 4002, "enough"])


def test_a_client_that_does_not_answer_a_close_frame_is_cut_off(small: FrontProcess) -> None:
    with Socket(small.address) as client:
        client.text("close 4003 now")
        assert client.closed() == (4003, "now")
        assert client.at_end()
    wait_for(small, ["closed", 4003, "now"])


def test_a_connection_that_breaks_is_closed_with_1006(front: FrontProcess) -> None:
    before = sum(event == ["closed", 1006, ""] for event in seen(front))
    with Socket(front.address) as client:
        client.text("x")
        client.message()
        client.sock.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SOL_SOCKET, SO_LINGER: a reset
    for _ in range(100_000):
        if sum(event == ["closed", 1006, ""] for event in seen(front)) > before:
            return
    raise AssertionError("the actor never heard of it")


def test_a_server_that_stops_closes_with_1001_and_tells_the_actors(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front:
        with Socket(front.address) as one, Socket(front.address) as two:
            front.tell({"drain": 20})
            for client in (one, two):
                got = client.receive()
                assert got is not None
                assert got.code == 1001
                client.close(1001)
                assert client.at_end()
        front.process.wait(20)
        assert front.process.returncode == 0


def test_sockets_count_as_connections(tmp_path: Path) -> None:
    with FrontProcess(tmp_path, settings={"http": {"connections": 3}}) as front:
        sockets = [Socket(front.address) for _ in range(4)]
        assert [each.status for each in sockets] == [101, 101, 101, 503]
        assert json.loads(sockets[3].body)["name"] == "ActorOverloaded"
        for each in sockets:
            each.sock.close()


def wait_for_code(front: FrontProcess, code: int) -> None:
    for _ in range(100_000):
        if any(event[0] == "closed" and event[1] == code for event in seen(front)):
            return
    raise AssertionError(f"no socket was closed with {code}: {seen(front)}")
