"""Start and stop of the systems under test: real processes, on 127.0.0.1 only, all their files below one directory.

Promises:
1. Ports are free ones; a system is handed out only when it has answered a call.
2. Leaving the ``with`` block ends what was started here, by process id, and nothing else: a PostgreSQL that the machine
   runs already is not touched, the one used here has its own cluster and port, and no socket file.
3. A system that does not come up, or dies, raises SystemFailed with the end of its log.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from actord.loadtest.audit import NAMES, OPENING_BALANCE, Accounts, Book
from actord.loadtest.measure import DEBIT_BODY, DEBIT_PATH, WrkResult, run_wrk

READ_PATH = "/actors/Account/acct-%d/balance"
COMPILED = Path(".compiled").absolute()
READY_SECONDS = 60
STOP_SECONDS = 20.0


class SystemFailed(Exception):
    """A system under test did not come up, died, or refused what the benchmark needs."""


class SystemMissing(SystemFailed):
    """What a system is made of is not on this machine: the words say what, and how to get it."""


# A run of a system's own client: spread of names, connections, seconds.
Client = Callable[[str, int, int], WrkResult]


@dataclass(slots=True)
class System:
    """A running system: its port, the root processes whose trees are its CPU, its accounts (None: it keeps nothing).

    ``filled``: the accounts have their opening balances already. ``path``: where wrk sends a debit; ``read_path``: a
    call that writes nothing, if the system has one. ``client``: what is used instead of wrk. ``speaks`` and ``keeps``
    are words for the report: the client with its protocol, and how a debit gets to the disk.
    """

    name: str
    port: int
    roots: list[int]
    accounts: Book | None
    filled: bool = False
    settings: dict[str, object] = field(default_factory=dict)
    names: int = NAMES
    path: str = DEBIT_PATH
    read_path: str | None = None
    client: Client | None = None
    speaks: str = "wrk, HTTP"
    keeps: str = ""

    def has(self, spread: str) -> bool:
        """Whether this system takes part in the cells of that spread of names: ``uniform``, ``hot`` or ``read``."""
        return spread != "read" or self.read_path is not None

    def load(self, spread: str, connections: int, seconds: int) -> WrkResult:
        """Let this system's client run once. Raises MeasureError when it fails."""
        if self.client:
            return self.client(spread, connections, seconds)
        names = 1 if spread == "hot" else self.names
        if spread == "read":
            assert self.read_path is not None
            path, body = self.read_path, ""
        else:
            path, body = self.path, DEBIT_BODY
        return run_wrk(self.port, connections=connections, names=names, seconds=seconds, path=path, body=body)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def process(
    command: Sequence[str],
    log: Path,
    *,
    user: str | None = None,
    polite: signal.Signals = signal.SIGTERM,
    **environment: str,
) -> Iterator[int]:
    """Run a command in a session of its own, its words in ``log``; hands out its pid; ends it and its children."""
    with log.open("wb") as words:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
    try:
        yield child.pid
    finally:
        _stop(child, polite)


def _stop(child: subprocess.Popen[bytes], polite: signal.Signals) -> None:
    """Ask, wait, then kill what is left of the tree."""
    try:
        family = psutil.Process(child.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    grace = STOP_SECONDS
    child.send_signal(polite)
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        grace = 0.0
        child.kill()
        child.wait()
    _, left = psutil.wait_procs(family, timeout=grace)
    for orphan in left:
        try:
            orphan.kill()
        except psutil.NoSuchProcess:
            continue


def wait_until(ready: Callable[[], bool], pid: int, log: Path, what: str) -> None:
    """Poll until ``ready``. Raises SystemFailed when the process ends first, or after READY_SECONDS."""
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        # A dead child of ours stays a zombie until it is waited for.
        gone = not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        if gone or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:].strip()
            raise SystemFailed(f"{what} {'ended' if gone else 'is not ready'}; its log ends with:\n{tail}")
        time.sleep(0.05)


@contextmanager
def hello(directory: Path) -> Iterator[System]:
    """The ceiling: uvloop and httptools, no work."""
    port, log = free_port(), directory / "hello.log"
    command = [sys.executable, "-m", "actord.loadtest.peers.hello", str(port)]
    with process(command, log) as pid:
        wait_until(Accounts(port).answers, pid, log, "hello")
        yield System("hello", port, [pid], None, read_path=READ_PATH, keeps="nothing: the ceiling")


@contextmanager
def actord(directory: Path, command: Sequence[str], app: str, *, name: str = "actord") -> Iterator[System]:
    """actord as a user starts it, on a new data directory. ``command`` is the program, such as ``["actord"]``."""
    port, log = free_port(), directory / f"{name}.log"
    data = directory / f"{name}-data"
    arguments = [*command, "serve", app, "--port", str(port), "--data-dir", str(data)]
    accounts = Accounts(port)
    with process(arguments, log) as pid:
        wait_until(accounts.answers, pid, log, "actord")
        yield System(
            name,
            port,
            [pid],
            accounts,
            settings={"command": " ".join(arguments)},
            read_path=READ_PATH,
            keeps="SQLite's log, one sync for the calls of a moment",
        )


@contextmanager
def compiled(directory: Path, command: Sequence[str], app: str) -> Iterator[System]:
    """The same with its hot path compiled, which ``make compiled`` puts into COMPILED."""
    if not list(COMPILED.glob("actord/shards/turns.*.so")):
        raise SystemMissing(f"{COMPILED} is not there: make compiled")
    with actord(directory, ["env", f"PYTHONPATH={COMPILED}", *command], app, name="actord-compiled") as system:
        yield system


@contextmanager
def fastapi(directory: Path, *, update: bool = False) -> Iterator[System]:
    """FastAPI, uvicorn with two workers, asyncpg, and a PostgreSQL of its own that syncs each commit; table filled.

    A debit locks its row, reads, checks and writes; with ``update`` it is one statement.
    """
    name = "fastapi-update" if update else "fastapi"
    # An absent package is told before a database is made for nothing.
    _need_packages("fastapi", "uvicorn", "asyncpg")
    with postgres(directory / f"{name}-postgres") as (database, dsn, settings):
        port, log = free_port(), directory / f"{name}.log"
        command = [sys.executable, "-m", "uvicorn", "actord.loadtest.peers.fastapi_pg:app", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--workers", "2", "--no-access-log", "--log-level", "warning"]
        accounts = Accounts(port)
        with process(command, log, DSN=dsn, DEBIT="update" if update else "lock") as pid:
            wait_until(accounts.answers, pid, log, "FastAPI")
            keeps = "PostgreSQL's log, synchronous_commit = on"
            yield System(name, port, [pid, database], accounts, True, {"postgresql": settings}, keeps=keeps)


def _need_packages(*names: str) -> None:
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        raise SystemMissing(f"not installed: {', '.join(absent)}; the extra `bench` has them")


@contextmanager
def postgres(directory: Path) -> Iterator[tuple[int, str, dict[str, object]]]:
    """A cluster in ``directory``; as root it runs as the user ``postgres``, who must be able to reach that folder.

    Hands out the server's pid, a DSN, and its durability settings as the server itself reports them.
    """
    programs = postgres_programs()
    owner = "postgres" if os.geteuid() == 0 else None
    directory.mkdir(mode=0o700)
    if owner:
        shutil.chown(directory, owner, owner)
    cluster, log, port = directory / "db", directory.with_suffix(".log"), free_port()
    initdb = [str(programs / "initdb"), "-D", str(cluster), "-A", "trust", "-E", "UTF8", "-U", "postgres", "--no-sync"]
    groups: list[str] | None = [] if owner else None
    made = subprocess.run(
        initdb, capture_output=True, text=True, cwd=directory, user=owner, group=owner, extra_groups=groups
    )
    if made.returncode:
        raise SystemFailed(f"initdb failed: {made.stderr.strip()}")
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 300,
        "fsync": "on",
        "synchronous_commit": "on",
        "shared_buffers": "512MB",
        "max_wal_size": "8GB",
    }
    command = [str(programs / "postgres"), "-D", str(cluster)]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]

    def psql(statement: str) -> subprocess.CompletedProcess[str]:
        where = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-d", "postgres"]
        return subprocess.run(
            [str(programs / "psql"), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", *where, "-c", statement],
            capture_output=True,
            text=True,
        )

    # SIGINT is PostgreSQL's fast shutdown; TERM would wait for its clients.
    with process(command, log, user=owner, polite=signal.SIGINT) as pid:
        wait_until(lambda: psql("SELECT 1").returncode == 0, pid, log, "PostgreSQL")
        filled = psql(
            "CREATE TABLE account (name text PRIMARY KEY, balance bigint NOT NULL);"
            f"INSERT INTO account SELECT 'acct-' || i, {OPENING_BALANCE} FROM generate_series(1, {NAMES}) i;"
        )
        analysed = psql("VACUUM ANALYZE account")
        if filled.returncode or analysed.returncode:
            raise SystemFailed(f"the table could not be filled: {filled.stderr.strip()} {analysed.stderr.strip()}")
        wanted = ("server_version", "fsync", "synchronous_commit", "wal_sync_method", "full_page_writes")
        settings: dict[str, object] = {name: psql(f"SHOW {name}").stdout.strip() for name in wanted}
        yield pid, f"postgresql://postgres@127.0.0.1:{port}/postgres", settings


def postgres_programs() -> Path:
    """The newest PostgreSQL's programs: Debian keeps them off the PATH. Raises SystemFailed if there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    raise SystemMissing("no PostgreSQL found: install Debian's package postgresql")
