"""Sockets of a real server: through the front door, over evictions, crashes and the end of the server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from tests.support.server import Server, until
from tests.support.websockets import Socket

ONE = {"server.workers": 1, "server.restart_delay_max": 0.2}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that end nothing; each has rooms of its own."""
    with Server("rooms.py", tmp_path_factory.mktemp("rooms") / "data", settings={"server.workers": 2}) as server:
        yield server


def room(server: Server, name: str = "r", user: str = "ann") -> Socket:
    return Socket(("127.0.0.1", server.port), f"/actors/Room/{name}?user={user}")


def test_a_room_from_the_first_client_to_the_last(shared):
    server = shared
    with room(server) as ann, room(server, user="bob") as bob, room(server, "other", "eve") as eve:
        ann.text("hello")
        assert [ann.message(), bob.message()] == ["1 ann hello"] * 2
        assert server.result("Room", "r", "say", "from a call") == 2
        assert [ann.message(), bob.message()] == ["from a call"] * 2
        eve.text("count")
        assert eve.message() == "1 ['eve']"
        bob.close(4000, "bye")
        assert bob.closed() == (4000, "bye")
        until(lambda: server.result("Room", "r", "count") == 1, "the room to know that bob has left")
        assert server.result("Room", "r", "closed") == ["bob 4000"]


def test_a_library_s_client_with_compression_gets_on_with_it(shared):
    server = shared
    with connect(f"ws://127.0.0.1:{server.port}/actors/Room/lib?user=lib") as client:
        text = "compressed " * 500
        client.send(text)
        assert client.recv() == f"1 lib {text}"
        client.ping().wait(20)
    until(lambda: server.result("Room", "lib", "closed") == ["lib 1000"], "the room to know")


def test_the_front_door_says_who_comes_in(shared):
    address = ("127.0.0.1", shared.port)
    with Socket(address, "/chat/r") as stranger:
        assert (stranger.status, stranger.body) == (401, b"who are you?")
    for name in ("d1", "d2", "d3", "d4"):  # owned by one worker or the other
        with Socket(address, f"/chat/{name}?token=secret") as client:
            assert client.status == 101
            assert client.headers["set-cookie"] == "seen=1"
            client.text("hello")
            assert client.message() == "1 ann hello"


def test_an_idle_room_is_evicted_with_its_sockets_open_and_wakes_with_the_next_frame(serve):
    server = serve("rooms.py", settings=ONE | {"runtime.idle_after": 1})
    with room(server) as ann, room(server, user="bob") as bob:
        ann.text("one")
        assert [ann.message(), bob.message()] == ["1 ann one"] * 2
        server.wait_log("evicted r with 2 sockets")
        bob.text("two")
        assert [ann.message(), bob.message()] == ["2 bob two"] * 2
        ann.text("count")
        assert ann.message() == "2 ['ann', 'bob']"


def test_sockets_stay_while_their_worker_is_replaced_and_the_room_is_right_at_once(serve):
    server = serve("rooms.py", settings=ONE)
    with room(server) as ann, room(server, user="bob") as bob:
        ann.text("one")
        assert [ann.message(), bob.message()] == ["1 ann one"] * 2
        for number in (2, 3, 4):
            server.kill_child(server.worker_of(0))
            assert server.result("Room", "r", "count") == 2  # the first thing that the new worker does
            bob.text("again")
            assert [ann.message(), bob.message()] == [f"{number} bob again"] * 2
        bob.text("count")
        assert bob.message() == "2 ['ann', 'bob']"


def test_a_room_over_two_fronts_is_whole_in_a_new_worker_s_first_turn(serve):
    server = serve("rooms.py", settings=ONE | {"server.fronts": 2})
    clients = [room(server, user=f"user{number}") for number in range(12)]  # a front each, as it comes
    for number in (1, 2):
        clients[0].text("hello")
        assert {client.message() for client in clients} == {f"{number} user0 hello"}
        server.kill_child(server.worker_of(0))
    for client in clients:
        client.sock.close()


def test_a_client_that_left_while_the_worker_was_away_is_out_of_the_room(serve):
    server = serve("rooms.py", settings=ONE)
    with room(server) as ann, room(server, user="bob") as bob:
        bob.text("count")
        bob.message()
        os.kill(server.worker_of(0), 9)
        bob.close(4000)
        bob.closed()
        until(lambda: server.result("Room", "r", "count") == 1, "the room to know that bob has left")
        assert server.result("Room", "r", "closed") == ["bob 4000"]
        ann.text("count")
        assert ann.message() == "1 ['ann']"


def test_a_front_that_dies_ends_its_sockets_and_their_rooms_know(serve):
    server = serve("rooms.py", settings=ONE)
    with room(server) as ann:
        ann.text("count")
        ann.message()
        [front] = server.children("front")
        server.kill_child(front.pid)
        assert ann.closed()[0] == 1006
        server.wait_ready()
        until(lambda: server.result("Room", "r", "closed") == ["ann 1006"], "the room to know")
        assert server.result("Room", "r", "count") == 0
        with room(server, user="bob") as bob:
            bob.text("count")
            assert bob.message() == "1 ['bob']"


def test_a_server_that_stops_closes_with_1001_and_the_actors_have_stored_it(serve):
    server = serve("rooms.py", settings=ONE)
    with room(server) as ann, room(server, user="bob") as bob:
        for client in (ann, bob):
            client.text("count")
            client.message()
        server.signal(15)
        for client in (ann, bob):
            assert client.closed()[0] == 1001
            client.close(1001)
            assert client.at_end()
        assert server.wait() == 0
    server.start()
    assert server.result("Room", "r", "closed") == ["ann 1001", "bob 1001"]
