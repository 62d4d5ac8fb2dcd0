"""The front door calls actors in its own worker and in the other one."""

from __future__ import annotations


def test_the_front_door_reaches_actors_of_its_own_worker_and_of_the_other(serve):
    server = serve("probe.py", settings={"server.workers": 2, "storage.shards": 2})
    pairs = set()
    for number in range(24):
        here, there = server.request("GET", f"/where/n{number}").json()
        pairs.add((here, there))
    workers = {child.pid for child in server.children("worker")}
    assert pairs == {(here, there) for here in workers for there in workers}
    for number in range(8):  # by turns through either worker
        assert server.request("GET", "/sum/same").json() == number + 1
    assert server.result("Probe", "same", "get", "sum") == 8


def test_a_refusal_of_an_actor_passes_the_front_door_whole(serve):
    server = serve("probe.py", settings={"server.workers": 2, "storage.shards": 2})
    for _ in range(4):
        reply = server.request("GET", "/refuse/x")
        problem = reply.json()
        assert (reply.status, problem["name"], problem["code"]) == (409, "ActorError", "insufficient")
        assert problem["data"] == {"balance": 3, "of": ["a", None]}
        assert problem["applied"] == "no"
    reply = server.request("GET", "/fail")
    assert (reply.status, reply.json()["name"], reply.json()["applied"]) == (500, "ActorMethodError", "no")
    assert reply.headers["content-type"] == "application/problem+json"


def test_the_front_door_waits_for_a_worker_that_is_being_replaced(serve):
    server = serve("probe.py", settings={"server.workers": 2, "storage.shards": 2, "server.restart_delay_max": 0.2})
    for expected, shard in enumerate((0, 1)):
        server.kill_child(server.worker_of(shard))
        for number in range(4):
            assert server.request("GET", f"/sum/n{number}").json() == expected + 1
