"""Idempotency keys over HTTP, on a real server: a call takes effect once, whoever dies in between."""

from __future__ import annotations

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor

from actord import codec

from tests.support.server import Server, call_path, connect, until

SETTINGS = {"server.workers": 1, "server.restart_delay_max": 0.2}
JSON = {"Content-Type": "application/json"}
ROUNDS = 60 if os.environ.get("ACTORD_TEST_LONG") else 6


def keyed(server: Server, key: str, type_: str, name: str, method: str, *args, headers=JSON):
    body = json.dumps(args).encode()
    return server.request("POST", call_path(type_, name, method), body, {**headers, "Idempotency-Key": key})


def replayed(reply) -> bool:
    return reply.headers.get("idempotent-replayed") == "true"


def test_a_reply_comes_again_after_kill_9_of_everything_and_after_a_clean_restart(serve):
    server = serve("probe.py", settings=SETTINGS)
    first = keyed(server, "k", "Probe", "a", "add", 5)
    assert (first.status, first.json(), replayed(first)) == (200, 5, False)
    server.kill()
    server.start()
    again = keyed(server, '"k"', "Probe", "a", "add", 5)  # the quoted form is the same key
    assert (again.status, again.body, replayed(again)) == (200, first.body, True)
    assert again.headers["content-type"] == "application/json"
    assert again.headers["cache-control"] == "no-store"
    assert server.stop() == 0
    server.start()
    assert replayed(keyed(server, "k", "Probe", "a", "add", 5))
    other = keyed(server, "k", "Probe", "a", "add", 6)
    assert (other.status, other.json()["name"], other.json()["applied"]) == (422, "IdempotencyKeyReused", "no")
    assert server.result("Probe", "a", "get", "sum") == 5


def test_msgpack_timing_and_deadlines_go_with_a_key(serve):
    server = serve("probe.py", settings=SETTINGS)
    for _ in range(2):
        body = codec.encode([2])
        headers = {"Content-Type": "application/msgpack", "Idempotency-Key": "k", "Actord-Timeout": "20"}
        reply = server.request("POST", call_path("Probe", "a", "add") + "?timing", body, headers)
        assert codec.decode(reply.body) == 2
        assert reply.headers["content-type"] == "application/msgpack"
        assert "server-timing" in reply.headers
    assert replayed(reply)
    for bad in ("", '"open', "x" * 256, "caf\xe9"):
        reply = server.request("POST", call_path("Probe", "a", "add"), b"[1]", {**JSON, "Idempotency-Key": bad})
        assert (reply.status, reply.json()["name"]) == (400, "BadRequest")
        assert "UUID" in reply.json()["detail"]
    assert server.result("Probe", "a", "get", "sum") == 2


def test_fetch_gets_the_header_and_nothing_is_stored(serve):
    server = serve("probe.py", settings=SETTINGS)
    replies = [server.request("GET", "/actors/Probe/a/fetch/x", None, {"Idempotency-Key": "k"}) for _ in range(2)]
    assert not any(map(replayed, replies))


def test_a_begun_call_is_answered_once_although_its_worker_died(serve, fifo, tmp_path):
    server = serve("probe.py", settings=SETTINGS)
    go = str(tmp_path / "go")
    os.mkfifo(go)
    with ThreadPoolExecutor(4) as pool:
        running = pool.submit(keyed, server, "k", "Probe", "a", "wait_for", fifo.path, go)
        fifo.wait()
        attached = pool.submit(keyed, server, "k", "Probe", "a", "wait_for", fifo.path, go)
        server.kill_child(server.worker_of(0))
        fifo.wait()  # it runs again, in the successor
        with open(go, "w"):
            pass
        replies = [running.result(), attached.result()]
    assert [(reply.status, reply.json()) for reply in replies] == [(200, "waited")] * 2
    assert sorted(map(replayed, replies)) == [False, True]


def test_a_client_that_hangs_up_gets_the_reply_of_its_call_when_it_comes_again(serve, fifo, tmp_path):
    server = serve("probe.py", settings=SETTINGS)
    go = str(tmp_path / "go")
    os.mkfifo(go)
    body = json.dumps([fifo.path, go])
    head = f"POST {call_path('Probe', 'a', 'wait_for')} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    with connect(server.port) as connection:
        connection.sendall(f"{head}Idempotency-Key: k\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        fifo.wait()
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(keyed, server, "k", "Probe", "a", "wait_for", fifo.path, go)
        with open(go, "w"):
            pass
        assert replayed(again.result())


def test_every_keyed_call_takes_effect_exactly_once_while_workers_are_killed(serve):
    """Nobody tries again but the server: each call is answered 200, once, and stands in the ledger once."""
    server = serve("ledger.py", settings={"server.workers": 2, "server.restart_delay_max": 0.05})
    lot = random.Random(20_261_122)
    answered = []

    def client(number: int) -> None:
        for i in range(10_000):
            if len(kills) == ROUNDS:
                return
            name, mark = f"l{number % 3}", f"{number}-{i}"
            reply = keyed(server, mark, "Ledger", name, "deposit", mark, 1)
            answered.append((name, mark, reply))

    kills: list[int] = []
    with ThreadPoolExecutor(12) as pool:
        clients = [pool.submit(client, number) for number in range(12)]
        for _ in range(ROUNDS):
            before = len(answered)
            until(lambda before=before: len(answered) > before + 40, "calls to be answered")
            server.kill_child(lot.choice(server.children("worker")).pid)
            until(lambda: len(server.children("worker")) == 2, "the successor")
            kills.append(1)
        for each in clients:
            each.result()
    assert {reply.status for _, _, reply in answered} == {200}
    for name in ("l0", "l1", "l2"):
        said = {mark: reply.json()["number"] for of, mark, reply in answered if of == name}
        count, found, after = 0, {}, ""
        while page := server.result("Ledger", name, "statement", after):
            count = page["count"]
            if not page["marks"]:
                break
            found |= {mark: number for mark, (number, _) in page["marks"].items()}
            after = max(page["marks"])
        assert found == said
        assert sorted(found.values()) == list(range(1, count + 1))
    for name, mark, reply in lot.sample(answered, 20):
        again = keyed(server, mark, "Ledger", name, "deposit", mark, 1)
        assert (again.body, replayed(again)) == (reply.body, True)
    assert server.unexpected(r"was ended by SIGKILL; it is started again$") == []


def test_a_worker_that_a_call_kills_again_and_again_is_not_killed_for_ever(serve):
    server = serve("probe.py", settings=SETTINGS | {"server.restart_delay_max": 0.02})
    reply = keyed(server, "k", "Probe", "a", "die")
    assert (reply.status, reply.json()["applied"]) == (503, "unknown")
    assert len(server.wait_log(r"worker-0 .*; it is started again$", count=6)) == 6
    assert server.result("Probe", "a", "add", 1) == 1
