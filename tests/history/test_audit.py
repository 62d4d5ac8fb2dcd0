"""The audit itself: each lie that it has to find."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3

import pytest

from tests.history.audit import audit, audit_run
from tests.history.offline import audit_files
from tests.history.recorder import History, Operation, load
from tests.support.client import Client


def deposit(mark, outcome, number=0):
    return Operation(0, "a", "deposit", (mark, 5), 0, 1, outcome, {"number": number, "total": 5 * number})


def run(marks, count=None, total=None):
    history = History([deposit("m1", "ok", 1), deposit("m2", "unknown"), deposit("m3", "no")])
    count = len(marks) if count is None else count
    total = 5 * len(marks) if total is None else total
    return audit(history, {"a": {"marks": marks, "count": count, "total": total}})


def test_the_truth_passes_whether_the_unknown_one_is_there_or_not():
    assert run({"m1": [1, 5]}) == []
    assert run({"m1": [1, 5], "m2": [2, 5]}) == []


@pytest.mark.parametrize(
    ("marks", "count", "total", "words"),
    [
        ({}, None, None, "acknowledged and is gone"),
        ({"m1": [2, 5], "m2": [1, 5]}, None, None, "number 1 was acknowledged"),
        ({"m1": [1, 5], "m3": [2, 5]}, None, None, "answered `applied: no`"),
        ({"m1": [1, 5], "m9": [2, 5]}, None, None, "nobody asked"),
        ({"m1": [1, 5]}, 2, 10, "the count is 2"),
        ({"m1": [1, 5], "m2": [1, 5]}, None, None, "twice [1]"),
        ({"m1": [1, 5]}, None, 10, "the sum is 10"),
        ({"m1": [1, 4]}, None, 4, "with 4 instead of 5"),
        ({"m1": [1, 5], "m2": [2, 7]}, None, 12, "with 7 instead of 5"),
    ],
)
def test_every_lie_is_found(marks, count, total, words):
    assert any(words in line for line in run(marks, count, total))


def test_an_answer_that_no_promise_allows_for_is_wrong():
    history = History(surprises=["418"])
    assert audit(history, {}) == ["418"]


def test_an_answer_that_no_order_explains_is_found():
    """Everything is there in the end, but the second deposit was answered before the first one began."""
    first, second = deposit("m1", "ok", 1), deposit("m4", "ok", 2)
    first.called, first.returned, second.called, second.returned = 5, 6, 1, 2
    statement = {"marks": {"m1": [1, 5], "m4": [2, 5]}, "count": 2, "total": 10}
    assert audit(History([first, second]), {"a": statement}) == ["a: no order explains what was answered about it"]
    second.called, second.returned = 7, 8
    assert audit(History([first, second]), {"a": statement}) == []


def test_a_stale_read_of_a_register_is_found():
    write = Operation(0, "r", "write", (7,), 0, 1, "ok", None, "Register")
    read = Operation(1, "r", "read", (), 2, 3, "ok", 0, "Register")
    assert audit(History([write, read]), {}) == ["r: no order explains what was answered about it"]
    read.value = 7
    assert audit(History([write, read]), {}) == []


def test_a_history_that_was_kept_reads_back_as_it_was(tmp_path, serve):
    server = serve("books.py", settings={"server.workers": 1})
    history = History().keep(tmp_path / "history.jsonl")

    async def run():
        connection = Client(server.port)
        await history.call(1, connection, "Ledger", "a", "deposit", "m", 5)
        await history.call(1, connection, "Register", "r", "read")
        connection.close()

    asyncio.run(run())
    history.close()
    again = load(tmp_path / "history.jsonl")
    assert [(op.key, op.method, op.outcome, op.value) for op in again.operations] == [
        (op.key, op.method, op.outcome, op.value) for op in history.operations
    ]
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [(line["event"], line.get("applied")) for line in lines[:2]] == [("invoke", None), ("return", "yes")]
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write(json.dumps(lines[0] | {"id": 9}) + "\n")
    assert load(tmp_path / "history.jsonl").operations[-1].outcome == "unknown"


def test_the_audit_of_a_run_finds_each_planted_lie_in_its_files_its_log_and_its_history(serve):
    server = serve("books.py", settings={"server.workers": 2, "storage.shards": 2})
    history = History()

    async def run():
        connection = Client(server.port)
        for number in range(1, 6):
            await history.call(0, connection, "Ledger", "a", "deposit", f"m{number}", number)
        connection.close()

    asyncio.run(run())
    floors: dict[int, int] = {}
    assert audit_run(history, server, ["a"], least=5, floors=floors) == []
    assert max(floors.values()) >= 5
    history.operations[-1].outcome = "no"
    server.call("Ledger", "a", "fill", "no number", 1)
    server.log.append({"level": "error", "process": "?", "message": "planted"})
    lines = audit_run(history, server, ["a"], least=6)
    for words in ("only 5 calls", "`applied: no`", "planted"):
        assert any(words in line for line in lines), (words, lines)
    server.stop()
    plant = {
        "UPDATE kv SET value = x'00' WHERE key = 'total'": "fails its checksum",
        "UPDATE kv SET sum = sum + 1 WHERE key = 'count'": "fails its checksum",
        "UPDATE page SET data = zeroblob(992) WHERE id & 3 = 1": "fails its checksum",
        "DELETE FROM page WHERE id & 3 = 1": "is missing",
        "DELETE FROM alarm; DELETE FROM kv WHERE key = 'swept'": "has lost its alarm",
        "DELETE FROM kv WHERE key = 'mark/m3'": "is torn",
        "UPDATE meta SET value = value - 1 WHERE name = 'commit_seq'": "went back from commit",
        "UPDATE meta SET value = 9 WHERE name = 'shard'": "belongs to shard 9",
    }
    for script, words in plant.items():
        copy = server.data_dir.with_name("copy")
        shutil.copytree(server.data_dir, copy)
        for path in (copy / "shards").glob("*.db"):
            database = sqlite3.connect(path)
            database.executescript(script)
            database.close()
        assert any(words in line for line in audit_files(copy, dict(floors))), script
        shutil.rmtree(copy)
    assert audit_files(server.data_dir, floors) == []
