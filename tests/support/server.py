"""A real server for a test: its own processes, a free port, its log as records, its end by process id.

1. ``start`` returns when the server has said on standard output where it listens: all of its children are ready.
2. ``wait_log`` waits for a line of the log to arrive; nothing here sleeps in order to wait.
3. Every child of the server carries a mark of its own in its environment: ``survivors`` finds them all, orphans
   included, and ``close`` ends them, whatever the test did.
4. The supervisor is a fork of a process that is warm (``tests.support.warm``); its children are started as always.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import re
import select
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from tests.support import warm

PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.01
ROLES = {"actord.server.front": "front", "actord.shards.worker": "worker", "worker_variant.py": "worker"}
PROGRAMS = Path(__file__).parent.parent / "system" / "programs"
WORKER_VARIANT = Path(__file__).with_name("worker_variant.py")
MARK = "ACTORD_TEST_SERVER"

_SHARD_FILE = re.compile(r"/shards/(\d{4})\.db$")


class Reply(NamedTuple):
    """An HTTP answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Child(NamedTuple):
    role: str
    pid: int


class Server:
    """One data directory and the server on it; ``start`` may be called again after an end."""

    def __init__(
        self,
        program: str | Path,
        data_dir: Path,
        *,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        variant: str = "",
    ) -> None:
        """``settings``: "section.key" -> value; one worker unless they say otherwise.

        ``variant``: a worker of ``worker_variant`` in the real one's place.
        """
        self.program = PROGRAMS / program
        self.data_dir = data_dir
        self.settings = {"server.workers": 1} | dict(settings or {})
        self.port = 0
        self.log: list[dict[str, Any]] = []
        self.process: warm.Running | None = None
        self._mark = uuid.uuid4().hex
        self._environment = dict(environment or {})
        self._variant = variant
        self._arrived = threading.Condition()
        self._reader: threading.Thread | None = None

    # -- life

    def start(self, *, wait: bool = True) -> Server:
        """Start the server; with ``wait`` until it listens. The port of the first start is kept."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ACTORD_")}
        environment |= {
            f"ACTORD_{key.replace('.', '_').upper()}": str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in self.settings.items()
        }
        environment |= self._environment | {MARK: self._mark}
        if self._variant:
            environment["ACTORD_TEST_VARIANT"] = self._variant
        command = ["serve", str(self.program), "--data-dir", str(self.data_dir), "--port", str(self.port)]
        main = functools.partial(warm.actord_with, str(WORKER_VARIANT)) if self._variant else warm.actord
        self.process = warm.Running(main, [*command, "--log-format", "json"], environment)
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        if wait:
            self.port = int(self.first_line().rsplit(":", 1)[1])
        return self

    def first_line(self) -> str:
        """The address that the server prints when it is ready; AssertionError with its log when it ends instead."""
        assert self.process is not None
        assert self.process.stdout is not None
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        line = b"" if not poll.poll(PATIENCE_SECONDS * 1000) else self.process.stdout.readline()
        assert line, f"the server does not listen: {self.text()}"
        return line.decode().strip()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code, when the supervisor has ended and its whole log is read."""
        assert self.process is not None
        code = self.process.wait(PATIENCE_SECONDS)
        self.wait_gone()
        return code

    def stop(self) -> int:
        """TERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL to the supervisor; returns when no process of the server is left."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait_gone(self) -> None:
        """All processes have ended: nobody holds the writing end of the log any more."""
        assert self._reader is not None
        self._reader.join(PATIENCE_SECONDS)
        assert not self._reader.is_alive(), f"processes that outlive their server: {self.survivors()}"

    def close(self) -> None:
        """End whatever is left, by process id."""
        if self.process is None:
            return
        for pid in [self.pid, *self.survivors()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for pid in self.survivors():  # started while we looked
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._reader is not None
        self._reader.join(PATIENCE_SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- its processes

    def survivors(self) -> list[int]:
        """The ids of all processes of this server that are no zombies."""
        assert self.process is not None
        found = [] if self.process.poll() is not None else [self.pid]
        wanted = f"{MARK}={self._mark}".encode()
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                with contextlib.suppress(OSError):
                    if wanted in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                        found.append(int(entry))
        return found

    def children(self, role: str | None = None) -> list[Child]:
        """The supervisor's living children, of one role or all."""
        found = []
        for pid in self.survivors():
            with contextlib.suppress(OSError):
                words = Path("/proc", str(pid), "cmdline").read_bytes().decode().split("\0")
                parent = int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])
                which = next((ROLES[base] for word in words if (base := word.rpartition("/")[2]) in ROLES), None)
                if which is not None and parent == self.pid and role in (None, which):
                    found.append(Child(which, pid))
        return found

    def worker_of(self, shard: int) -> int:
        """The process id of the one worker that has the shard's database open."""
        owners = [child.pid for child in self.children("worker") if shard in shards_of(child.pid)]
        assert len(owners) == 1, f"shard {shard} is open in {owners}"
        return owners[0]

    def kill_child(self, pid: int) -> None:
        """SIGKILL; returns when the process has ended."""
        with pidfd(pid) as fd:
            os.kill(pid, signal.SIGKILL)
            assert ended(fd), f"process {pid} does not end"

    # -- its log

    def _read(self, stream: Any) -> None:
        with stream:
            for line in stream:
                try:
                    record = json.loads(line)
                except ValueError:
                    record = {"level": "raw", "process": "?", "message": line.decode(errors="replace").rstrip()}
                with self._arrived:
                    self.log.append(record)
                    self._arrived.notify_all()
        with self._arrived:
            self._arrived.notify_all()

    def mark(self) -> int:
        """A place in the log: waits and searches may begin here."""
        return len(self.log)

    def wait_log(self, pattern: str, *, since: int = 0, count: int = 1) -> list[dict[str, Any]]:
        """Wait until ``count`` records match, and return them."""
        search = re.compile(pattern).search
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            found[:] = [record for record in self.log[since:] if search(record["message"])]
            return len(found) >= count

        with self._arrived:
            assert self._arrived.wait_for(enough, PATIENCE_SECONDS), f"no {pattern!r} in the log: {self.text(since)}"
        return found

    def unexpected(self, *expected: str, since: int = 0) -> list[dict[str, Any]]:
        """Records of level error and above, and lines that are no records, that match none of the patterns."""
        return [
            record
            for record in self.log[since:]
            if record["level"] in ("error", "critical", "raw")
            and not any(re.search(pattern, record["message"]) for pattern in expected)
        ]

    def text(self, since: int = 0) -> str:
        return "\n".join(
            f"{r['level']} {r['process']} {r['message']} {r.get('traceback', '')}" for r in self.log[since:]
        )

    # -- its front

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = PATIENCE_SECONDS,
    ) -> Reply:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def call(self, type_: str, name: str, method: str, *args: Any, **kwargs: Any) -> Reply:
        """Call an actor with JSON arguments, positional or by name."""
        body = json.dumps(list(args) or kwargs).encode() if args or kwargs else None
        headers = {"Content-Type": "application/json"} if body else {}
        return self.request("POST", call_path(type_, name, method), body, headers)

    def result(self, type_: str, name: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """The same for a call that has to succeed: its value."""
        reply = self.call(type_, name, method, *args, **kwargs)
        assert reply.status == 200, reply
        return reply.json()

    def ready(self) -> bool:
        try:
            return self.request("GET", "/-/health/ready").status == 200
        except OSError:
            return False

    def wait_ready(self) -> None:
        until(self.ready, "the server to be ready")


def call_path(type_: str, name: str, method: str) -> str:
    return f"/actors/{type_}/{quote(name, safe='')}/{method}"


def until(condition: Callable[[], object], what: str, *, patience: float = PATIENCE_SECONDS) -> None:
    """Poll a condition that has no event to wait for."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def pidfd(pid: int) -> Iterator[int]:
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def ended(fd: int, seconds: float = PATIENCE_SECONDS) -> bool:
    """Wait for the end of the process behind a pidfd."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def shards_of(pid: int) -> set[int]:
    """The shards whose database a process has open."""
    found = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if match := _SHARD_FILE.search(os.readlink(f"/proc/{pid}/fd/{fd}")):
                    found.add(int(match[1]))
    return found


def resident_bytes(pid: int) -> int:
    fields = Path("/proc", str(pid), "statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def read_replies(sock: socket.socket, count: int) -> Sequence[Reply]:
    """The next answers of a connection, in order."""
    replies = []
    with sock.makefile("rb") as stream:  # one buffer for all of them
        for _ in range(count):
            status = int(stream.readline().split()[1])
            headers = {name.lower(): value for name, value in http.client.parse_headers(stream).items()}
            replies.append(Reply(status, headers, stream.read(int(headers.get("content-length", 0)))))
    return replies
