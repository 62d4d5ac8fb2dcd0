"""Messages of a running server: over drain, restart and kill -9, and by the command line."""

from __future__ import annotations

import json
import subprocess

from actord.server.admin import AdminClient

from tests.support.command import actord
from tests.support.server import Server, until

SETTINGS = {"server.workers": 2, "storage.shards": 2}


def outbox(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    return actord("outbox", *words, "--data-dir", server.data_dir)


def listed(server: Server, *words: str) -> list[dict[str, object]]:
    done = outbox(server, "ls", "--json", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def count(server: Server, *, parked: bool = False) -> int:
    """What `ls` would list, without a process for each look."""
    with AdminClient(str(server.data_dir)) as client:
        return sum(len(value["messages"]) for value in client.ask("outbox.list", parked=parked))


def held(server: Server, name: str) -> list[int]:
    found: list[int] = server.result("Box", name, "held")
    return found


def test_parked_messages_are_listed_retried_and_removed_on_a_running_server(serve):
    server = serve("transfers.py", settings=SETTINGS)
    for name in ("b", "c"):
        server.result("Box", name, "shut", True)
        server.result("Box", "a", "give", name, 1, 2)
    until(lambda: count(server, parked=True) == 4, "all to be parked")
    parked = listed(server, "--parked", "--type", "Box")
    assert [m["error"] for m in parked] == ["ActorMethodError: Box.take raised RuntimeError: it is shut"] * 4
    assert all(m["from"] == ["Box", "a"] and m["state"] == "parked" and m["attempts"] == 1 for m in parked)
    assert listed(server, "--parked", "--type", "Nobody") == []
    text = outbox(server, "ls").stdout.splitlines()
    assert len(text) == 4
    assert "Box/a  ->  Box/b.take  parked" in text[0]
    # one is removed, one is retried, the others all at once
    gone, again = [m["id"] for m in parked if m["to"] == ["Box", "b"]]
    assert outbox(server, "rm", str(gone)).returncode == 0
    missing = outbox(server, "rm", str(gone))
    assert (missing.returncode, "There is no message" in missing.stderr) == (1, True)
    server.result("Box", "b", "shut", False)
    assert outbox(server, "retry", str(again)).returncode == 0
    until(lambda: held(server, "b") == [2], "the one that was retried")
    server.result("Box", "c", "shut", False)
    done = outbox(server, "retry", "--all", "--type", "Box")
    assert "2 on their way again" in done.stderr
    until(lambda: held(server, "c") == [1, 2], "the others, in their order")
    until(lambda: count(server) == 0, "nothing to be left")
    assert outbox(server, "rm", "nonsense").returncode == 2
    assert server.unexpected("is parked", "failed") == []


def test_a_delayed_message_survives_drain_and_kill_and_can_be_sent_at_once_or_removed(serve):
    server = serve("transfers.py", settings=SETTINGS)
    for value in (1, 2, 3):
        server.result("Box", "a", "give_later", "b", value, 3600)
    server.result("Box", "a", "give_later", "b", 4, 1)
    assert server.stop() == 0
    server.start()
    server.kill()
    server.start()
    until(lambda: held(server, "b") == [4], "the one that was due")
    until(lambda: count(server) == 3, "it to be removed")
    first, second, third = listed(server)
    assert {m["state"] for m in (first, second, third)} == {"delayed"}
    assert outbox(server, "rm", str(second["id"])).returncode == 0
    assert outbox(server, "retry", str(third["id"])).returncode == 0
    until(lambda: held(server, "b") == [4, 3], "the one that was sent at once")
    until(lambda: count(server) == 1, "the other one to wait")
    assert [m["id"] for m in listed(server)] == [first["id"]]
    assert server.stop() == 0


def test_what_was_not_delivered_at_a_stop_arrives_after_the_next_start(serve):
    server = serve("transfers.py", settings=SETTINGS)
    names = [f"to-{number}" for number in range(30)]
    for name in names:
        server.result("Box", "a", "give", name, *range(10))
    assert server.stop() == 0
    server.start()
    until(lambda: all(held(server, name) == list(range(10)) for name in names), "everything")
    until(lambda: count(server) == 0, "nothing to be left")
    assert server.unexpected() == []
