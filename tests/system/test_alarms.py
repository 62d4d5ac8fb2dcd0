"""Alarms of real servers: over kill -9, restart and eviction, with clocks that are set, and by the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from actord.shards.slots import SLOTS, slot_of
from actord.storage.api import Alarm, Batch
from actord.storage.datadir import open_data_dir
from actord.storage.sqlite import SqliteStore

from tests.support.command import actord
from tests.support.server import Server, until

LIBFAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def counts(server: Server, *names: str) -> list[int]:
    return [server.result("Timer", name, "count") for name in names]


def alarms(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    return actord("alarms", *words, "--data-dir", server.data_dir)


def listed(server: Server, *words: str) -> list[dict[str, object]]:
    done = alarms(server, "ls", "--json", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def never_early(server: Server, *names: str) -> None:
    for name in names:
        for scheduled, ran in server.result("Timer", name, "runs"):
            assert ran >= scheduled


def test_two_cycles_go_on_by_themselves_across_eviction_kill_9_and_restart(serve):
    server = serve("timers.py", settings={"server.workers": 2})
    names = "a", "b"
    for name in names:
        server.result("Timer", name, "every", 0.2)
    until(lambda: min(counts(server, *names)) >= 3, "three runs of each")
    for number in range(2):
        since = server.mark()
        before = counts(server, *names)
        server.kill_child(server.worker_of(number))
        server.wait_log(r"^worker-\d is ready$", since=since)
        until(
            lambda before=before: all(b >= a + 2 for a, b in zip(before, counts(server, *names), strict=True)), "more"
        )
    before = counts(server, *names)
    assert server.stop() == 0
    server.start()
    until(lambda: all(b >= a + 2 for a, b in zip(before, counts(server, *names), strict=True)), "runs after a restart")
    before = counts(server, *names)
    server.kill()
    server.start()
    until(lambda: all(b >= a + 2 for a, b in zip(before, counts(server, *names), strict=True)), "runs after kill -9")
    never_early(server, *names)
    assert server.unexpected("killed", "SIGKILL", "was ended") == []


def test_no_acknowledged_alarm_is_lost_by_kill_9_of_its_worker(serve):
    server = serve("timers.py", settings={"server.workers": 1})
    names = [f"n{number}" for number in range(40)]
    since = server.mark()
    for number, name in enumerate(names):
        server.result("Timer", name, "arm", 0.3)
        if number % 10 == 9:
            server.kill_child(server.worker_of(0))
            server.wait_log(r"^worker-0 is ready$", since=since, count=number // 10 + 1)
    until(lambda: min(counts(server, *names)) >= 1, "every alarm to have fired")
    never_early(server, *names)
    assert listed(server) == []


def make_overdue(data_dir: Path, names: list[str]) -> None:
    """As if the server had been away for long: the alarm of each name is due, in the order of the names."""
    directory = open_data_dir(str(data_dir), shards=1, ballast=0)
    store = SqliteStore.open(
        directory.shard_path(0),
        shard=0,
        identity=directory.identity,
        slots=range(SLOTS),
        checkpoint_wal=1 << 20,
        page_cache=1 << 20,
    )
    batch = Batch(store.commit_seq + 1)
    for number, name in enumerate(names):
        actor = store.find_actor(slot_of("Timer", name), "Timer", name)
        assert actor is not None
        batch.alarms[actor] = Alarm(due=1_000 + number, scheduled=1_000 + number)
    store.write(batch)
    store.sync()
    store.close()
    directory.close()


def test_overdue_alarms_run_in_due_order_a_few_at_a_time_and_calls_get_through(serve):
    takes, at_once = 0.05, 4
    server = serve("timers.py", settings={"server.workers": 1, "runtime.alarms_at_once": at_once})
    names = [f"n{number}" for number in range(100)]
    for name in names:
        server.result("Timer", name, "takes", takes)
    assert server.stop() == 0
    make_overdue(server.data_dir, names[::-1])
    server.start()
    calls = 0
    while server.result("Timer", names[0], "count") == 0:
        assert server.result("Stuck", "other", "ping") == "pong"
        calls += 1
    assert calls > 10
    until(lambda: min(counts(server, *names)) == 1, "all of them")
    runs = [server.result("Timer", name, "runs")[0] for name in names[::-1]]
    assert [scheduled for scheduled, _ in runs] == pytest.approx([1 + number / 1000 for number in range(len(names))])
    began = [ran for _, ran in runs]
    assert began == sorted(began)
    # A run lasts for ``takes`` at least: so many later the first of any five has ended.
    # (The loop counts whole milliseconds.)
    assert all(later - first >= takes - 0.005 for first, later in zip(began, began[at_once:], strict=False))


@pytest.mark.skipif(LIBFAKETIME is None, reason="libfaketime is not installed (apt-get install faketime)")
def test_when_the_wall_clock_jumps_alarms_are_neither_early_nor_late(serve, tmp_path):
    clock = tmp_path / "clock"

    def set_clock(offset: str) -> None:
        (tmp_path / "new").write_text(offset)
        os.replace(tmp_path / "new", clock)

    set_clock("+0")
    server = serve(
        "timers.py",
        settings={"server.workers": 1},
        environment={
            "LD_PRELOAD": str(LIBFAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        },
    )
    server.result("Timer", "forward", "arm", 3600)
    server.result("Timer", "back", "arm", 7200)
    set_clock("+3601")
    until(lambda: counts(server, "forward") == [1], "the alarm that the jump made due")
    assert counts(server, "back") == [0]
    server.result("Timer", "soon", "arm", 1)
    set_clock("+0")  # an hour back: what was a second away is an hour away
    due = server.result("Timer", "soon", "due")
    for _ in range(3):  # it has looked at the clock again since
        before = counts(server, "beat")[0]
        server.result("Timer", "beat", "arm", 0.5)
        until(lambda before=before: counts(server, "beat")[0] > before, "a later alarm")
    assert counts(server, "soon", "back") == [0, 0]
    assert server.result("Timer", "soon", "due") == due
    set_clock("+7300")
    until(lambda: counts(server, "soon", "back") == [1, 1], "both")
    never_early(server, "forward", "back", "soon", "beat")


def test_failed_alarms_are_listed_re_armed_fired_and_removed_by_the_command_line(serve):
    server = serve("timers.py", settings={"server.workers": 2})
    names = [f"ünlucky {number}" for number in range(4)]
    for name in names:
        server.result("Unlucky", name, "arm")
    server.wait_log("is kept as failed", count=4)
    server.result("Timer", "later", "arm", 3600)
    found = listed(server, "--failed")
    assert sorted(str(entry["name"]) for entry in found) == names
    assert all("no luck today" in str(entry["error"]) and entry["retries"] == 1 for entry in found)
    assert listed(server, "--failed", "--type", "Timer") == []
    [armed] = listed(server)
    assert (armed["type"], armed["name"]) == ("Timer", "later")
    text = alarms(server, "ls", "--failed").stdout
    assert f"Unlucky/{names[0]}" in text
    assert "no luck today" in text

    server.kill()
    server.start()
    assert len(listed(server, "--failed")) == 4, "they outlive a kill"

    assert alarms(server, "rm", f"Unlucky/{names[0]}").returncode == 0
    again = alarms(server, "rm", f"Unlucky/{names[0]}")
    assert (again.returncode, "has no alarm" in again.stderr) == (1, True)
    for name in names[1:]:
        server.result("Unlucky", name, "become_lucky")
    assert alarms(server, "retry", f"Unlucky/{names[1]}").returncode == 0
    until(lambda: server.result("Unlucky", names[1], "fired") == 0, "the retry")
    not_failed = alarms(server, "retry", "Timer/later")
    assert (not_failed.returncode, "no failed alarm" in not_failed.stderr) == (1, True)
    every = alarms(server, "retry", "--all", "--type", "Unlucky")
    assert (every.returncode, "2 armed again" in every.stderr) == (0, True)
    until(lambda: all(server.result("Unlucky", name, "fired") == 0 for name in names[1:]), "all of them")
    assert alarms(server, "run", "Timer/later").returncode == 0
    until(lambda: counts(server, "later") == [1], "the one fired by hand")
    assert listed(server) == listed(server, "--failed") == []
    assert server.stop() == 0
    gone = alarms(server, "ls")
    assert (gone.returncode, gone.stdout) == (69, "")
    assert "No server runs" in gone.stderr


def test_alarms_of_a_type_that_the_program_lost_are_kept_and_can_be_removed(serve, tmp_path):
    server = serve("timers.py", settings={"server.workers": 1})
    server.result("Timer", "a", "arm", 0.5)
    server.result("Timer", "b", "arm", 3600)
    assert server.stop() == 0
    without = tmp_path / "app.py"
    without.write_text(
        "from actord import StatefulActor\n\n\nclass Other(StatefulActor):\n"
        "    async def ping(self) -> str:\n        return 'pong'\n"
    )
    other = Server(without, server.data_dir, settings={"server.workers": 1})
    try:
        other.start()
        [record] = other.wait_log("no such type")
        assert record["level"] == "error"
        assert [entry["name"] for entry in listed(other)] == ["a", "b"]
        assert alarms(other, "rm", "Timer/b").returncode == 0
        assert alarms(other, "run", "Timer/a").returncode == 1
        assert other.stop() == 0
    finally:
        other.close()
    server.start()
    until(lambda: counts(server, "a") == [1], "the alarm whose type is back")
    assert counts(server, "b") == [0]


@pytest.mark.parametrize(
    "words",
    [["run"], ["run", "nothing"], ["rm", "/x"], ["retry"], ["retry", "A/b", "--type", "A"], ["ls", "--limit", "0"]],
)
def test_a_command_that_can_not_be_meant_exits_with_2(words, tmp_path):
    assert actord("alarms", *words, "--data-dir", tmp_path).returncode == 2


def test_the_admin_socket_is_for_the_servers_user_alone_at_a_path_of_any_length(serve, tmp_path):
    folder = tmp_path.joinpath(*["a-long-name-for-a-folder"] * 5)
    folder.mkdir(parents=True)
    server = serve("timers.py", settings={"server.workers": 1}, data_dir=folder / "data")
    path = folder / "data" / "run" / "admin.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert listed(server) == []
    assert server.stop() == 0
    assert not path.exists()
    shutil.rmtree(folder)
