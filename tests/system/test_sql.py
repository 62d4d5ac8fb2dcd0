"""A small SQL actor over HTTP on a real server: rows survive kill -9, failures leave nothing."""

from __future__ import annotations

from tests.support.fixtures import Serve


def test_rows_keys_and_alarm_of_a_turn_survive_kill_9_together(serve: Serve) -> None:
    server = serve("sql_ledger.py")
    for number in range(1, 26):
        reply = server.call("Ledger", "a", "deposit", f"m{number}", number)
        assert reply.status == 200, reply
        assert reply.json()["number"] == number
    failed = server.call("Ledger", "a", "fail", "never")
    assert (failed.status, failed.json()["applied"]) == (500, "no")
    for worker in server.children("worker"):
        server.kill_child(worker.pid)
    statement = server.call("Ledger", "a", "statement").json()
    assert statement["count"] == 25
    assert statement["total"] == sum(range(1, 26))
    assert [row["number"] for row in statement["rows"]] == list(range(1, 26))
    assert statement["alarm"] == 4_000_000_025
    assert statement["size"] % 1024 == 0


def test_sql_errors_are_problems_with_a_name(serve: Serve) -> None:
    server = serve("sql_ledger.py")
    for query, name in (
        ("SELEC 1", "SqlError"),
        ("COMMIT", "SqlTransactionControlError"),
        ("ATTACH 'x' AS y", "SqlNotAllowedError"),
        ("CREATE TABLE t (a NOT NULL); INSERT INTO t VALUES (NULL)", "SqlConstraintError"),
    ):
        reply = server.call("Ledger", "b", "query", query)
        assert reply.status == 500
        assert reply.json()["name"] == name
        assert reply.json()["applied"] == "no"
    assert server.call("Ledger", "b", "query", "SELECT 9007199254740993 AS n").json() == [{"n": 9007199254740993}]
