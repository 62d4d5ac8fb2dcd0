"""The supervisor as a real process, over children that only keep their side of the control line."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from actord.server.children import TRANSITIONS as CHILD_TRANSITIONS
from actord.server.children import YOUNG_SECONDS, Backoff
from actord.server.children import State as ChildState
from actord.server.supervisor import TRANSITIONS, State
from actord.settings import Log, Server, Settings

from tests.support.processes import FakeServer, wait_until_gone

Start = Callable[..., FakeServer]


def settings(tmp_path: Path, **server: object) -> Settings:
    options = {"port": 0, "workers": 2, "data_dir": str(tmp_path / "data"), **server}
    return Settings(server=Server(**options))  # type: ignore[arg-type]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[FakeServer] = []

    def begin(front: str = "-", worker: str = "-", *, given: Settings | None = None, **server: object) -> FakeServer:
        servers.append(FakeServer(tmp_path, given or settings(tmp_path, **server), front=front, worker=worker))
        return servers[-1]

    yield begin
    for one in servers:
        one.close()


def test_children_are_told_what_they_need(start: Start, tmp_path: Path) -> None:
    server = start(workers=3, fronts=2)
    server.until("ready", count=5)
    boots = {report["who"]: report for report in server.events("boot")}
    assert sorted(boots) == ["front-0", "front-1", "worker-0", "worker-1", "worker-2"]
    assert all(all(report["sockets"]) and report["stdin"] == "/dev/null" for report in boots.values())
    for report in boots.values():
        boot = report["boot"]
        assert boot["supervisor"] == server.process.pid
        assert boot["shards"] == 3
        assert [link["shards"] for link in boot["links"]] == [[0], [1], [2]]
        assert os.stat(boot["runtime_dir"]).st_mode & 0o777 == 0o700
        assert all(os.stat(link["path"]).st_mode & 0o777 == 0o600 for link in boot["links"])
    worker = boots["worker-1"]["boot"]
    assert worker["own"] == [1]
    assert worker["data_dir"] == str(tmp_path / "data")
    assert worker["identity"] == boots["worker-0"]["boot"]["identity"]
    assert server.end()[0] == 0


def test_shards_are_dealt_round_robin_and_never_to_more_workers_than_there_are(start: Start, tmp_path: Path) -> None:
    given = settings(tmp_path, workers=2)
    given.storage.shards = 5
    server = start(given=given)
    server.until("ready", count=3)
    links = server.events("boot")[0]["boot"]["links"]
    assert [link["shards"] for link in links] == [[0, 2, 4], [1, 3]]
    assert server.end()[0] == 0

    server = start(workers=9)
    server.url()
    code, _, words = server.end()
    assert code == 0
    assert "5 workers are started, not 9" in words


def test_workers_are_pinned_unless_there_are_more_than_cores(start: Start) -> None:
    cores = sorted(os.sched_getaffinity(0))
    server = start(workers=1)
    assert server.until("boot", "worker-0")["boot"]["cpu"] == cores[0]
    server.end()
    server = start(workers=1, pin=False)
    assert server.until("boot", "worker-0")["boot"]["cpu"] is None
    server.end()


def test_more_workers_than_cores_are_not_pinned(start: Start) -> None:
    server = start(workers=len(os.sched_getaffinity(0)) + 1)
    assert server.until("boot", "worker-0")["boot"]["cpu"] is None
    server.end()


def test_the_address_stands_alone_on_standard_output_once_it_works(start: Start) -> None:
    server = start()
    url = server.url()
    host, port = url.removeprefix("http://").split(":")
    socket.create_connection((host, int(port)), timeout=30).close()
    code, out, words = server.end()
    assert (code, out) == (0, "")
    assert f"listening on {url}" in words
    assert f"curl --json '{{\"amount\": 1}}' {url}/actors/Account/alice/debit" in words


def test_json_logs_hold_nothing_but_json(start: Start, tmp_path: Path) -> None:
    given = settings(tmp_path)
    given.log = Log(format="json")
    server = start(given=given)
    url = server.url()
    code, _, words = server.end()
    assert code == 0
    records = [json.loads(line) for line in words.splitlines()]
    assert [record["urls"] for record in records if record["message"] == "listening"] == [[url]]
    assert {record["process"] for record in records} == {"supervisor"}


@pytest.mark.parametrize("who", ["worker-1", "front-0"])
def test_a_dead_child_is_replaced_at_once(start: Start, who: str) -> None:
    server = start()
    server.url()
    victim = server.until("ready", who)["pid"]
    os.kill(victim, signal.SIGKILL)
    assert server.until("ready", who)["pid"] != victim
    code, _, words = server.end()
    assert code == 0
    assert f"{who} was ended by SIGKILL; it is started again" in words


def test_the_delay_doubles_while_children_die_young() -> None:
    backoff = Backoff(1.0)
    assert [backoff.after(0.1) for _ in range(7)] == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert backoff.after(YOUNG_SECONDS) == 0
    assert backoff.after(0.1) == pytest.approx(0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fronts_have_left_before_workers_are_told_to(start: Start, number: signal.Signals) -> None:
    server = start(fronts=2)
    server.url()
    assert server.end(number)[0] == 0
    order = [r["who"].split("-")[0] for r in server.seen if r["event"] in ("drain", "leaves")]
    assert order == ["front"] * 4 + ["worker"] * 4
    for report in server.events("boot"):
        wait_until_gone(report["pid"])


def test_ctrl_c_reaches_the_supervisor_alone(start: Start) -> None:
    server = start()
    server.url()
    os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does
    assert server.wait()[0] == 0
    assert server.events("SIGINT") == []
    assert len(server.events("leaves")) == 3


def test_a_second_signal_ends_it_now(start: Start) -> None:
    server = start("stays", "stays", drain_limit=3600.0)
    server.url()
    server.process.send_signal(signal.SIGTERM)
    server.until("drain", "front-0")
    code, _, words = server.end(signal.SIGINT)
    assert code == 1
    assert "ending now" in words
    for report in server.events("boot"):
        wait_until_gone(report["pid"])


def test_the_drain_limit_ends_what_stays(start: Start) -> None:
    server = start("-", "stays", drain_limit=0.5)
    server.url()
    code, _, words = server.end()
    assert code == 1
    assert "not finished within 0.5 s" in words
    assert 0 < server.events("drain")[-1]["limit"] <= 0.5
    for report in server.events("boot"):
        wait_until_gone(report["pid"])


@pytest.mark.parametrize(("front", "worker", "who"), [("-", "mute", "worker-0"), ("mute", "-", "front-0")])
def test_a_child_that_answers_no_ping_is_asked_then_replaced(start: Start, front: str, worker: str, who: str) -> None:
    server = start(front, worker, workers=1, stuck_after=0.4)
    first = server.until("SIGUSR1", who)["pid"]
    second = server.until("boot", who)["pid"]
    assert first != second
    wait_until_gone(first)
    _, _, words = server.end()
    assert f"{who} has not answered for" in words
    assert f"{who} was ended by SIGKILL" in words


def test_children_that_answer_are_left_alone(start: Start) -> None:
    server = start(workers=1, stuck_after=0.4)
    server.url()
    # Stopped for longer than stuck_after: when it wakes, the clock has run on, but no ping was left unanswered.
    # (The sleep is the fault, not a wait for something.)
    os.kill(server.process.pid, signal.SIGSTOP)
    time.sleep(1.0)
    os.kill(server.process.pid, signal.SIGCONT)
    code, _, words = server.end()
    assert code == 0
    assert "has not answered" not in words
    assert len(server.events("boot")) == 2


def test_a_program_that_does_not_load_ends_the_first_start_with_its_words(start: Start) -> None:
    server = start("-", "fatal")
    code, out, words = server.wait()
    assert (code, out) == (78, "")
    assert "actord: the program does not load:\n  line 2\n" in words
    assert words.count("does not load") == 1


def test_a_child_that_dies_before_it_was_ready_ends_the_first_start(start: Start) -> None:
    code, out, words = start("dies", "-").wait()
    assert (code, out) == (1, "")
    assert "front-0 ended with exit code 3" in words


def test_later_on_a_program_that_does_not_load_is_tried_again(start: Start) -> None:
    server = start("-", "fatal-second", workers=1)
    server.url()
    os.kill(server.until("ready", "worker-0")["pid"], signal.SIGKILL)
    assert server.until("ready", "worker-0")["event"] == "ready"
    assert [report["life"] for report in server.events("boot") if report["who"] == "worker-0"] == [1, 2, 3]
    code, _, words = server.end()
    assert code == 0
    assert "does not load" in words


def test_a_child_that_says_nonsense_is_replaced_and_nobody_else(start: Start) -> None:
    server = start("-", "babbles", workers=1)
    server.url()
    os.kill(server.until("ready", "worker-0")["pid"], signal.SIGUSR1)
    assert server.until("boot", "worker-0")["life"] == 2
    server.until("ready", "worker-0")
    code, _, words = server.end()
    assert code == 0
    assert "can't be understood" in words
    assert [r["who"] for r in server.events("boot")].count("front-0") == 1


def test_a_supervisor_that_is_killed_leaves_no_orphan_and_no_lock(start: Start) -> None:
    server = start("mute", "mute")
    server.url()
    server.process.kill()
    server.wait()
    for report in server.events("boot"):
        wait_until_gone(report["pid"])
    successor = start()
    assert successor.url().startswith("http://")
    assert successor.end()[0] == 0


def test_what_a_worker_forked_ends_with_it(start: Start) -> None:
    server = start("-", "forks", workers=1)
    server.url()
    forked = server.until("forked")["child"]
    os.kill(server.seen[-1]["pid"], signal.SIGKILL)
    wait_until_gone(forked)
    assert server.end()[0] == 0


def test_a_second_server_on_one_data_directory_is_refused(start: Start) -> None:
    first = start()
    first.url()
    code, out, words = start().wait()
    assert (code, out) == (75, "")
    assert "in use" in words or "another server" in words.lower()
    assert first.end()[0] == 0


def test_stale_files_of_the_runtime_folder_are_removed(start: Start, tmp_path: Path) -> None:
    run = tmp_path / "data" / "run"
    first = start()
    first.url()
    first.process.kill()
    first.wait()
    assert (run / "worker-0.sock").exists()
    (run / "worker-77.sock").touch()
    second = start()
    second.url()
    assert sorted(path.name for path in run.iterdir()) == ["admin.sock", "worker-0.sock", "worker-1.sock"]
    assert second.end()[0] == 0
    assert list(run.iterdir()) == []


def test_a_long_path_of_data_gets_its_sockets_elsewhere(start: Start, tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-long-name-for-a-folder"] * 5)
    deep.mkdir(parents=True)
    server = start(data_dir=str(deep / "data"))
    runtime = Path(server.until("boot")["boot"]["runtime_dir"])
    server.url()
    assert len(str(runtime)) < 90
    assert runtime.stat().st_mode & 0o777 == 0o700
    assert server.end()[0] == 0
    assert not runtime.exists()


def test_the_table_of_a_childs_states_is_closed() -> None:
    assert {state for state, _ in CHILD_TRANSITIONS} == set(ChildState)
    assert {to for (state, _), to in CHILD_TRANSITIONS.items() if state is ChildState.ENDED} == {ChildState.ENDED}
    assert set(CHILD_TRANSITIONS.values()) | {ChildState.DOWN} == set(ChildState)


def test_the_table_of_the_servers_states_is_closed() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.STOPPED}
    assert set(TRANSITIONS.values()) | {State.STARTING} == set(State)
