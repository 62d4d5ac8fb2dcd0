"""What a client sees of a call that the front refuses because its worker has asked for that."""

from __future__ import annotations

import pytest
from actord.shards import shedding

from tests.support.front_process import Answer, FrontProcess

DETAIL = "Too many calls wait for this actor already."


def is_refused(answer: Answer) -> bool:
    if answer.status == 200:
        return False
    assert (answer.status, answer.headers["retry-after"], answer.headers["cache-control"]) == (503, "1", "no-store")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["date"]
    problem = answer.json
    assert (problem["name"], problem["applied"], problem["detail"]) == ("ActorOverloaded", "no", DETAIL)
    return True


@pytest.mark.parametrize(("name", "extra"), [("plain", ""), ("keyed", "Idempotency-Key: k\r\n")])
def test_the_worker_sees_nothing_of_it_and_the_connection_goes_on(front: FrontProcess, name: str, extra: str) -> None:
    with front.connect() as client:
        client.call("full", name=name)
        assert not is_refused(client.answer())
        before = front.counts()
        client.call("echo", b"1", name=name, extra=extra)
        assert is_refused(client.answer())
        client.call("echo?timing", b"1", name=name, extra=extra)
        assert is_refused(client.answer())
        assert front.counts() == before
        client.call("echo", b"2", name="another", extra=extra)
        assert client.answer().json == 2


def test_it_waits_for_the_answers_before_it(front: FrontProcess) -> None:
    with front.connect() as client, front.connect() as other:
        client.call("full", name="z")
        client.answer()
        client.call("hold", b"1", name="y")
        client.call("echo", b"2", name="z")
        client.call("echo", b"3", name="y")
        released = 0
        while not released:
            other.call("release")
            released = other.answer().json
        first, second, third = client.answers(3)
    assert first.json == 1
    assert is_refused(second)
    assert third.json == 3


def test_a_client_that_said_it_was_its_last_request_is_answered_and_let_go(front: FrontProcess) -> None:
    with front.connect() as client:
        client.call("full", name="w")
        client.answer()
        client.call("echo", b"1", name="w", extra="Connection: close\r\n")
        answer = client.answer()
        assert is_refused(answer)
        assert answer.headers["connection"] == "close"
        assert client.at_end()


def test_it_ends_by_itself(front: FrontProcess) -> None:
    with front.connect() as client:
        client.call("full", name="v")
        client.answer()
        refused = 0
        while True:
            client.call("echo", b"1", name="v")
            if not is_refused(client.answer()):
                break
            refused += 1
    assert refused, f"the worker's word holds for {shedding.SHED_SECONDS} s"
