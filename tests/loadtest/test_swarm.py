"""The swarm's ledger, audit and thresholds catch a server that lies, is slow or fails; and locust itself runs once."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from actord.loadtest import load, load_report
from actord.loadtest.swarm.audit import Verdict, audit
from actord.loadtest.swarm.ledger import Ledger, read

ROOT = Path(__file__).parents[2]


def test_a_change_is_uncertain_until_its_answer_is_known() -> None:
    book = Ledger()
    deposit, debit = book.begin("Account", "a", 10), book.begin("Account", "a", -1)
    assert book.bounds["Account", "a"] == [-1, 10]
    deposit.settle(10)
    assert book.bounds["Account", "a"] == [9, 10]
    debit.settle(0)
    assert book.bounds["Account", "a"] == [10, 10]


def test_ledgers_of_several_processes_add_up(tmp_path: Path) -> None:
    for number in (1, 2):
        book = Ledger()
        book.begin("Account", "hot", number).settle(number)
        book.begin("Account", f"own-{number}", 5)
        if number == 2:
            book.fault("a gap")
        book.write(tmp_path / f"ledger-{number}.json")
    total = read(tmp_path.glob("ledger-*.json"))
    assert total.bounds == {("Account", "hot"): [3, 3], ("Account", "own-1"): [0, 5], ("Account", "own-2"): [0, 5]}
    assert total.faults == ["a gap"]


def test_an_answer_that_was_not_kept_is_found_by_the_audit(bank: Any) -> None:
    book = Ledger()
    for name in ("a", "b", "c"):
        bank.call(name, "deposit", 10)
        book.begin("Account", name, 10).settle(10)
    host = f"http://127.0.0.1:{bank.port}"
    assert audit(host, book).holds
    bank.forget_every = 1
    bank.call("b", "debit", 1)
    book.begin("Account", "b", -1).settle(-1)
    verdict = audit(host, book)
    assert verdict.wrong == ["Account b holds 10, and its answers say 9 to 9"]


def test_what_a_user_saw_and_may_never_be_seen_fails_the_audit() -> None:
    book = Ledger()
    book.fault("a room's message 5 came after 3")
    assert not audit("http://127.0.0.1:1", book).holds


def row(name: str, times: dict[str, int], failures: int = 0) -> dict[str, Any]:
    return {
        "name": name,
        "method": "POST",
        "num_requests": sum(times.values()),
        "num_failures": failures,
        "response_times": times,
        "start_time": 100.0,
        "last_request_timestamp": 110.0,
        "max_response_time": max(map(float, times)),
    }


def result(*rows: dict[str, Any], audit: Verdict | None = None) -> load_report.Result:
    return load_report.Result([], load_report.line("", "all", rows), {}, audit or Verdict(), None, 0.1)


def test_percentiles_are_of_all_requests_together() -> None:
    total = result(row("A.x", {"1": 98}), row("A.y", {"50": 1, "900": 1}, failures=1)).total
    assert (total.requests, total.failures, total.rate) == (100, 1, 10.0)
    assert (total.p50_ms, total.p99_ms, total.max_ms) == (1.0, 50.0, 900.0)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_error_ratio": 0.009}, "1.00% of the requests failed"),
        ({"max_p99_ms": 49.0}, "p99 is 50 ms"),
        ({"min_rate": 10.5}, "10 requests a second"),
    ],
)
def test_each_threshold_fails_a_run_by_itself(limits: dict[str, float], words: str) -> None:
    measured = result(row("A.x", {"1": 98}), row("A.y", {"50": 1, "900": 1}, failures=1))
    held = {"max_error_ratio": 0.01, "max_p99_ms": 50.0, "min_rate": 10.0}
    assert load_report.missed(measured, **held) == []
    [missed] = load_report.missed(measured, **(held | limits))
    assert missed.startswith(words)


def test_a_run_without_an_answer_is_missed() -> None:
    assert load_report.missed(result(), max_error_ratio=0.5, max_p99_ms=1.0, min_rate=0.0)


def test_an_audit_that_does_not_hold_fails_a_run() -> None:
    measured = result(row("A.x", {"1": 1}), audit=Verdict(1, 1, 0, ["wrong"]))
    [missed] = load_report.missed(measured, max_error_ratio=1, max_p99_ms=100.0, min_rate=0.0)
    assert missed.startswith("audit: ")


def test_a_threshold_of_the_environment_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOAD_MAX_P99", "quick")
    with pytest.raises(SystemExit, match="LOAD_MAX_P99 is a number"):
        load.parse([])


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("locust", "matplotlib"))), reason="no locust: `make load` installs it"
)
def test_a_run_of_all_scenarios_is_audited_and_fails_by_its_threshold(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "actord.loadtest.load", "--seconds", "2", "--users", "12", "--names", "20"]
    command += ["--out", str(out), "--actord", f"{sys.executable} -m actord.server.cli"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"LOAD_MIN_RATE": "1e9"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert [words.endswith("1,000,000,000 is the least") for words in summary["missed"]] == [True], summary
    assert summary["audit"]["wrong"] == []
    assert summary["audit"]["actors"] > 0
    assert (summary["total"]["failures"], summary["failures"]) == (0, {})
    accounts = {"Account.debit", "Account.deposit", "Account.balance"}
    others = {"Cart.add", "Cart.lines", "Cart.remove", "Cart.check_out", "Room.connect", "Room.message"}
    found = {line["name"] for line in summary["lines"]}
    # One line for each type and method, however many names there were, and however few a slow machine came to.
    assert found & accounts
    assert found <= accounts | others
    with (out / "run_stats.csv").open(newline="") as file:
        assert {line["Name"] for line in csv.DictReader(file)} == found | {"Aggregated"}
    assert "<svg" in (out / "plot.svg").read_text()
    assert "<html" in (out / "report.html").read_text()
