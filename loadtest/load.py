"""A load test with locust: scenarios of actors, thresholds that fail it, an audit of every answer, and a report.

``python -m actord.loadtest.load`` (or ``make load``). Without ``--host`` it starts a server on 127.0.0.1 with a new
data directory, and ends it. Exit status: 0; 1 when a threshold was missed or an actor does not hold what was answered;
69 when a server or locust did not come up; 78 when the data would be kept in memory.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
from actord.loadtest import load_report, machine, systems
from actord.loadtest.audit import Accounts
from actord.loadtest.measure import process_tree, tree_cpu
from actord.loadtest.rounds import EX_CONFIG, EX_UNAVAILABLE, leave
from actord.loadtest.swarm import audit, ledger
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

SCENARIOS = {
    "accounts": "Accounts",
    "hot": "HotAccount",
    "cart": "Shopper",
    "chat": "Chatter",
    "mixed": "Mixed",
    "cold": "ColdNames",
}
SWARM = Path(__file__).with_name("swarm")
PROJECT = """name = "load"
main = "account.py"

[[programs]]
main = "cart.py"

[[programs]]
main = "chat/chat.py"
mount = "/chat"
"""
# How long locust may take beyond the run itself: to spawn its users, to let their last calls end, to write its files.
GRACE_SECONDS = 60


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, leave)
    with tempfile.TemporaryDirectory(prefix="actord-load-", dir=options.dir) as name:
        if not options.host and not options.ceiling and machine.file_system(Path(name)) in machine.VOLATILE:
            console.print(f"{options.dir} is kept in memory: choose a folder on a disk with --dir")
            return EX_CONFIG
        options.out.mkdir(parents=True, exist_ok=True)
        try:
            return ceiling(options, Path(name), console) if options.ceiling else load(options, Path(name), console)
        except (systems.SystemFailed, audit.AuditFailed, OSError) as error:
            console.print(f"load: {error}", markup=False)
            return EX_UNAVAILABLE


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="load", description="A load test of actors, with locust.")
    known = ",".join(SCENARIOS)
    parser.add_argument("--scenario", type=_scenarios, default=known, help=f"of {known}; at the same time (all)")
    parser.add_argument("--seconds", type=_positive, default=30, help="length of the run (30)")
    parser.add_argument("--users", type=_positive, default=60, help="users in all, divided evenly (60)")
    parser.add_argument("--names", type=_positive, default=1000, help="accounts that the users share (1000)")
    parser.add_argument("--think", type=float, default=0.0, help="seconds that a user waits between two tasks (0)")
    parser.add_argument("--processes", type=_positive, default=1, help="processes of locust (1)")
    parser.add_argument("--host", default="", help="load this server, such as http://127.0.0.1:8000; starts none")
    parser.add_argument("--web", action="store_true", help="locust's page on 127.0.0.1, until Ctrl-C")
    parser.add_argument("--web-port", type=int, default=8089, help="its port (8089)")
    parser.add_argument("--ceiling", action="store_true", help="only measure what one locust can do at all")
    limits = parser.add_argument_group("thresholds, also as LOAD_MAX_ERROR_RATIO, LOAD_MAX_P99 and LOAD_MIN_RATE")
    limits.add_argument("--max-error-ratio", type=float, default=_limit("LOAD_MAX_ERROR_RATIO", 0.001))
    limits.add_argument("--max-p99", type=float, default=_limit("LOAD_MAX_P99", 1000), help="milliseconds (1000)")
    limits.add_argument("--min-rate", type=float, default=_limit("LOAD_MIN_RATE", 50), help="requests a second (50)")
    parser.add_argument("--out", type=Path, help="folder for the report (load-results/TIME)")
    parser.add_argument("--dir", type=Path, default="/var/tmp", help="where the server keeps its data (/var/tmp)")
    parser.add_argument("--examples", type=Path, default="examples", help="the folder of the programs that it serves")
    parser.add_argument("--actord", default=str(Path(sys.executable).with_name("actord")), help="starts actord")
    options = parser.parse_args(arguments)
    options.out = (options.out or Path("load-results", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")).absolute()
    options.host = options.host.rstrip("/")
    return options


def load(options: argparse.Namespace, directory: Path, console: Console) -> int:
    """Start what there is to start, run, audit, judge."""
    if options.host:
        return _load(options, directory, options.host, [], console)
    with server(options, directory, console) as (host, pid):
        return _load(options, directory, host, [pid], console)


def _load(options: argparse.Namespace, directory: Path, host: str, roots: list[int], console: Console) -> int:
    used = tree_cpu(roots)
    clock = time.monotonic()
    chosen = [str(SWARM / "scenarios.py"), *(SCENARIOS[name] for name in options.scenario)]
    chosen += ["--names", str(options.names), "--think", str(options.think)]
    chosen += ["--run", secrets.token_hex(4), "--ledger", str(directory)]
    busiest = swarm(options, directory, host, chosen, console)
    cores = (tree_cpu(roots) - used) / (time.monotonic() - clock) if roots else None
    ledgers = list(directory.glob("ledger-*.json"))
    if len(ledgers) != (1 if options.processes == 1 else options.processes + 1):  # the first one only steers the others
        raise audit.AuditFailed(f"{len(ledgers)} processes of locust said what they were answered")
    console.print("asking every actor what it holds ...")
    verdict = audit.audit(host, ledger.read(ledgers))
    result = load_report.read(options.out, verdict, server_cores=cores, locust_core=busiest)
    missed = load_report.missed(
        result, max_error_ratio=options.max_error_ratio, max_p99_ms=options.max_p99, min_rate=options.min_rate
    )
    load_report.write(options.out, result, missed)
    load_report.show(Console(width=160, highlight=False), result, missed)
    console.print(f"written: {options.out}/ (report.html, plot.svg, summary.json)", markup=False)
    return 1 if missed else 0


def ceiling(options: argparse.Namespace, directory: Path, console: Console) -> int:
    """What one process of locust makes against a server that does nothing: more it can't tell about any server."""
    with systems.hello(directory) as system:
        options.processes = 1
        busiest = swarm(options, directory, f"http://127.0.0.1:{system.port}", [str(SWARM / "ceiling.py")], console)
    result = load_report.read(options.out, audit.Verdict(), server_cores=None, locust_core=busiest)
    print(
        f"one locust process with {options.users} users: {result.rate:,.0f} requests/s against the hello server, "
        f"{busiest:.2f} of a core. A server that answers more needs more --processes, or wrk: make bench"
    )
    return 0


@contextmanager
def server(options: argparse.Namespace, directory: Path, console: Console) -> Iterator[tuple[str, int]]:
    """The examples as one project, on a free port of 127.0.0.1 and a new data directory."""
    project = directory / "project"
    for program in ("account.py", "cart.py", "chat/chat.py", "chat/page.html"):
        target = project / program
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((options.examples / program).read_bytes())
    (project / "actord.toml").write_text(PROJECT)
    port, log = systems.free_port(), options.out / "actord.log"
    command = [*shlex.split(options.actord), "serve", str(project), "--port", str(port)]
    command += ["--data-dir", str(directory / "data")]
    with systems.process(command, log) as pid:
        systems.wait_until(Accounts(port).answers, pid, log, "actord")
        console.print(f"actord is up on 127.0.0.1:{port}, its log is {log}", markup=False)
        yield f"http://127.0.0.1:{port}", pid


def swarm(options: argparse.Namespace, directory: Path, host: str, users: Sequence[str], console: Console) -> float:
    """Run locust to its end, with a locustfile and its options. Out: what its busiest process used of a core."""
    log = options.out / "locust.log"
    command = [sys.executable, "-m", "locust", "-f", *users, "--host", host]
    command += ["--users", str(options.users), "--spawn-rate", str(max(10, options.users // 2))]
    command += ["--csv", str(options.out / "run"), "--csv-full-history", "--html", str(options.out / "report.html")]
    command += ["--json-file", str(options.out / "run"), "--stop-timeout", "10", "--exit-code-on-error", "0"]
    if options.processes > 1:
        command += ["--processes", str(options.processes)]
    if options.web:
        command += ["--web-host", "127.0.0.1", "--web-port", str(options.web_port), "--class-picker"]
    else:
        command += ["--headless", "--only-summary", "--run-time", f"{options.seconds}s"]
    # In a folder where it finds no settings of somebody else's, and in a session where Ctrl-C does not reach it.
    with log.open("wb") as words:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, cwd=directory, start_new_session=True
        )
    cores = Busiest(child)
    try:
        if options.web:
            console.print(f"locust's page: http://127.0.0.1:{options.web_port} (Ctrl-C ends it, and audits the run)")
            while child.poll() is None:
                cores.look(1.0)
        else:
            _bounded(child, options, cores, console)
    except BaseException as error:
        child.terminate()
        child.wait(GRACE_SECONDS)
        if not (options.web and isinstance(error, KeyboardInterrupt)):
            raise
    if child.returncode:
        tail = log.read_text(errors="replace")[-2000:].strip()
        raise systems.SystemFailed(f"locust ended with {child.returncode}; its log ends with:\n{tail}")
    return cores.most


def _bounded(child: subprocess.Popen[bytes], options: argparse.Namespace, cores: Busiest, console: Console) -> None:
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task(f"{options.users} users", total=options.seconds)
        began = time.monotonic()
        while child.poll() is None:
            passed = time.monotonic() - began
            if passed > options.seconds + GRACE_SECONDS:
                raise systems.SystemFailed("locust did not end")
            progress.update(bar, completed=passed)
            cores.look(0.25)


class Busiest:
    """``most``: what the busiest of locust's processes used of a core, over any second or more."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.most = 0.0
        self._child = child
        self._since = time.monotonic()
        self._used: dict[int, float] = {}

    def look(self, seconds: float) -> None:
        """Wait so long for locust's end, and look once a second."""
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(seconds)
        passed = time.monotonic() - self._since
        if passed < 1:
            return
        self._since += passed
        for process in process_tree([self._child.pid]):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used = times.user + times.system
                before = self._used.get(process.pid)
                self._used[process.pid] = used
                if before is not None:
                    self.most = max(self.most, (used - before) / passed)


def _scenarios(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown) or 'none'}; known are {', '.join(SCENARIOS)}")
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _limit(variable: str, default: float) -> float:
    """A threshold from the environment. Ends the program when it is no number."""
    try:
        return float(os.environ.get(variable, default))
    except ValueError:
        sys.exit(f"load: {variable} is a number, and not {os.environ[variable]!r}")


if __name__ == "__main__":
    sys.exit(main())
