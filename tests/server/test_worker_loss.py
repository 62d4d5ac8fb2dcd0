"""Workers that are killed behind a front, and a front that drains."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.front_process import FrontProcess


def test_calls_not_begun_go_to_the_successor_and_begun_ones_are_answered_unknown(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front, front.connect() as begun, front.connect() as waiting:
        begun.call("hold", b"[1]")
        waiting.call("queue", b"[2]")
        front.wait_for_counts(call=2)
        front.kill_worker()
        answer = begun.answer()
        assert (answer.status, answer.json["name"], answer.json["applied"]) == (503, "ActorUnavailable", "unknown")
        assert "retry-after" not in answer.headers
        front.start_worker()
        front.wait_for_counts(call=1)  # the successor got the one that had not begun, and only that
        assert front.counts()["call"] == 1
        with front.connect() as other:
            other.call("release")
            assert other.answer().json == 1
        assert waiting.answer().body == b"[2]"
        begun.call("echo", b"[3]")
        assert begun.answer().body == b"[3]"


def test_calls_sent_again_keep_their_order(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front, front.connect() as client:
        for number in range(20):
            client.call("queue", b"%d" % number)
        front.wait_for_counts(call=20)
        front.kill_worker()
        client.call("queue", b"20")  # while there is no worker
        front.start_worker()
        front.wait_for_counts(call=21)
        with front.connect() as other:
            other.call("release")
            other.answer()
        assert [answer.body for answer in client.answers(21)] == [b"%d" % number for number in range(21)]


def test_without_a_successor_a_call_is_answered_at_its_deadline(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front, front.connect() as client:
        front.kill_worker()
        client.call("echo", extra="Actord-Timeout: 0.5\r\n")
        answer = client.answer()
        assert (answer.status, answer.json["applied"], answer.headers["retry-after"]) == (503, "no", "1")
        client.get("/-/health/ready")
        assert client.answer().status == 503


def test_the_front_door_avoids_a_worker_that_is_down(tmp_path: Path) -> None:
    with FrontProcess(tmp_path, workers=2, front_door=True) as front, front.connect() as client:
        front.kill_worker(1)
        client.get("/-/health/ready")
        while client.answer().status == 200:  # until the front has seen it
            client.get("/-/health/ready")
        for _ in range(6):
            client.get("/hello")
            assert client.answer().status == 200


def test_drain_finishes_what_is_under_way_and_exits(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front:
        busy, idle, half, other = (front.connect() for _ in range(4))
        for client in (idle, other):
            client.get("/-/health/live")
            client.answer()
        busy.call("hold", b"[1]")
        busy.call("hold", b"[2]")
        other.call("queue", b"[0]")
        half.send(b"POST /actors/Canary/x/release HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
        front.wait_for_counts(call=3)
        fresh = front.connect()
        front.tell({"ping": 1})
        assert front.hear() == {"pong": 1}
        front.tell({"drain": 20})
        assert idle.at_end()
        fresh.get("/-/health/live")  # it was on its way: who has only just come may ask once
        answer = fresh.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        with pytest.raises(ConnectionError):
            front.connect()
        half.send(b"Content-Length: 0\r\n\r\n")  # it had begun to arrive: it is finished
        answer = half.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert half.at_end()
        answers = busy.answers(2)
        assert [answer.body for answer in answers] == [b"[1]", b"[2]"]
        assert [answer.headers.get("connection") for answer in answers] == [None, "close"]
        assert busy.at_end()
        answer = other.answer()
        assert (answer.body, answer.headers["connection"]) == (b"[0]", "close")
        for client in (busy, idle, half, other, fresh):
            client.sock.close()
        assert front.process.wait(20) == 0


def test_a_second_drain_ends_the_front_at_once(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front, front.connect() as client:
        client.call("hold")
        front.wait_for_counts(call=1)
        front.tell({"drain": 1000})
        front.tell({"ping": 1})
        assert front.hear() == {"pong": 1}
        assert front.process.poll() is None
        front.tell({"drain": 1000})
        assert front.process.wait(20) == 0


def test_the_limit_of_a_drain_ends_it(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front, front.connect() as client:
        client.call("hold")
        front.wait_for_counts(call=1)
        front.tell({"drain": 0.2})
        assert front.process.wait(20) == 0


def test_the_front_ignores_signals_that_are_meant_for_the_supervisor(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front, front.connect() as client:
        for number in (signal.SIGINT, signal.SIGTERM):
            front.process.send_signal(number)
        client.call("echo", b"[1]")
        assert client.answer().body == b"[1]"


def test_the_front_leaves_when_the_control_line_closes(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front:
        front.control.close()
        front._lines.close()
        assert front.process.wait(20) == 0


def test_an_idle_front_is_small(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front:
        status = Path(f"/proc/{front.process.pid}/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        assert resident <= 60 * 1024
