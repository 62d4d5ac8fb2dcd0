"""Systems come up on free ports, and leave with everything that they started; flushes are counted."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from actord.loadtest import bench, durability, machine, rounds, systems


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that another user can reach, as PostgreSQL needs when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="actord-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def test_the_ceiling_answers_and_is_gone_afterwards(folder: Path) -> None:
    with systems.hello(folder) as system:
        (root,) = system.roots
        assert psutil.pid_exists(root)
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", system.port), reuse_port=False)
    assert not psutil.pid_exists(root)


def test_children_that_ignore_the_request_to_leave_are_ended_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "STOP_SECONDS", 0.2)
    deaf = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {deaf!r}]); {deaf}"
    log = folder / "log"
    with systems.process([sys.executable, "-c", script], log) as pid:
        systems.wait_until(lambda: log.read_text().count("up") == 2, pid, log, "deaf")
        family = psutil.Process(pid).children()
        assert len(family) == 1
    assert not psutil.pid_exists(pid)
    assert psutil.wait_procs(family, timeout=10)[1] == []


def test_a_system_that_dies_is_reported_with_the_end_of_its_log(folder: Path) -> None:
    log = folder / "log"
    with (
        pytest.raises(systems.SystemFailed, match=r"thing ended(.|\n)*no such luck"),
        systems.process([sys.executable, "-c", "raise SystemExit('no such luck')"], log) as pid,
    ):
        systems.wait_until(lambda: False, pid, log, "thing")


def _missing_for_fastapi() -> str | None:
    absent = [name for name in ("fastapi", "uvicorn", "asyncpg") if importlib.util.find_spec(name) is None]
    try:
        systems.postgres_programs()
    except systems.SystemFailed:
        absent.append("PostgreSQL")
    return f"not installed: {', '.join(absent)}" if absent else None


@pytest.mark.skipif(bool(_missing_for_fastapi()), reason=_missing_for_fastapi() or "")
def test_fastapi_debits_a_postgresql_that_syncs(folder: Path) -> None:
    with systems.fastapi(folder) as system:
        assert system.accounts
        assert system.filled
        before = system.accounts.balance("acct-10000")
        assert system.accounts.balance("acct-10000") == before - 1
        settings = system.settings["postgresql"]
        assert isinstance(settings, dict)
        assert (settings["fsync"], settings["synchronous_commit"]) == ("on", "on")
        family = [process.pid for process in psutil.Process(system.roots[0]).children()] + system.roots
    assert not any(psutil.pid_exists(pid) for pid in family)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_flushes_are_counted_and_missing_ones_too(folder: Path) -> None:
    script = (
        "import os, sys\nfile = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)\nprint('up', flush=True)\n"
        "for line in sys.stdin:\n    [os.fdatasync(file) for _ in range(int(line))]\n    print('done', flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(folder / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stdout
        child.stdout.readline()

        def flush(times: int) -> None:
            assert child.stdin
            assert child.stdout
            child.stdin.write(f"{times}\n")
            child.stdin.flush()
            child.stdout.readline()

        try:
            assert durability.count_flushes([child.pid], lambda: flush(7)) == 7
        except durability.TraceUnavailable as reason:
            pytest.skip(f"no tracing here: {reason}")
        finally:
            child.stdin.close()


def test_a_proof_needs_a_flush_before_each_answer() -> None:
    assert durability.Proof(200, 200, 1000, 30, 200).holds
    assert not durability.Proof(200, 199, 1000, 30, 200).holds
    assert not durability.Proof(200, 0, 1000, 0, 0).holds
    assert not durability.Proof(0, 0, 1000, 30, 0).holds
    assert not durability.Proof(200, 200, 1000, 30, 199).holds


def test_the_flush_rate_is_measured(folder: Path) -> None:
    found = durability.flush_rate(folder, 0.05)
    assert found["per_second"] > 0
    assert 0 < found["p50_ms"] <= found["p99_ms"]


def test_the_file_system_is_that_of_the_deepest_mount() -> None:
    assert machine.file_system(Path("/proc/self")) == "proc"
    assert machine.facts(Path("/proc"))["cores"] == os.cpu_count()


def test_data_in_memory_is_refused() -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or machine.file_system(shared) not in machine.VOLATILE:
        pytest.skip("/dev/shm is not kept in memory here")
    before = set(shared.iterdir())
    assert bench.main(["--quick", "--only", "hello", "--dir", str(shared)]) == rounds.EX_CONFIG
    assert set(shared.iterdir()) == before


def test_a_compiled_actord_that_was_not_built_says_how_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "COMPILED", folder)
    with pytest.raises(systems.SystemMissing, match="make compiled"), systems.compiled(folder, ["actord"], "app.py"):
        pass


def test_options_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    options = bench.parse(["--quick", "--connections", "1,8", "--only", "actord,hello", "--actord", "x -m 'y z'"])
    assert (options.rounds, options.seconds, options.connections) == (1, 2, [1, 8])
    assert options.only == ["hello", "actord"]
    assert options.cells == [("uniform", 1), ("uniform", 8), ("hot", 1), ("hot", 8)]
    assert options.actord == ["x", "-m", "y z"]
    for wrong in (["--only", "redis"], ["--rounds", "0"], ["--connections", "0"]):
        with pytest.raises(SystemExit) as left:
            bench.parse(wrong)
        assert left.value.code == 2
    assert "redis" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_a_request_to_end_the_benchmark_ends_what_it_started(folder: Path) -> None:
    command = [sys.executable, "-m", "actord.loadtest.bench", "--only", "hello", "--dir", str(folder), "--seconds", "1"]
    command += ["--out", str(folder / "never.json"), "--no-strace"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
        assert driver.stderr
        first = next(line for line in driver.stderr if line.startswith("round 1/"))
        assert "hello" in first
        started = [child for child in psutil.Process(driver.pid).children() if "wrk" not in child.name()]
        assert started
        driver.send_signal(signal.SIGTERM)
        driver.communicate(timeout=60)
        assert driver.returncode == 128 + signal.SIGTERM
    assert not any(child.is_running() for child in started)
    assert not list(folder.iterdir())
