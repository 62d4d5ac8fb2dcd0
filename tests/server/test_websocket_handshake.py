"""How a request becomes a WebSocket, and what is refused. A real front process; the worker behind it is fake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.front_process import FrontProcess
from tests.support.websockets import CLOSE, TEXT, Socket, frame


def seen(front: FrontProcess) -> list[list[object]]:
    with front.connect() as client:
        client.call("sockets")
        events: list[list[object]] = client.answer().json
        return events


def test_a_client_is_let_in_and_its_messages_come_back(front: FrontProcess) -> None:
    with Socket(front.address) as client:
        assert client.status == 101
        assert client.headers["sec-websocket-accept"] == client.expected_accept
        assert client.headers["upgrade"] == "websocket"
        assert client.headers["connection"] == "Upgrade"
        assert client.headers["x-extra"] == "1"
        assert "sec-websocket-protocol" not in client.headers
        assert "sec-websocket-extensions" not in client.headers
        client.text("grüße")
        assert client.message() == "grüße"


def test_names_are_decoded_and_the_request_reaches_the_actor_whole(front: FrontProcess) -> None:
    with Socket(front.address, "/actors/Account/al%2Fice%20%2B?token=1"):
        assert ["open", "al/ice +"] in seen(front)


def test_the_handler_picks_the_subprotocol(front: FrontProcess) -> None:
    with Socket(front.address, headers={"Sec-WebSocket-Protocol": "chat.v1, chat.v2"}) as client:
        assert client.headers["sec-websocket-protocol"] == "chat.v2"


def test_frames_that_come_with_the_request_are_kept(front: FrontProcess) -> None:
    with Socket(front.address, early=frame(TEXT, b"one") + frame(TEXT, b"two")) as client:
        assert [client.message(), client.message()] == ["one", "two"]


def test_the_answer_stands_behind_those_of_the_requests_before_it(front: FrontProcess) -> None:
    head = b"POST /actors/Canary/x/hold HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    first = head + b"Content-Length: 1\r\n\r\n1"
    with Socket(front.address, before=first, wait=False) as client:
        front.wait_for_counts(call=1)
        with front.connect() as other:
            other.call("release")
            other.answer()
        client.read_handshake()
        assert (client.status, client.body) == (200, b"1")
        client.read_handshake()
        assert client.status == 101
        client.text("hello")
        assert client.message() == "hello"


def test_a_refusal_of_the_actor_is_an_http_answer(front: FrontProcess) -> None:
    with Socket(front.address, "/actors/Account/refuse") as client:
        assert client.status == 403
        assert client.headers["content-type"] == "application/problem+json"
        assert client.headers["connection"] == "close"
        assert client.body == b'{"no":1}'
        assert client.at_end()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Version": None}, 426),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=A"}, 400),
        ({"Content-Length": "0", "Upgrade": "WebSocket"}, 101),
        ({"Connection": "keep-alive, Upgrade"}, 101),
        ({"Connection": "keep-alive"}, 404),
        ({"Upgrade": "h2c"}, 404),
        ({"Upgrade": None}, 404),
    ],
)
def test_a_handshake_is_read_strictly(front: FrontProcess, headers: dict[str, str | None], status: int) -> None:
    before = len(seen(front))
    with Socket(front.address, headers=headers) as client:
        assert client.status == status
        if status in (400, 426):
            assert json.loads(client.body)["status"] == status
            assert client.at_end()
        if status == 426:
            assert client.headers["sec-websocket-version"] == "13"
    if status != 101:
        assert len(seen(front)) == before


def test_an_upgrade_with_a_body_is_refused(front: FrontProcess) -> None:
    with Socket(front.address, headers={"Content-Length": "3"}, early=b"abc") as client:
        assert client.status == 400


@pytest.mark.parametrize("path", ["/actors/Account/%00", "/actors/Account/%zz", "/actors//x", "/actors/Account/"])
def test_a_bad_name_is_refused(front: FrontProcess, path: str) -> None:
    with Socket(front.address, path) as client:
        assert client.status == 400


def test_without_a_front_door_no_other_path_opens_a_socket(front: FrontProcess) -> None:
    with Socket(front.address, "/chat") as client:
        assert client.status == 404


# -- origins


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://server.test", "server.test"),
        ("https://server.test", "server.test"),
        ("https://SERVER.test:443", "server.test"),
        ("http://server.test:8000", "server.test:8000"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        (None, "server.test"),
    ],
)
def test_the_pages_of_this_server_and_clients_that_are_no_browsers_are_let_in(
    front: FrontProcess, origin: str | None, host: str
) -> None:
    with Socket(front.address, headers={"Origin": origin, "Host": host}) as client:
        assert client.status == 101


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.test",
        "https://server.test.evil.test",
        "http://server.test:8001",
        "null",
        "",
        "http://server.test/x",
    ],
)
def test_pages_of_other_origins_are_refused(front: FrontProcess, origin: str) -> None:
    before = len(seen(front))
    with Socket(front.address, headers={"Origin": origin}) as client:
        assert client.status == 403
        assert json.loads(client.body)["name"] == "Forbidden"
    assert len(seen(front)) == before


def test_origins_that_are_listed_are_let_in(tmp_path: Path) -> None:
    settings = {"http": {"origins": "https://app.test http://other.test:3000/"}}
    with FrontProcess(tmp_path, settings=settings) as front:
        for origin, status in (
            ("https://app.test", 101),
            ("http://other.test:3000", 101),
            ("http://app.test", 403),
            ("http://server.test", 101),
        ):
            with Socket(front.address, headers={"Origin": origin}) as client:
                assert client.status == status


# -- the front door


def test_other_paths_go_to_the_front_door(door: FrontProcess) -> None:
    with Socket(door.address, "/chat") as client:
        assert client.status == 101
        client.text("hi")
        assert client.message() == "hi"
    assert ["door", "chat"] in seen(door)


def test_the_front_door_may_leave_the_socket_to_an_actor(door: FrontProcess) -> None:
    with Socket(door.address, "/forward") as client:
        assert client.status == 101
        assert client.headers["x-door"] == "yes"
        assert client.headers["x-extra"] == "1"
        assert client.message() == "user ann"
        client.text("hi")
        assert client.message() == "hi"
    assert ["open", "there"] in seen(door)


# -- openings that do not end


def test_an_actor_hears_that_a_client_it_has_not_answered_is_gone(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front:
        with Socket(front.address, "/actors/Account/begin", wait=False):
            wait_for(front, ["open", "begin"])
        wait_for(front, ["closed", 1006, ""])


def test_an_opening_that_has_not_begun_by_its_deadline_is_answered_503(tmp_path: Path) -> None:
    settings = {"http": {"call_deadline": 0.2}}
    with FrontProcess(tmp_path, settings=settings) as front:
        with Socket(front.address, "/actors/Account/wait") as client:
            assert client.status == 503
            problem = json.loads(client.body)
            assert (problem["name"], problem["applied"]) == ("ActorUnavailable", "no")
        wait_for(front, ["closed", 1006, ""])


def test_a_client_that_closes_is_answered_and_the_actor_hears_its_code(front: FrontProcess) -> None:
    with Socket(front.address) as client:
        client.close(4321, "bye")
        got = client.receive()
        assert got is not None
        assert (got.opcode, got.code, got.reason) == (CLOSE, 4321, "bye")
        assert client.at_end()
    wait_for(front, ["closed", 4321, "bye"])


def wait_for(front: FrontProcess, event: list[object]) -> None:
    """Each look is a round trip to the worker."""
    for _ in range(100_000):
        if event in seen(front):
            return
    raise AssertionError(f"{event} never came, but {seen(front)}")
