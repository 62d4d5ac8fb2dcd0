"""``/-/metrics`` of a real server with two workers and two fronts: its figures are what was called."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from actord.server.admin import AdminClient
from actord.server.metric_names import METRICS

from tests.support.command import actord
from tests.support.prometheus import OPEN_METRICS, Scraped, scrape
from tests.support.server import Reply, Server, until

SETTINGS = {
    "server.workers": 2,
    "server.fronts": 2,
    "storage.shards": 2,
    "log.slow_call": 0.05,
    "metrics.listen": "127.0.0.1:0",
}
NAMES = [f"who-{number}" for number in range(12)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server("metered.py", tmp_path_factory.mktemp("metrics") / "data", settings=SETTINGS)
    with one:
        yield one


def own_port(server: Server) -> int:
    return int(server.wait_log("metrics on ")[0]["message"].partition("127.0.0.1:")[2].partition("/")[0])


def on_own_listener(server: Server, path: str = "/-/metrics", accept: str = "", method: str = "GET") -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", own_port(server), timeout=30)
    try:
        connection.request(method, path, headers={"Accept": accept} if accept else {})
        response = connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def scraped(server: Server) -> Scraped:
    return Scraped(on_own_listener(server))


@pytest.fixture(scope="module")
def used(server: Server) -> Scraped:
    """What the server says after exactly these calls."""
    for name in NAMES:
        for _ in range(3):
            server.result("Metered", name, "add")
        assert server.result("Metered", name, "total") == 3
    for _ in range(5):
        assert server.call("Metered", NAMES[0], "refuse").status == 409
    for _ in range(4):
        assert server.call("Metered", NAMES[1], "fail").status == 500
    for _ in range(2):
        assert server.call("Metered", NAMES[2], "no_such_method").status == 404
    assert server.request("POST", "/actors/Metered/x/add", b"{", {"Content-Type": "application/json"}).status == 400
    assert server.request("PUT", "/actors/Metered/x/add", b"").status == 405
    for _ in range(2):
        key = {"Idempotency-Key": "once", "Content-Type": "application/json"}
        assert server.request("POST", "/actors/Metered/keyed/add", b"", key).json() == 1
    assert server.request("GET", f"/say/{NAMES[6]}").body == b"said"
    assert server.request("GET", "/refuse").status == 404
    server.result("Metered", NAMES[3], "sleep", 0.15)
    server.result("Metered", NAMES[4], "arm")
    until(lambda: server.result("Metered", NAMES[4], "rang"), "the alarm")
    server.result("Metered", NAMES[5], "send_on", "receiver")
    until(lambda: server.result("Metered", "receiver", "total"), "the message")
    until(lambda: scraped(server).value("actord_messages_delivered_total") == 1, "the message's end")
    return scraped(server)


def test_calls_are_counted_by_type_method_and_outcome(used: Scraped) -> None:
    def calls(method: str, outcome: str) -> float:
        return used.value("actord_calls_total", type="Metered", method=method, outcome=outcome)

    assert calls("add", "ok") == 3 * len(NAMES) + 2  # the keyed one had one turn, and the message's
    assert calls("total", "ok") >= len(NAMES)
    assert (calls("refuse", "ok"), calls("refuse", "refused"), calls("refuse", "failed")) == (0, 5, 0)
    assert (calls("fail", "ok"), calls("fail", "refused"), calls("fail", "failed")) == (0, 0, 4)
    assert calls("alarm", "ok") == used.value("actord_alarms_fired_total") == 1
    assert used.value("actord_replayed_calls_total") == 1


def test_both_workers_and_both_fronts_say_their_part(used: Scraped) -> None:
    for process in ("worker-0", "worker-1", "front-0", "front-1", "supervisor"):
        assert used.value("actord_up", process=process) == 1
        assert used.value("actord_process_resident_memory_bytes", process=process) > 1 << 20
    for worker in ("worker-0", "worker-1"):
        assert used.value("actord_calls_total", process=worker, method="add") > 0
        assert used.value("actord_fsync_seconds_count", process=worker) > 0
        assert used.value("actord_database_bytes", process=worker) > 0
        assert used.value("actord_wal_bytes", process=worker) > 0
        assert used.value("actord_shard_up", process=worker) == 1


def test_histograms_hold_what_was_measured(used: Scraped) -> None:
    turns = used.value("actord_calls_total")
    for name in ("actord_call_seconds", "actord_call_queue_seconds", "actord_call_run_seconds"):
        assert used.value(f"{name}_count") == turns
    assert used.value("actord_call_run_seconds_sum", method="sleep") >= 0.1
    assert used.value("actord_call_run_seconds_bucket", method="sleep", le="0.1") == 0
    assert used.value("actord_call_run_seconds_bucket", method="sleep", le="10") == 1
    # Each of these calls has waited for a commit of its own or with others.
    assert used.value("actord_batch_calls_sum") == used.value("actord_commit_wait_seconds_count")
    assert used.value("actord_commit_wait_seconds_count") >= 3 * len(NAMES)
    assert used.value("actord_fsync_seconds_count") == used.value("actord_commits_total")
    assert used.value("actord_commit_wait_seconds_sum") >= used.value("actord_fsync_seconds_sum") / 2
    assert used.value("actord_event_loop_lag_seconds_count") > 0
    assert used.value("actord_alarm_lag_seconds_count") == 1


def test_refusals_are_counted_by_their_reason(used: Scraped) -> None:
    assert used.value("actord_refused_total", reason="ActorUnknownMethodError") == 2
    assert used.value("actord_refused_total", reason="MethodNotAllowed") == 1
    assert used.value("actord_refused_total", reason="BadRequest") == 1


def test_requests_of_the_front_door_are_counted_by_their_outcome(used: Scraped) -> None:
    def requests(outcome: str) -> float:
        return used.value("actord_front_door_requests_total", mount="", outcome=outcome)

    assert (requests("ok"), requests("refused"), requests("failed"), requests("gone")) == (1, 1, 0, 0)
    assert used.value("actord_front_door_seconds_count") == 2
    assert used.value("actord_calls_total", method="say") == 1


def test_instances_and_connections_are_counted(used: Scraped) -> None:
    count = len(NAMES) + 2  # keyed and receiver; what was refused brought nobody into memory
    assert used.value("actord_instances", type="Metered") == count
    assert used.value("actord_activations_total", type="Metered") == count
    assert used.value("actord_cache_bytes") > 0
    assert used.value("actord_accepted_connections_total") > 5 * len(NAMES)
    assert used.value("actord_received_bytes_total") > 100 * 5 * len(NAMES)
    assert used.value("actord_sent_bytes_total") > 100 * 5 * len(NAMES)


def test_a_slow_call_is_counted_and_told_with_where_its_time_went(server: Server, used: Scraped) -> None:
    [record] = [one for one in server.wait_log("a slow call") if one["method"] == "sleep"]
    assert used.value("actord_slow_calls_total") >= 1
    assert (record["type"], record["actor"], record["status"]) == ("Metered", NAMES[3], 200)
    assert record["run_ms"] >= 100
    assert record["queue_ms"] + record["commit_ms"] < record["run_ms"]


def test_no_actor_is_named_in_a_label_and_every_metric_is_one_of_the_table(used: Scraped) -> None:
    named = set(used.labels())
    assert not any(name in label for name in [*NAMES, "keyed", "no_such_method"] for label in named)
    known = {metric.name.removesuffix("_total") for metric in METRICS}
    assert {family.name.removesuffix("_total") for family in used.families} == known
    # every one of them was said by somebody, but for what has not happened
    silent = {metric.name for metric in METRICS if not used.all(metric.name) and metric.kind != "histogram"}
    assert silent == set()


def test_openmetrics_is_written_for_who_asks_for_it(server: Server) -> None:
    """Its parser is strict: types, names of counters, buckets, the end."""
    reply = on_own_listener(server, accept=OPEN_METRICS)
    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    found = Scraped(reply)
    assert {family.type for family in found.families} == {"counter", "gauge", "histogram"}
    plain = on_own_listener(server)
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert plain.body.count(b"# HELP ") == plain.body.count(b"# TYPE ") >= len(METRICS)


def test_the_own_listener_serves_nothing_but_the_systems_paths(server: Server) -> None:
    assert on_own_listener(server, "/-/health/live").status == 200
    assert on_own_listener(server, "/-/metrics", method="HEAD").body == b""
    assert on_own_listener(server, "/-/metrics", method="POST").status == 405
    assert on_own_listener(server, "/say/x").status == 404
    assert on_own_listener(server, "/actors/Metered/x/add", method="POST").status == 404


def test_with_an_own_listener_the_main_one_serves_no_metrics(server: Server) -> None:
    assert server.request("GET", "/-/metrics").status == 404


def test_the_admin_socket_serves_them_too(server: Server) -> None:
    with AdminClient(str(server.data_dir)) as client:
        [value] = client.ask("metrics", accept="")
    assert value["type"].startswith("text/plain")
    assert "# TYPE actord_calls_total counter" in value["text"]


def test_top_shows_one_look_to_a_program(server: Server, used: Scraped) -> None:
    done = actord("top", "--once", "--json", "--interval", "0.3", "--data-dir", server.data_dir)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["process"] for one in found["processes"]] == [
        "supervisor",
        "worker-0",
        "worker-1",
        "front-0",
        "front-1",
    ]
    assert all(one["up"] and one["memory_bytes"] > 1 << 20 for one in found["processes"])
    assert found["instances"] == {"Metered": used.value("actord_instances", type="Metered")}
    assert {"calls", "methods", "hottest"} <= found.keys()
    plain = actord("top", "--once", "--interval", "0.1", "--data-dir", server.data_dir).stdout
    assert "calls/s" in plain
    assert "worker-1" in plain


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell has its jobs in the background ignore it


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_top_on_a_terminal_ends_with_a_key_and_gives_the_terminal_back(server: Server, key: bytes) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-P", "-m", "actord.server.cli", "top", "--interval", "0.2"]
    top = subprocess.Popen(
        [*command, "--data-dir", server.data_dir],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_take_terminal,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    try:
        shown: list[bytes] = []
        until(lambda: shown.append(_available(ours)) or b"calls/s" in b"".join(shown), "the first look")
        os.write(ours, key)
        until(lambda: shown.append(_available(ours)) or top.poll() is not None, "its end")
        assert top.returncode == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        top.kill()
        top.wait()
        os.close(ours)
        os.close(theirs)


def _available(fd: int) -> bytes:
    """What can be read now."""
    return os.read(fd, 65536) if select.select([fd], [], [], 0)[0] else b""


def test_top_without_a_terminal_or_a_server_is_refused(server: Server, tmp_path: Path) -> None:
    assert actord("top", "--data-dir", server.data_dir).returncode == 2
    assert actord("top", "--json", "--data-dir", server.data_dir).returncode == 2
    nobody = actord("top", "--once", "--data-dir", tmp_path)
    assert nobody.returncode == 69
    assert "No server runs" in nobody.stderr


def test_a_worker_that_does_not_answer_is_shown_as_down_and_one_that_was_replaced_is_counted(server: Server) -> None:
    """Behind all others: it ends a worker."""
    pid = server.worker_of(0)
    os.kill(pid, signal.SIGSTOP)
    try:
        seen = scraped(server)
    finally:
        os.kill(pid, signal.SIGKILL)
    assert seen.value("actord_up", process="worker-0") == 0
    assert seen.value("actord_up", process="worker-1") == 1
    until(lambda: scraped(server).value("actord_up", process="worker-0") == 1, "the successor")
    assert scraped(server).value("actord_restarts_total", process="worker-0") == 1
    until(lambda: scraped(server).value("actord_shard_up", shard="0") == 1, "its shard")


def test_without_an_own_listener_they_are_on_the_loopback_address(tmp_path: Path) -> None:
    with Server("metered.py", tmp_path / "data", settings={"server.workers": 1}) as server:
        assert scrape(server).value("actord_up", process="worker-0") == 1
        assert json.loads(server.request("GET", "/-/version").body)["name"] == "actord"
