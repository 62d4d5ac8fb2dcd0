"""A job is tried until it works, over kills of the server too; one that never works ends in a state that shows."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from itertools import pairwise
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
from actord import ActorError

from examples.job import Job
from tests.examples.running import Alone, serving
from tests.support.server import PATIENCE_SECONDS, Server, until

URL = "http://receiver.example/hook"
# The same job in a hurry, so that the test need not wait.
HASTY = """
class Hasty(Job):
    max_attempts = 4
    first_delay = 0.05
"""


class Receiver:
    """Answers each request with the next of its statuses, and goes on with the last one."""

    def __init__(self) -> None:
        self.answers: list[int] = [204]
        self.got: queue.Queue[tuple[str, Any]] = queue.Queue()  # idempotency key and event
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answers = receiver.answers
                status = answers.pop(0) if len(answers) > 1 else answers[0]
                receiver.got.put((self.headers["Idempotency-Key"], event))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def wait(self) -> tuple[str, Any]:
        return self.got.get(timeout=PATIENCE_SECONDS)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("job"), "job", HASTY) as server:
        yield server


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Alone:
    return Alone(Job, monkeypatch)


def failing(job: Alone, monkeypatch: pytest.MonkeyPatch, *outcomes: Exception | None) -> list[Any]:
    """The job's deliveries go nowhere and have these outcomes; returns when each of them was made."""
    times: list[Any] = []

    def deliver(url: str, event: Any) -> None:
        outcome = outcomes[min(len(times), len(outcomes) - 1)]
        times.append(job.now)
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(job.actor, "_deliver", deliver)
    return times


def http_error(status: int) -> HTTPError:
    return HTTPError(URL, status, "no", {}, BytesIO())  # type: ignore[arg-type]


def test_each_wait_is_twice_the_one_before_and_none_is_without_end(job: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "longest_delay", 20.0)
    times = failing(job, monkeypatch, URLError("away"))
    job.do(job.actor.submit(URL, {}))
    assert job.advance(days=1) == 8
    waits = [(after - before) / timedelta(seconds=1) for before, after in pairwise(times)]
    for wait, base in zip(waits, (1, 2, 4, 8, 16, 20, 20), strict=True):
        assert base <= wait <= base * 1.25


def test_a_job_that_never_works_ends_as_failed_and_says_why(job: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    times = failing(job, monkeypatch, ConnectionResetError("gone"))
    job.do(job.actor.submit(URL, {}))
    job.advance(days=1)
    assert job.do(job.actor.status()) == {
        "state": "failed",
        "attempts": 8,
        "error": "ConnectionResetError: gone",
        "next_attempt": None,
    }
    assert job.advance(days=1) == 0
    assert len(times) == 8


def test_a_failed_job_can_be_tried_again(job: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(job, monkeypatch, *[OSError("gone")] * 8, None)
    job.do(job.actor.submit(URL, {}))
    with pytest.raises(ActorError, match="the job is waiting"):
        job.do(job.actor.retry())
    job.advance(days=1)
    assert job.do(job.actor.retry())["state"] == "waiting"
    job.advance(seconds=1)
    assert job.do(job.actor.status()) == {"state": "done", "attempts": 1, "error": None, "next_attempt": None}


@pytest.mark.parametrize(
    ("status", "state"), [(400, "failed"), (410, "failed"), (408, "done"), (429, "done"), (500, "done")]
)
def test_only_what_may_change_is_tried_again(
    job: Alone, monkeypatch: pytest.MonkeyPatch, status: int, state: str
) -> None:
    failing(job, monkeypatch, http_error(status), None)
    job.do(job.actor.submit(URL, {}))
    job.advance(days=1)
    assert job.do(job.actor.status())["state"] == state


def test_submitting_twice_is_submitting_once(job: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    times = failing(job, monkeypatch, None)
    job.do(job.actor.submit(URL, {"n": 1}))
    job.advance(seconds=1)
    assert job.do(job.actor.submit(URL, {"n": 2}))["state"] == "done"
    assert job.advance(days=1) == 0
    assert len(times) == 1


def test_a_url_that_is_none_fails_at_once(job: Alone) -> None:
    job.do(job.actor.submit("http://[::1", {}))
    job.advance(seconds=1)
    assert job.do(job.actor.status())["error"] == "ValueError: Invalid IPv6 URL"
    assert job.do(job.actor.status())["state"] == "failed"


def test_a_job_nobody_submitted_and_a_url_of_another_kind_are_refused(hasty: Server) -> None:
    unknown = hasty.call("Hasty", "job 1", "status")
    assert (unknown.status, unknown.json()["code"]) == (404, "unknown_job")
    assert hasty.call("Hasty", "job 1", "submit", "file:///etc/passwd", {}).json()["name"] == "ActorArgumentError"
    assert hasty.call("Hasty", "job 1", "status").status == 404


def test_an_inbox_takes_an_event_once_that_was_sent_twice(hasty: Server) -> None:
    inbox = "/actors/Inbox/ana/fetch/"
    for body in (b'{"n": 1}', b'{"n": 2}'):
        assert hasty.request("POST", inbox, body, {"Idempotency-Key": "a"}).status == 204
    assert hasty.request("POST", inbox, b"{}").status == 400
    hasty.result("Hasty", "Auftrag für 阿娜\n", "submit", f"http://127.0.0.1:{hasty.port}{inbox}", {"n": 3})
    until(lambda: len(hasty.result("Inbox", "ana", "events")) == 2, "the event")
    events = hasty.result("Inbox", "ana", "events")
    assert events == {"a": {"n": 1}, "Auftrag%20f%C3%BCr%20%E9%98%BF%E5%A8%9C%0A": {"n": 3}}


def test_a_job_is_done_when_the_receiver_takes_it_after_all(hasty: Server, receiver: Receiver) -> None:
    receiver.answers = [503, 500, 204]
    submitted = hasty.result("Hasty", "job 2", "submit", receiver.url, {"order": 17})
    assert (submitted["state"], submitted["attempts"]) == ("waiting", 0)
    assert [receiver.wait() for _ in range(3)] == [("job%202", {"order": 17})] * 3
    until(lambda: hasty.result("Hasty", "job 2", "status")["state"] == "done", "the job to be done")
    assert hasty.result("Hasty", "job 2", "status")["attempts"] == 3


def test_attempts_go_on_where_they_were_after_kills_of_the_server(hasty: Server, receiver: Receiver) -> None:
    receiver.answers = [503, 503, 503, 204]
    hasty.result("Hasty", "job 3", "submit", receiver.url, {})
    for _ in range(2):
        receiver.wait()
        hasty.kill()  # in the middle of an attempt, or while it waits for the next
        hasty.start()
    until(lambda: hasty.result("Hasty", "job 3", "status")["state"] != "waiting", "the job to end")
    status = hasty.result("Hasty", "job 3", "status")
    assert status["state"] == "done"
    # An attempt that a kill cut short is made again and counted once.
    assert 2 <= status["attempts"] <= 4


def test_a_job_that_keeps_failing_is_seen_to_have_failed(hasty: Server, receiver: Receiver) -> None:
    receiver.answers = [503]
    hasty.result("Hasty", "job 4", "submit", receiver.url, {})
    for _ in range(2):
        receiver.wait()
    hasty.kill()
    hasty.start()
    until(lambda: hasty.result("Hasty", "job 4", "status")["state"] == "failed", "the job to fail")
    status = hasty.result("Hasty", "job 4", "status")
    assert status == {
        "state": "failed",
        "attempts": 4,
        "error": "HTTPError: HTTP Error 503: Service Unavailable",
        "next_attempt": None,
    }
    # Attempts before the kill count; one that it cut short was made again.
    assert receiver.got.qsize() in (2, 3)
    receiver.answers = [204]
    hasty.result("Hasty", "job 4", "retry")
    until(lambda: hasty.result("Hasty", "job 4", "status")["state"] == "done", "the job to be done")
