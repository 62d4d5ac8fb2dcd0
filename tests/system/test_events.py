"""Events of a real server: every one once and in order, whatever dies in between."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.command import COMMAND, actord
from tests.support.event_source import EventSource
from tests.support.server import PATIENCE_SECONDS, Server, connect, resident_bytes, shards_of, until

SETTINGS = {"server.workers": 2, "storage.shards": 2, "http.write_stall": 1}
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server("feed.py", tmp_path_factory.mktemp("events") / "data", settings=SETTINGS) as running:
        yield running


def say(server: Server, name: str, *, times: int = 1, type_: str = "Feed") -> None:
    """Until it has been answered: it may have been applied more than once when a worker died."""

    def said() -> bool:
        try:
            return server.call(type_, name, "say", times).status == 200
        except (OSError, http.client.HTTPException):
            return False

    until(said, "an answer")


def kill_owner(server: Server, shard: int) -> None:
    """Kill the worker of a shard, once it has it: the one before it may just have been killed."""
    owners: list[int] = []  # one look: while it recovers, a worker opens a shard and closes it again
    until(lambda: owners.extend(c.pid for c in server.children("worker") if shard in shards_of(c.pid)) or owners, "one")
    server.kill_child(owners[0])


def assert_whole(source: EventSource, count: int) -> None:
    events = source.wait(count)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert [event.data for event in events] == list(range(1, len(events) + 1))


def test_readers_get_every_event_once_and_in_order_while_workers_are_killed(server: Server) -> None:
    names = ["a", "b/ü", "c", "d"]
    with ExitStack() as stack:
        sources = {name: stack.enter_context(EventSource(server, "Feed", name)) for name in names}
        writers = [
            threading.Thread(target=lambda name=name: [say(server, name, times=3) for _ in range(25)]) for name in names
        ]
        for writer in writers:
            writer.start()
        for kills in range(1, 5):
            until(lambda kills=kills: sum(len(s.events) for s in sources.values()) > kills * 40, "events to flow")
            kill_owner(server, kills % 2)
        for writer in writers:
            writer.join(PATIENCE_SECONDS)
        for name, source in sources.items():
            assert_whole(source, server.result("Feed", name, "say", 0))
            assert source.connections > 1


def test_readers_go_on_over_restarts_and_miss_nothing(tmp_path: Path) -> None:
    with (
        Server("feed.py", tmp_path / "data", settings=SETTINGS) as server,
        EventSource(server, "Feed", "a", "?from=0") as source,
    ):
        say(server, "a")
        source.wait(1)
        server.stop()
        server.start()
        say(server, "a", times=2)
        source.wait(3)
        server.kill()
        server.start()
        say(server, "a")
        assert_whole(source, 4)
        assert source.connections == 3


def test_a_reader_that_begins_after_a_restart_finds_what_is_kept(tmp_path: Path) -> None:
    with Server("feed.py", tmp_path / "data", settings=SETTINGS) as server:
        say(server, "a", times=30, type_="Bounded")
        server.kill()
        server.start()
        with EventSource(server, "Bounded", "a", "?last_event_id=3") as source:
            events = source.wait(11)
            assert events[0][:2] == (20, "actord.gap")
            assert events[0].data == {"after": 3, "next": 21}
            assert [event.data for event in events[1:]] == list(range(21, 31))


def test_an_instance_that_is_evicted_and_a_turn_that_fails_do_not_disturb_a_stream(server: Server) -> None:
    with EventSource(server, "Leaving", "a") as source:
        for count in (2, 4):
            assert server.call("Leaving", "a", "fail").status == 500
            say(server, "a", type_="Leaving")
            source.wait(count)  # the second one comes from the instance as it leaves memory
        assert_whole(source, 4)
        assert source.connections == 1


def test_head_tells_the_head_and_ends(server: Server) -> None:
    reply = server.request("HEAD", "/actors/Feed/a/events")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["cache-control"] == "no-store"


def test_a_method_of_that_name_is_still_called_by_post(server: Server) -> None:
    assert server.result("Feed", "a", "events") == "method"
    assert server.request("DELETE", "/actors/Feed/a/events").status == 405


@pytest.mark.parametrize(("path", "status"), [("Nobody/a", 404), ("Feed/%00", 400), ("Feed/a%zz", 400)])
def test_what_can_not_be_read_is_refused(server: Server, path: str, status: int) -> None:
    assert server.request("GET", f"/actors/{path}/events").status == status


def test_http_10_gets_its_events_until_the_connection_ends(server: Server) -> None:
    with connect(server.port) as sock:
        sock.sendall(b"GET /actors/Feed/ten/events HTTP/1.0\r\n\r\n")
        until_text(sock, b"id: 0\n\n")
        say(server, "ten")
        until_text(sock, b"id: 1\nevent: number\ndata: 1\n\n")


def until_text(sock: socket.socket, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        more = sock.recv(MIB)
        assert more, seen
        seen += more
    return seen


def test_a_reader_that_never_reads_is_bounded_and_cut_and_delays_nobody(server: Server) -> None:
    with EventSource(server, "Feed", "loud") as source, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.settimeout(PATIENCE_SECONDS)
        sock.sendall(b"GET /actors/Feed/loud/events HTTP/1.1\r\nHost: x\r\n\r\n")
        front = server.children("front")[0].pid
        before = resident_bytes(front)
        for _ in range(300):
            server.result("Feed", "loud", "shout", 60_000)
        assert resident_bytes(front) - before < 12 * MIB
        assert [event.data[0] for event in source.wait(300)] == list(range(1, 301))
        server_side = f"127.0.0.1:{sock.getsockname()[1]}"
        until(lambda: not _established(server.port, sock.getsockname()[1]), f"{server_side} to be cut")


def _established(port: int, peer: int) -> bool:
    """Whether the server still holds its end of a connection."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [(line.split()[1].rpartition(":")[2], line.split()[2].rpartition(":")[2], line.split()[3]) for line in lines]
    return (f"{port:04X}", f"{peer:04X}", "01") in ends


def test_many_readers_of_one_actor_get_the_same(server: Server) -> None:
    count = 200 if not os.environ.get("ACTORD_TEST_LONG") else 1_000
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(server.port)) for _ in range(count)]
        for sock in socks:
            sock.sendall(b"GET /actors/Feed/many/events HTTP/1.1\r\nHost: x\r\n\r\n")
        for sock in socks:
            until_text(sock, b"id: 0\n\n")
        say(server, "many", times=3)
        for sock in socks:
            assert until_text(sock, b"id: 3\nevent: number\ndata: 3\n\n").count(b"event: number") == 3


def test_streams_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    settings = {"server.workers": 1, "runtime.event_streams": 1}
    with Server("feed.py", tmp_path / "data", settings=settings) as server, EventSource(server, "Feed", "a"):
        reply = server.request("GET", "/actors/Feed/a/events")
        assert (reply.status, reply.json()["name"]) == (503, "ActorOverloaded")
        assert int(reply.headers["retry-after"]) >= 1


def test_tail_prints_what_happens_over_a_kill_and_ends_when_it_is_told_to(server: Server) -> None:
    say(server, "tailed", times=2)
    command = [
        *COMMAND,
        "tail",
        "Feed/tailed",
        "--from",
        "1",
        "--count",
        "4",
        "--url",
        f"http://127.0.0.1:{server.port}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["1 number 1\n", "2 number 2\n"]
        for shard in range(2):
            kill_owner(server, shard)
        say(server, "tailed", times=2)
        assert process.communicate(timeout=PATIENCE_SECONDS)[0] == "3 number 3\n4 number 4\n"
        assert process.returncode == 0


def test_tail_says_what_is_wrong(server: Server) -> None:
    done = actord("tail", "Nobody/a", "--url", f"http://127.0.0.1:{server.port}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "There is no actor type 'Nobody'" in done.stderr
    assert actord("tail", "Feed", "--url", "http://127.0.0.1:1").returncode == 2
    assert actord("tail", "Feed/a", "--url", "http://127.0.0.1:1").returncode == 69
