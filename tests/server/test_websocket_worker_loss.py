"""Sockets outlive their worker: what is told to its successor, what is sent again, and what can't be promised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.server.test_websocket_handshake import seen, wait_for
from tests.support.front_process import FrontProcess
from tests.support.websockets import Socket


def restart(front: FrontProcess) -> None:
    front.kill_worker()
    front.start_worker()


def test_a_new_worker_is_told_of_every_open_socket_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front:
        protocol = {"Sec-WebSocket-Protocol": "chat"}
        with Socket(front.address, headers=protocol) as one, Socket(front.address, "/actors/Account/b") as two:
            one.text("keep")
            assert one.message() == "kept"
            restart(front)
            two.text("hello")
            assert two.message() == "hello"
            one.text("again")
            assert one.message() == "again"
            held = {tuple(map(str, event[2:])) for event in seen(front) if event[0] == "held"}
            assert held == {
                ("Account", "a", "chat", "['red']", "\x01"),
                ("Account", "b", "None", "[]", "None"),
            }


def test_messages_that_wait_for_a_worker_arrive_in_order(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front, Socket(front.address) as client:
        client.text("first")
        client.message()
        front.kill_worker()
        for number in range(100):
            client.text(str(number))
        front.start_worker()
        assert [client.message() for _ in range(100)] == [str(number) for number in range(100)]


def test_messages_that_had_not_begun_are_sent_again_and_none_twice(tmp_path: Path) -> None:
    """One socket's message has begun when the worker dies; those of another wait behind it, unbegun."""
    with FrontProcess(tmp_path) as front:
        with Socket(front.address) as doubtful, Socket(front.address) as waiting:
            doubtful.text("busy")
            assert doubtful.message() == "busy"
            for number in range(50):
                waiting.text(str(number))
            doubtful.text("behind it")
            restart(front)
            assert doubtful.closed() == (1012, "The worker was lost while a message was handled.")
            assert [waiting.message() for _ in range(50)] == [str(number) for number in range(50)]
        wait_for(front, ["closed", 1012, "The worker was lost while a message was handled."])
        assert ["message", "behind it"] not in seen(front)


def test_the_end_of_a_socket_is_told_to_the_next_worker(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front:
        with Socket(front.address) as client:
            front.kill_worker()
            client.close(4004, "bye")
            assert client.closed() == (4004, "bye")
        front.start_worker()
        wait_for(front, ["closed", 4004, "bye"])
        assert seen(front)[0][0] == "held"  # it knows who has gone


def test_an_opening_that_had_not_begun_is_made_by_the_next_worker(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front:
        front.kill_worker()
        with Socket(front.address, wait=False) as client:
            front.start_worker()
            client.read_handshake()
            assert client.status == 101


def test_an_opening_that_had_begun_is_answered_503_with_the_truth(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front, Socket(front.address, "/actors/Account/begin", wait=False) as client:
        wait_for(front, ["open", "begin"])
        restart(front)
        client.read_handshake()
        assert client.status == 503
        assert json.loads(client.body)["applied"] == "unknown"


def test_a_worker_that_dies_in_the_middle_of_a_message_closes_that_socket_alone(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front, Socket(front.address) as one, Socket(front.address) as two:
        one.text("die")
        assert front.workers[0] is not None
        front.workers[0].wait()
        front.start_worker()
        assert one.closed()[0] == 1012
        two.text("alive")
        assert two.message() == "alive"


def test_sockets_of_the_front_door_end_with_their_worker(tmp_path: Path) -> None:
    with FrontProcess(tmp_path, front_door=True) as front, Socket(front.address, "/chat") as client:
        restart(front)
        assert client.closed()[0] == 1012
        with Socket(front.address, "/chat") as again:
            assert again.status == 101


@pytest.mark.parametrize("rounds", [5])
def test_sockets_survive_one_worker_after_the_other(tmp_path: Path, rounds: int) -> None:
    with FrontProcess(tmp_path) as front, Socket(front.address) as client:
        for number in range(rounds):
            client.text(str(number))
            assert client.message() == str(number)
            restart(front)
        client.text("end")
        assert client.message() == "end"
