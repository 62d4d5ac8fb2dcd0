"""Peers that are missing are left out and named; the clients of stores give what wrk gives."""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from actord.loadtest import bench_peers, clients, durability, network, peer_systems, rounds, systems
from actord.loadtest.measure import ERROR_KINDS, MeasureError, WrkResult
from rich.console import Console

REDIS = (
    '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms",'
    '"max_latency_ms"\n"EVALSHA x 1 acct-1 1","50000.00","0.7","0.1","1.250","3.000","4.500","9.000"\n'
)
PGBENCH = (
    "number of transactions actually processed: 1000\nnumber of failed transactions: 0 (0.000%)\n"
    "latency average = 2 ms\ninitial connection time = 9 ms\ntps = 500.000000 (without initial connection time)\n"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="actord-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def test_the_figures_of_redis_benchmark_are_those_of_a_run() -> None:
    found = clients.parse_redis(REDIS, 100_000)
    assert (found.requests, found.seconds, found.answered) == (100_000, 2.0, 100_000)
    assert (found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms) == (1.25, None, 4.5, 9.0)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "Could not connect",
        REDIS.splitlines()[0],
        REDIS.replace("50000.00", "0"),
        REDIS.replace("rps", "x"),
        REDIS + "Error from server: NOSCRIPT No matching script",
    ],
)
def test_a_run_of_redis_benchmark_without_figures_or_with_errors_is_none(output: str) -> None:
    with pytest.raises(MeasureError):
        clients.parse_redis(output, 10)


def test_the_figures_of_pgbench_are_those_of_a_run() -> None:
    found = clients.parse_pgbench(PGBENCH, [number / 10 for number in range(1001)])
    assert (found.requests, found.seconds) == (1000, 2.0)
    assert (found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms) == pytest.approx((50, 90, 99, 100), rel=0.01)


@pytest.mark.parametrize(
    "output", ["", PGBENCH.replace("tps", "x"), PGBENCH.replace("failed transactions: 0", "failed transactions: 3")]
)
def test_a_run_of_pgbench_without_figures_or_with_failures_is_none(output: str) -> None:
    with pytest.raises(MeasureError):
        clients.parse_pgbench(output, [1.0, 2.0])


def test_a_client_that_counts_learns_how_many_calls_fill_the_time() -> None:
    asked = []

    class Steady(clients.Counted):
        def run(self, spread: str, connections: int, calls: int) -> WrkResult:
            asked.append(calls)
            return WrkResult(calls, calls / 10_000, dict(clients.NO_ERRORS), 1, None, 1, 1)

    client = Steady()
    for spread, seconds in (("uniform", 1), ("uniform", 3), ("hot", 1)):
        client(spread, 64, seconds)
    assert asked == [clients.FIRST_RATE, 30_000, clients.FIRST_RATE]


@pytest.mark.skipif(not shutil.which("redis-benchmark"), reason="Redis is not installed")
def test_redis_keeps_each_debit_in_a_log_that_it_syncs(folder: Path) -> None:
    with peer_systems.redis(folder) as system:
        assert (system.settings["appendfsync"], system.settings["appendonly"]) == ("always", "yes")
        assert system.accounts
        assert system.client
        system.accounts.open()
        assert system.accounts.total() == system.accounts.names * peer_systems.OPENING_BALANCE
        before = system.accounts.balance("acct-1")
        assert isinstance(system.client, clients.RedisBenchmark)
        run = system.client.run("hot", 4, 50)
        system.accounts.ledger.add(run, 4)
        assert system.accounts.audit_hot(before, run, 4).holds
        system.accounts.debit_one_by_one(20)
        assert system.accounts.balance("acct-1") == before - 70
        assert system.accounts.audit().holds
        (root,) = system.roots
    assert not psutil.pid_exists(root)


@pytest.mark.skipif(not shutil.which("redis-benchmark"), reason="Redis is not installed")
def test_redis_is_seen_to_log_sync_and_only_then_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "SINGLE_CALLS", 20)
    monkeypatch.setattr(durability, "GROUP_SECONDS", 1)
    with peer_systems.redis(folder) as system:
        assert system.accounts
        system.accounts.open()
        try:
            proof = durability.prove(system)
        except durability.TraceUnavailable as reason:
            pytest.skip(f"no tracing here: {reason}")
    assert proof.holds
    assert proof.single_ordered == 20
    assert 0 < proof.group_flushes < proof.group_calls


def test_what_npm_has_not_brought_is_missing_before_anything_starts(tmp_path: Path) -> None:
    for start in (peer_systems.workerd, peer_systems.restate):
        with pytest.raises(systems.SystemMissing, match="make bench-peers"), start(tmp_path, tmp_path / "none"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_restate_does_not_start_where_it_could_reach_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "@restatedev" / "restate-server-x" / "bin" / "restate-server"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setattr(network.socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    with pytest.raises(systems.SystemMissing, match="loopback"), peer_systems.restate(tmp_path, tmp_path):
        pass


def _options(folder: Path, *arguments: str) -> argparse.Namespace:
    return bench_peers.parse(["--rounds", "2", "--seconds", "1", "--no-strace", "--dir", str(folder), *arguments])


def _fake(name: str, **fields: object) -> systems.System:
    def client(spread: str, connections: int, seconds: int) -> WrkResult:
        return WrkResult(100 * connections, 1.0, dict.fromkeys(ERROR_KINDS, 0), 1, 1, 1, 1)

    return systems.System(name, 1, [], None, client=client, **fields)  # type: ignore[arg-type]


def test_a_peer_that_is_missing_or_falls_out_is_named_and_the_others_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def missing(_: object, __: Path) -> Iterator[systems.System]:
        raise systems.SystemMissing("no such program")
        yield

    @contextmanager
    def actord(_: object, __: Path) -> Iterator[systems.System]:
        yield _fake("actord", read_path="/read")

    @contextmanager
    def falls_out(_: object, __: Path) -> Iterator[systems.System]:
        system = _fake("hello")
        calls = iter(range(5))
        steady = system.client
        assert steady

        def client(spread: str, connections: int, seconds: int) -> WrkResult:
            if next(calls) == 4:  # two to warm up, then the third run
                raise MeasureError("it is gone")
            return steady(spread, connections, seconds)

        system.client = client
        yield system

    monkeypatch.setattr(rounds, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(rounds, "flush_rate", lambda directory: {"per_second": 1})
    for name, starter in (("redis", missing), ("actord", actord), ("hello", falls_out)):
        monkeypatch.setitem(rounds.STARTERS, name, starter)
    options = _options(folder, "--only", "redis,actord,hello", "--cells", "uniform:64,hot:8,read:2")
    words = io.StringIO()
    outcome = rounds.carry_out(options, Console(file=words, width=200), skip=True)
    assert isinstance(outcome, rounds.Outcome)
    assert outcome.skipped == {"redis": "no such program", "hello": "it is gone"}
    assert "SKIPPED: redis: no such program" in words.getvalue()
    ours = [(one.spread, one.connections, one.round) for one in outcome.samples if one.system == "actord"]
    cells = (("uniform", 64), ("hot", 8), ("read", 2))
    assert ours == [(*cell, number) for number in range(2) for cell in cells]
    # Every cell went to every system that has it in turn, and a later round begins with another one.
    order = [one.system for one in outcome.samples if one.connections != 2]
    assert order == ["actord", "hello", "actord", "hello", "actord", "actord"]
    assert [system.name for system in outcome.systems] == ["actord"]
    assert set(outcome.to_json()["systems"]) == {"actord"}
    # Without leave to skip, what is missing ends the run.
    assert rounds.carry_out(options, Console(file=words, width=200)) == rounds.EX_UNAVAILABLE


def test_the_options_choose_cells_and_systems(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = _options(folder, "--cells", "hot:64,read:1", "--only", "restate,actord")
    assert (options.cells, options.only) == ([("hot", 64), ("read", 1)], ["actord", "restate"])
    assert _options(folder).cells == bench_peers.CELLS
    assert (_options(folder, "--quick").rounds, _options(folder, "--quick").seconds) == (1, 2)
    for wrong in ("warm:64", "hot", "hot:x", "hot:0", ""):
        with pytest.raises(SystemExit) as left:
            _options(folder, "--cells", wrong)
        assert left.value.code == 2
    assert "not a cell: 'warm:64'" in capsys.readouterr().err


def test_a_network_of_its_own_has_the_loopback_alone() -> None:
    way = network.isolation()
    if way is None:
        pytest.skip("no network namespaces here")
    script = (
        "import socket\nfrom actord.loadtest.network import is_loopback_only\n"
        "with socket.create_server(('127.0.0.1', 0)) as server, socket.create_connection(server.getsockname()):\n"
        "    print(is_loopback_only())\n"
    )
    done = subprocess.run([*way, sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
