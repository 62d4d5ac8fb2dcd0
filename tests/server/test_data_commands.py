"""`actord ls`, `inspect`, `sql`, `get`, `put` and `rm`: over one server, and over a directory without one."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest.mock import patch

import pytest
from actord.server.admin import AdminClient
from actord.server.cli import main

from tests.support.server import Server, until

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


def actord(*words: str | Path) -> CompletedProcess[str]:
    """The command in this process: nothing of it is about processes, and a hundred of them would be."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", ["actord", *map(str, words)]):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())


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
    told = found["server"]
    assert told["in_memory"]
    assert [call["method"] for call in told["calls"]] == ["fill", "add", "send_later"]
    for call in told["calls"]:
        assert call["status"] == 200
        assert min(call["waited_ms"], call["ran_ms"], call["committed_ms"]) >= 0
    assert (told["mailbox"], told["running"], told["sockets"], told["error"]) == (0, None, 0, None)


def test_inspect_says_what_the_queue_of_an_actor_waits_for(server: Server) -> None:
    callers = [threading.Thread(target=server.call, args=("Desk", "eu-2", "wait_for", "gate")) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        until(lambda: live(server, "eu-2")["mailbox"] == 2 and live(server, "gate")["running"], "the queue")
        [document] = shown("inspect", "Desk/eu-2", "--data-dir", server.data_dir)
        text = actord("inspect", "Desk/eu-2", "--data-dir", server.data_dir).stdout
    finally:
        assert server.request("GET", "/open/gate").status == 200
        for caller in callers:
            caller.join(30)
    found = document["server"]
    assert found["running"]["method"] == "wait_for"
    assert [queued["method"] for queued in found["queued"]] == ["wait_for", "wait_for"]
    [wait] = found["running"]["waits_for"]
    assert (wait["type"], wait["name"]) == ("Desk", "gate")
    assert wait["running"]["method"] == "hold"
    assert wait["running"]["from"] == ["Desk", "eu-2"]
    assert "which waits for Desk/gate" in text


QUESTIONS: list[tuple[list[str], list[Any]]] = [
    (["select type, count(*) as n from actor group by type"], [{"type": "Desk", "n": 5}]),
    (
        ["select name, decode(value) as v from kv where type = 'Desk' and key = 'balance' order by name"],
        [{"name": n, "v": v} for n, v in (("eu-1", 1), ("eu-2", 1), ("full", 35), ("us-1", 1), (STRANGE, 1))],
    ),
    (
        ["select key, decode(value) v, typeof(decode(value)) t from kv where name = 'full' and key > 'c' order by 1"],
        [
            {"key": "opened", "v": "2026-01-02T00:00:00Z", "t": "text"},
            {"key": "price", "v": "9.90", "t": "text"},
            {"key": "tags", "v": '["a"]', "t": "text"},
            {"key": "text", "v": "line\n\x1b[31mred", "t": "text"},
            {"key": "worst", "v": None, "t": "null"},
        ],
    ),
    (["select name, seq, data ->> 'n' as n from event"], [{"name": "full", "seq": s, "n": s} for s in (1, 2)]),
    (["select type, name, due > 4e12 as far from alarm"], [{"type": "Desk", "name": "full", "far": 1}]),
    (
        ["select from_name, name, method, decode(args) as args from outbox"],
        [{"from_name": "full", "name": "eu-1", "method": "add", "args": "[[1],{}]"}],
    ),
    (["select name, sum(bytes) as b from page group by name"], [{"name": "full", "b": 2976}]),
    (["select count(distinct shard) as shards from meta where name = 'identity'"], [{"shards": 4}]),
    (["select count(*) as n from version, inbox, reply, event_log"], [{"n": 0}]),
    (["--shard", "0", "select distinct shard from meta"], [{"shard": 0}]),
    (
        ["select x'00ff' as b, 1 as b, 9e999 as inf, null as none"],
        [{"b": "AP8=", "b_2": 1, "inf": "inf", "none": None}],
    ),
    (["--actor", "Desk/full", "select id, what from entry order by id desc limit 1"], [{"id": 3, "what": "three"}]),
    (
        ["--actor", "Desk/full", "pragma table_info(spare)"],
        [{"cid": 0, "name": "x", "type": "", "notnull": 0, "dflt_value": None, "pk": 0}],
    ),
]


@pytest.mark.parametrize(("words", "expected"), QUESTIONS, ids=[row[0][-1][:40] for row in QUESTIONS])
def test_sql_answers_over_all_shards(stopped: Path, words: list[str], expected: list[Any]) -> None:
    assert shown("sql", *words, "--data-dir", stopped) == expected


def test_sql_answers_the_same_while_a_server_runs(server: Server, stopped: Path) -> None:
    for words in (["select * from kv order by shard, actor, key"], ["--actor", "Desk/full", "select * from entry"]):
        assert shown("sql", *words, "--data-dir", server.data_dir) == shown("sql", *words, "--data-dir", stopped)


def test_sql_prints_a_table_that_no_terminal_acts_upon(stopped: Path) -> None:
    query = "select name, decode(value) as v from kv where key = 'balance' and name not like 'eu%' order by 1"
    run = actord("sql", query, "--limit", "2", "--data-dir", stopped)
    assert run.stdout == "name  v\n----  --\nfull  35\nus-1   1\n"
    assert "there are more" in run.stderr
    run = actord("sql", "select name from actor where name like 'x%'", "--data-dir", stopped)
    assert "\x1b" not in run.stdout


NO_QUERIES = [
    ("delete from kv", 2),
    ("insert into actor values (1)", 2),
    ("create table x (y)", 2),
    ("attach ':memory:' as x", 2),
    ("pragma journal_mode = delete", 2),
    ("select 1; select 2", 2),
    ("", 2),
    ("selec", 2),
    ("select * from nothing", 2),
    ("select load_extension('x')", 1),
    ("with recursive c(x) as (select 1 union all select x + 1 from c) select max(x) from c", 1),
]


@pytest.mark.parametrize(("query", "code"), NO_QUERIES, ids=[row[0][:30] for row in NO_QUERIES])
def test_sql_refuses_what_is_no_single_select(stopped: Path, query: str, code: int) -> None:
    before = {path.name: path.read_bytes() for path in (stopped / "shards").iterdir()}
    for words in ([], ["--actor", "Desk/full"]):
        run = actord("sql", query, *words, "--timeout", "0.3", "--data-dir", stopped)
        assert run.returncode in (code, 2)
        assert run.stdout == ""
        assert run.stderr.startswith("actord: ")
        assert run.stderr.count("\n") == 1
    assert {path.name: path.read_bytes() for path in (stopped / "shards").iterdir()} == before


@pytest.fixture
def changed(stopped: Path, tmp_path: Path) -> Path:
    """A directory of its own without a server, to be changed."""
    return Path(shutil.copytree(stopped, tmp_path / "data"))


def audit_of(data_dir: Path) -> list[Any]:
    return [json.loads(line) for line in (data_dir / "audit.jsonl").read_text().splitlines()]


def test_put_and_rm_are_turns_whose_result_the_next_call_sees(server: Server) -> None:
    place = ["--data-dir", server.data_dir]
    name = "by-hand"
    assert server.result("Desk", name, "add", 1) == 1
    assert server.result("Desk", name, "memory") == 1
    assert shown("put", f"Desk/{name}", "balance", "70", *place) == [
        {
            "type": "Desk",
            "name": name,
            "key": "balance",
            "before": {"bytes": 1, "type": "int", "value": 1},
            "after": {"bytes": 1, "type": "int", "value": 70},
        }
    ]
    assert server.result("Desk", name, "memory") == 0  # the instance is another one
    assert server.result("Desk", name, "add", 1) == 71
    assert actord("get", f"Desk/{name}", "balance", *place).stdout == "71\n"
    run = actord("put", f"Desk/{name}", "balance", '"much"', *place)
    assert "it was 71" in run.stderr
    assert "mind the type: it was int and is str now" in run.stderr
    assert actord("rm", f"Desk/{name}", "balance", *place).returncode == 0
    assert server.result("Desk", name, "read", "balance") is None
    for words in (["get"], ["rm"]):
        run = actord(*words, f"Desk/{name}", "balance", *place)
        assert (run.returncode, run.stderr) == (1, f"actord: Desk/{name} has no key balance.\n")
    lines = audit_of(server.data_dir)
    assert [(line["do"], line["key"]) for line in lines] == [("put", "balance"), ("put", "balance"), ("rm", "balance")]
    for line in lines:
        assert line["by"]["uid"] == os.getuid()
        assert line["server"]
        assert (line["type"], line["name"]) == ("Desk", name)
    assert (server.data_dir / "audit.jsonl").stat().st_mode & 0o777 == 0o600
    server.wait_log("by hand", count=3)


def test_get_waits_its_turn_behind_the_calls_of_the_actor(server: Server) -> None:
    holder = threading.Thread(target=server.call, args=("Desk", "held", "hold"))
    holder.start()
    try:
        until(lambda: live(server, "held")["running"], "the turn that holds it")
        asked: list[Any] = []
        getter = threading.Thread(target=lambda: asked.append(ask(server, "data.get", "held", entry="balance")))
        getter.start()
        until(lambda: live(server, "held")["mailbox"], "the question in the queue")
        assert asked == []
    finally:
        assert server.request("GET", "/open/held").status == 200
        holder.join(30)
    getter.join(30)
    assert asked == [{"known": False, "raw": None}]


def test_an_actor_is_made_only_when_that_is_said(server: Server) -> None:
    place = ["--data-dir", server.data_dir]
    run = actord("put", "Desk/typo", "balance", "1", *place)
    assert run.returncode == 1
    assert "never written anything" in run.stderr
    assert actord("put", "Desk/typo", "balance", "1", "--new", *place).returncode == 0
    assert server.result("Desk", "typo", "add", 1) == 2
    run = actord("put", "Nothing/typo", "balance", "1", "--new", *place)
    assert run.returncode == 1
    assert "no such type" in run.stderr


def test_values_are_changed_in_a_directory_without_a_server(changed: Path) -> None:
    place = ["--data-dir", changed]
    [told] = shown("put", "Desk/full", "balance", "[1, {}]", *place)
    assert told["before"]["value"] == 35
    assert json.loads(actord("get", "Desk/full", "balance", *place).stdout) == [1, {}]
    assert actord("rm", "Desk/full", "price", *place).returncode == 0
    assert actord("rm", "Desk/full", "price", *place).returncode == 1
    [found] = shown("inspect", "Desk/full", *place)
    assert [item["key"] for item in found["stored"]["keys"]["shown"]] == ["balance", "opened", "tags", "text", "worst"]
    assert [(line["do"], line["server"]) for line in audit_of(changed)] == [("put", False), ("rm", False)]
    run = actord("put", "Desk/nobody", "balance", "1", *place)
    assert (run.returncode, run.stderr) == (1, "actord: There is no Desk/nobody: it has never written anything.\n")
    run = actord("doctor", "--json", changed)
    findings = json.loads(run.stdout)["findings"]
    assert not [finding for finding in findings if finding["level"] == "damage" or finding["file"] == "audit.jsonl"]


def test_nothing_is_changed_that_the_audit_can_not_be_told_of(changed: Path) -> None:
    (changed / "audit.jsonl").mkdir()
    run = actord("put", "Desk/full", "balance", "1", "--data-dir", changed)
    assert run.returncode == 1
    assert "nothing was changed" in run.stderr
    assert actord("get", "Desk/full", "balance", "--data-dir", changed).stdout == "35\n"


def ask(server: Server, do: str, name: str, **params: Any) -> Any:
    with AdminClient(str(server.data_dir)) as admin:
        [found] = admin.ask(do, key=["Desk", name], **params)
    return found


def live(server: Server, name: str) -> Any:
    return ask(server, "inspect", name)


REFUSED = [
    (["inspect", "Desk"], 2, "TYPE/NAME"),
    (["inspect", "De sk/a"], 2, "class"),
    (["inspect", f"Desk/{'a' * 513}"], 2, "512"),
    (["inspect", "Desk/nobody"], 1, "never written"),
    (["inspect", "Desk/full", "--watch"], 69, "No server runs"),
    (["get", "Desk/full", "nothing"], 1, "no key"),
    (["get", "Desk/nobody", "nothing"], 1, "no key"),
    (["get", "Desk/full", ""], 2, "bytes"),
    (["put", "Desk/full", "k" * 2049, "1"], 2, "bytes"),
    (["put", "Desk/full", "key", "{x"], 2, "no JSON"),
    (["put", "Desk/full", "__actord_key", "1"], 2, "reserved"),
    (["put", "Desk/nobody", "key", "1", "--new"], 1, "none runs"),
    (["sql", "select 1", "--shard", "9"], 2, "shards"),
    (["sql", "select 1", "--actor", "Desk/eu-1"], 1, "no SQL database"),
    (["sql", "select decode(key) from kv"], 1, "decode"),
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
