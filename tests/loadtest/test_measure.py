"""What wrk prints becomes figures; what its script sends is the call that is meant."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from actord.loadtest import measure

needs_wrk = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")

LINE = (
    'JSON {"requests":1000,"duration_us":2000000,"status":100,"connect":1,"read":2,"write":3,"timeout":4,'
    '"p50":1500,"p90":2500,"p99":9000,"max":20000}'
)
OUTPUT = f"Running 2s test @ http://127.0.0.1:1\n  1 threads and 64 connections\nRequests/sec:    500.00\n{LINE}\n"


def test_figures_are_read_from_wrks_output() -> None:
    result = measure.parse_wrk(OUTPUT)
    assert (result.requests, result.seconds, result.answered) == (1000, 2.0, 900)
    assert (result.p50_ms, result.p90_ms, result.p99_ms, result.max_ms) == (1.5, 2.5, 9.0, 20.0)
    assert result.errors == {"status": 100, "connect": 1, "read": 2, "write": 3, "timeout": 4}


@pytest.mark.parametrize(
    "output",
    ["", "unable to connect to 127.0.0.1:1", OUTPUT.replace('"p99":9000,', ""), OUTPUT.replace("1500", "oops")],
    ids=["nothing", "no figures", "one missing", "not JSON"],
)
def test_output_without_figures_is_an_error_and_no_zero(output: str) -> None:
    with pytest.raises(measure.MeasureError):
        measure.parse_wrk(output)


def test_a_sample_counts_answered_calls_only() -> None:
    sample = measure.Sample("actord", "uniform", 64, 0, measure.parse_wrk(OUTPUT), 0.045, 0.5, 0.0)
    assert sample.rate == 450
    assert sample.cpu_us == pytest.approx(50)
    assert sample.to_json()["calls_per_second"] == 450


@needs_wrk
def test_the_script_debits_every_account_and_no_other(bank: Any) -> None:
    bank.balances = {f"acct-{i}": 1_000_000 for i in (1, 2, 3)}
    result = measure.run_wrk(bank.port, connections=2, names=3, seconds=1)
    assert result.answered > 0
    assert result.errors == dict.fromkeys(measure.ERROR_KINDS, 0)
    assert result.answered <= bank.debits <= result.answered + 2
    assert {call[1] for call in bank.seen} == {f"/actors/Account/acct-{i}/debit" for i in (1, 2, 3)}
    assert {(call[0], *call[2:]) for call in bank.seen} == {("POST", "application/json", b'{"amount":1}')}
    assert 0 < result.p50_ms <= result.p90_ms <= result.p99_ms <= result.max_ms


@needs_wrk
def test_error_statuses_are_shown_and_not_counted_as_answers(bank: Any) -> None:
    bank.status = 503
    result = measure.run_wrk(bank.port, connections=1, names=1, seconds=1)
    assert result.requests > 0
    assert result.answered == 0
    assert result.errors["status"] == result.requests


@needs_wrk
def test_a_server_that_is_not_there_is_an_error(bank: Any) -> None:
    with socket.socket() as taken:  # bound, not listening: nobody can be there
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(measure.MeasureError, match="connect"):
            measure.run_wrk(taken.getsockname()[1], connections=1, names=1, seconds=1)


def test_cpu_of_a_tree_has_its_living_and_its_reaped_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\n"
    script = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
        f"child = subprocess.Popen([sys.executable, '-c', {burn + 'print(1, flush=True); input()'!r}],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\nprint('ready', flush=True)\ninput()\nchild.communicate(b'\\n')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as root:
        assert root.stdout
        assert root.stdout.readline() == "ready\n"
        assert measure.tree_cpu([root.pid]) >= 0.38
        assert len(measure.process_tree([root.pid])) == 2
        assert all(float(str(row["rss_mb"])) > 1 for row in measure.tree_memory([root.pid]))
        root.communicate("\n")


def test_cpu_of_a_tree_without_this_process_is_not_the_clients() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as idle:
        before, start = measure.tree_cpu([idle.pid]), time.process_time()
        while time.process_time() < start + 0.3:
            pass
        assert measure.tree_cpu([idle.pid]) - before < 0.3
        idle.communicate(b"\n")


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["/venv/bin/python", "-P", "-m", "actord.server.front", "--fd", "3"], "front"),
        (["/venv/bin/python", "-P", "-m", "actord.shards.worker"], "worker"),
        (["/venv/bin/python", "-m", "uvicorn", "x:app"], "uvicorn"),
        (["postgres: postgres postgres 127.0.0.1(43408) idle"], "postgres: postgres"),
        (["/usr/lib/postgresql/15/bin/postgres", "-D", "x"], "postgres"),
        (["/venv/bin/python3", "/venv/bin/actord", "serve", "app.py"], "actord"),
        (["python", "-c", "pass"], "python"),
        ([], "?"),
    ],
)
def test_a_process_is_known_by_what_it_runs(command: list[str], role: str) -> None:
    assert measure.role_of(command) == role


def test_the_script_is_beside_the_module_and_names_every_error_kind() -> None:
    text = measure.SCRIPT.read_text()
    printed = set(re.findall(r'"(\w+)":%d', text))
    assert printed >= {*measure.ERROR_KINDS, "requests", "duration_us", "p50", "p90", "p99", "max"}
    assert os.access(measure.SCRIPT, os.R_OK)
