"""`actord ls` and `actord inspect`, over one server and over its directory once it has stopped."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import actord
from tests.support.server import Server

STRANGE = "x\x1b[31m\ny \u202e"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of one worker with four shards."""
    data = tmp_path_factory.mktemp("inspect") / "data"
    server = Server("looked.py", data, settings={"server.workers": 1, "storage.shards": 4})
    try:
        server.start()
        assert server.call("Desk", "full", "fill").status == 200
        assert server.call("Desk", "full", "add", 5).status == 200
        assert server.call("Desk", "full", "send_later", "eu-1").status == 200
        for name in ("eu-1", "eu-2", "us-1", STRANGE):
            assert server.call("Desk", name, "add", 1).status == 200
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def stopped(server: Server) -> Path:
    """A copy of its directory, as a kill of the server at this moment would leave it."""
    copy = server.data_dir.with_name("copy")
    shutil.copytree(server.data_dir, copy, ignore=shutil.ignore_patterns("run", "lock"))
    return copy


def shown(*words: str | Path) -> Any:
    run = actord(*words, "--json")
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    return lines


LISTINGS: list[tuple[list[str], list[Any], str]] = [
    ([], [{"type": "Desk", "actors": 5}], ""),
    (["Desk"], ["eu-1", "eu-2", "full", "us-1", STRANGE], ""),
    (["Desk", "--prefix", "eu-"], ["eu-1", "eu-2"], ""),
    (["Desk", "--limit", "2"], ["eu-1", "eu-2"], "there are more"),
    (["Desk", "--limit", "2", "--after", "eu-2"], ["full", "us-1"], "there are more"),
    (["Nothing"], [], ""),
]


@pytest.mark.parametrize(("words", "expected", "said"), LISTINGS, ids=[" ".join(row[0]) for row in LISTINGS])
def test_ls_shows_the_same_of_a_running_server_and_of_stopped_data(
    server: Server, stopped: Path, words: list[str], expected: list[Any], said: str
) -> None:
    for place in (server.data_dir, stopped):
        run = actord("ls", *words, "--json", "--data-dir", place)
        assert run.returncode == 0
        found = [json.loads(line) for line in run.stdout.splitlines()]
        assert found == (expected if not words else [{"type": words[0], "name": name} for name in expected])
        assert said in run.stderr
        assert (said == "") == (run.stderr == "")


def test_ls_prints_what_a_terminal_would_act_upon_escaped(stopped: Path) -> None:
    for words in ([], ["--json"]):
        run = actord("ls", "Desk", "--prefix", "x", "--data-dir", stopped, *words)
        assert run.stdout.isascii()
        assert "\x1b" not in run.stdout
        assert run.stdout.count("\n") == 1
    run = actord("inspect", f"Desk/{STRANGE}", "--data-dir", stopped)
    assert run.stdout.startswith("Desk/x\\x1b[31m\\ny \\u202e\n")


def test_inspect_shows_everything_that_is_stored(server: Server, stopped: Path) -> None:
    [running] = shown("inspect", "Desk/full", "--data-dir", server.data_dir)
    [resting] = shown("inspect", "Desk/full", "--data-dir", stopped)
    assert resting["server"] is None
    assert running["stored"] == resting["stored"]
    stored = resting["stored"]
    values = {item["key"]: (item["type"], item["value"]) for item in stored["keys"]["shown"]}
    assert values == {
        "balance": ("int", 35),
        "opened": ("datetime", "2026-01-02T00:00:00Z"),
        "price": ("Decimal", "9.90"),
        "tags": ("set", ["a"]),
        "text": ("str", "line\n\x1b[31mred"),
        "worst": ("float", "nan"),
    }
    assert stored["keys"]["count"] == 6
    assert stored["sql"]["tables"] == [
        {"name": "entry", "rows": 3, "columns": ["id", "what"]},
        {"name": "spare", "rows": 0, "columns": ["x"]},
    ]
    assert stored["alarm"]["due"] == "2100-01-01T00:00:00.000Z"
    assert stored["events"] == {"first": 1, "last": 2, "kept": 2, "bytes": 26}
    assert stored["messages"] == {"sent": 1, "parked": 0, "coming": 0}
    assert stored["idempotency_keys"]["count"] == 0
    assert stored["version"] == 1
    assert stored["bytes"] == stored["keys"]["bytes"] + stored["sql"]["bytes"] + 26 + 4
    [other] = shown("inspect", "Desk/eu-1", "--keys", "0", "--data-dir", stopped)
    assert other["stored"]["messages"]["coming"] == 1
    assert other["stored"]["keys"]["shown"] == []


def test_inspect_shows_the_last_calls_of_an_actor_in_memory(server: Server) -> None:
    [found] = shown("inspect", "Desk/full", "--data-dir", server.data_dir)
    live = found["server"]
    assert live["in_memory"]
    assert [call["method"] for call in live["calls"]] == ["fill", "add", "send_later"]
    for call in live["calls"]:
        assert call["status"] == 200
        assert min(call["waited_ms"], call["ran_ms"], call["committed_ms"]) >= 0
    assert (live["mailbox"], live["running"], live["sockets"], live["error"]) == (0, None, 0, None)


def test_inspect_says_what_the_queue_of_an_actor_waits_for(server: Server) -> None:
    callers = [threading.Thread(target=server.call, args=("Desk", "eu-2", "wait_for", "gate")) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        live: Any = {"mailbox": 0}
        while live["mailbox"] < 2 or not live["running"]["waits_for"]:
            [found] = shown("inspect", "Desk/eu-2", "--data-dir", server.data_dir)
            live = found["server"]
        text = actord("inspect", "Desk/eu-2", "--data-dir", server.data_dir).stdout
    finally:
        assert server.request("GET", "/open/gate").status == 200
        for caller in callers:
            caller.join(30)
    assert live["running"]["method"] == "wait_for"
    assert [queued["method"] for queued in live["queued"]] == ["wait_for", "wait_for"]
    [wait] = live["running"]["waits_for"]
    assert (wait["type"], wait["name"]) == ("Desk", "gate")
    assert wait["running"]["method"] == "hold"
    assert wait["running"]["from"] == ["Desk", "eu-2"]
    assert "which waits for Desk/gate" in text


REFUSED = [
    (["inspect", "Desk"], 2, "TYPE/NAME"),
    (["inspect", "De sk/a"], 2, "class"),
    (["inspect", f"Desk/{'a' * 513}"], 2, "512"),
    (["inspect", "Desk/nobody"], 1, "never written"),
    (["inspect", "Desk/full", "--watch"], 69, "No server runs"),
    (["ls", "De/sk"], 2, "class"),
    (["ls", "--prefix", "a"], 2, "name one"),
    (["ls", "Desk", "--limit", "0"], 2, "limit"),
]


@pytest.mark.parametrize(("words", "code", "why"), REFUSED, ids=[" ".join(row[0])[:40] for row in REFUSED])
def test_wrong_input_is_refused_with_one_line(stopped: Path, words: list[str], code: int, why: str) -> None:
    run = actord(*words, "--data-dir", stopped)
    assert run.returncode == code
    assert run.stdout == ""
    assert why in run.stderr
    if code != 2:
        assert run.stderr.count("\n") == 1


def test_what_is_no_data_directory_is_refused(tmp_path: Path) -> None:
    for words in (["ls"], ["inspect", "Desk/a"]):
        run = actord(*words, "--data-dir", tmp_path / "nowhere")
        assert run.returncode == 78
        assert "can't be read as a data directory" in run.stderr
