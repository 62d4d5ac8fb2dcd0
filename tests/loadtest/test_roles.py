"""CPU by role, and the clients that are written in Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from actord.loadtest.bench_keys import PROGRAM
from actord.loadtest.measure import MeasureError, WrkResult
from actord.loadtest.roles import RoleSample, cpu_by_role, run_clients

from tests.support.server import Server

SAYS = """
import json, sys
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(%s))
"""
SEEN = {"requests": 10, "duration_us": 2_000_000, "status": 1, "cpu_us": 500_000, "p50": 1000, "p90": 2000, "p99": 3000}


def client(**changes: int) -> list[str]:
    return ["-c", SAYS % json.dumps(SEEN | {"max": 4000} | changes)]


def test_several_clients_are_one_result() -> None:
    result, cpu = run_clients([client(), client(requests=30, duration_us=1_000_000, p50=3000, p99=9000)], 1)
    assert (result.requests, result.seconds, result.errors["status"], result.answered) == (40, 2.0, 2, 38)
    assert (result.p50_ms, result.p99_ms, cpu) == (2.0, 9.0, 1.0)


@pytest.mark.parametrize("code", ["", "print('ready')", "print('no')", "import sys; sys.exit(3)"])
def test_a_client_that_fails_is_no_result(code: str) -> None:
    with pytest.raises(MeasureError):
        run_clients([["-c", code]], 1)


def test_costs_are_those_of_one_answered_call() -> None:
    errors = {"status": 20, "connect": 0, "read": 0, "write": 0, "timeout": 0}
    seen = WrkResult(120, 2.0, errors, 1.0, 1.0, 1.0, 1.0)
    sample = RoleSample("x", 1, 0, seen, {"front": 0.5, "worker": 1.0, "client": 9.0, "kernel": 9.0, "neighbours": 9.0})
    assert (sample.rate, sample.us("front"), sample.server_us) == (50.0, 5_000.0, 15_000.0)
    assert sample.busy("worker") == 0.5


def test_the_clients_of_the_benchmark_do_what_they_say(tmp_path: Path) -> None:
    """Both ways of calling workers; every call that they count was made."""
    program = tmp_path / "entries.py"
    program.write_text(PROGRAM)
    with Server(program, tmp_path / "data", settings={"server.direct": True, "server.workers": 2}) as server:
        frames = ["-m", "actord.loadtest.frames", str(server.port), "8", "0.2", "20"]
        users = ["-m", "actord.loadtest.client_users", f"http://127.0.0.1:{server.port}", "8", "0.2", "20"]
        done = [run_clients(commands, 1)[0] for commands in ([frames], [[*users, "direct"], [*users, "front"]])]
        spent = cpu_by_role([server.pid])
        assert [result.errors["status"] for result in done] == [0, 0]
        assert min(result.p50_ms for result in done) > 0
        counted = sum(server.result("Entries", f"acct-{number}", "count") for number in range(1, 21))
        assert counted == sum(result.requests for result in done) > 0
        assert spent.keys() == {"front", "worker", "supervisor"}
        assert min(spent["front"], spent["worker"]) > 0
