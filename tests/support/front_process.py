"""A real front process with fake workers behind it, and a client that looks at raw answers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools

PATIENCE = 15.0  # seconds until a test gives up on an event
FAKE_WORKER = Path(__file__).with_name("fake_worker.py")


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection. ``answers(n)`` waits for n whole answers; ``at_end`` tells that the server closed."""

    def __init__(self, address: tuple[str, int] | str, tls: ssl.SSLContext | None = None) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.sock = socket.socket(family)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(address)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")
        self._parser = httptools.HttpResponseParser(self)
        self._current = Answer()
        self._done: list[Answer] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *args: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        # The server may refuse, close and forget us in the middle of what we send.
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(data)

    def call(self, method: str, body: bytes = b"", *, type_: str = "Canary", name: str = "x", extra: str = "") -> None:
        head = f"POST /actors/{type_}/{name}/{method} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        self.send(f"{head}Content-Length: {len(body)}\r\n{extra}\r\n".encode() + body)

    def get(self, target: str, extra: str = "", method: str = "GET") -> None:
        self.send(f"{method} {target} HTTP/1.1\r\nHost: a\r\n{extra}\r\n".encode())

    def answers(self, count: int) -> list[Answer]:
        """The next ``count`` answers; fewer when the server closes before."""
        while len(self._done) < count:
            data = self._receive()
            if not data:
                break
            self._parser.feed_data(data)
        got, self._done = self._done[:count], self._done[count:]
        return got

    def answer(self) -> Answer:
        [answer] = self.answers(1)
        return answer

    def at_end(self) -> bool:
        """Waits until the server closes; False when it sends anything instead."""
        return not self._done and not self._receive()

    def reset(self) -> None:
        """Vanish: the server gets a reset, not a half-closed connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.sock.close()

    def _receive(self) -> bytes:
        try:
            return self.sock.recv(262_144)
        except (ConnectionResetError, ssl.SSLEOFError):
            return b""

    # callbacks of the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._current.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._current.body += body

    def on_message_complete(self) -> None:
        self._current.status = self._parser.get_status_code()
        self._done.append(self._current)
        self._current = Answer()


class FrontProcess:
    """Starts the processes; ``workers[k]`` may be killed and started again."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        front_door: bool = False,
        settings: dict[str, Any] | None = None,
        uds: bool = False,
        start_workers: bool = True,
        access: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self._front_door = front_door
        self.workers: list[subprocess.Popen[bytes] | None] = [None] * workers
        listening = socket.socket(socket.AF_UNIX if uds else socket.AF_INET)
        self.address: Any = str(folder / "front.sock") if uds else ("127.0.0.1", 0)
        listening.bind(self.address)
        listening.listen(1024)
        listening.setblocking(False)
        if not uds:
            self.address = listening.getsockname()
        self.control, theirs = socket.socketpair()
        self.control.settimeout(PATIENCE)
        self._lines = self.control.makefile("rb")
        if start_workers:
            for index in range(workers):
                self.start_worker(index)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "actord.server.front", str(theirs.fileno())],
            pass_fds=[theirs.fileno(), listening.fileno()],
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.errors: list[bytes] = []
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self.errors.extend, args=(self.process.stderr,))
        self._reader.start()
        self.tell(
            {
                "boot": "front",
                "patient": False,
                "supervisor": os.getpid(),
                "index": 0,
                "settings": settings or {},
                "listen": [listening.fileno()],
                "links": [{"path": self._worker_path(k), "shards": [k]} for k in range(workers)],
                "shards": workers,
                "runtime_dir": str(folder),
                "version": "1.2.3",
                "access": access,
            }
        )
        listening.close()
        if start_workers:
            try:
                assert self.hear() == {"ready": True, "pid": self.process.pid}
            except BaseException:
                self.__exit__()
                raise

    def __enter__(self) -> FrontProcess:
        return self

    def __exit__(self, *args: object) -> None:
        self.control.close()  # the front leaves at once when its supervisor has gone
        self._lines.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            for worker in self.workers:
                if worker is not None:
                    worker.kill()
                    worker.wait()
            self._reader.join()
        assert not self.errors, b"".join(self.errors).decode()

    def _worker_path(self, index: int) -> str:
        return str(self.folder / f"w{index}.sock")

    def start_worker(self, index: int = 0) -> None:
        path = Path(self._worker_path(index))
        path.unlink(missing_ok=True)
        door = ["--front-door"] if self._front_door else []
        self.workers[index] = subprocess.Popen([sys.executable, "-P", str(FAKE_WORKER), str(path), *door])

    def kill_worker(self, index: int = 0) -> None:
        worker = self.workers[index]
        assert worker is not None
        worker.send_signal(signal.SIGKILL)
        worker.wait()

    def tell(self, message: dict[str, Any]) -> None:
        self.control.sendall(json.dumps(message).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self._lines.readline())
        return line

    def connect(self) -> Client:
        return Client(self.address)

    def counts(self) -> dict[str, int]:
        """How many frames of each kind have reached worker 0."""
        with self.connect() as client:
            client.call("count")
            counts: dict[str, int] = client.answer().json
            return counts

    def wait_for_counts(self, **wanted: int) -> None:
        """Waits until the worker has seen so many frames; each look is a round trip to it."""
        with self.connect() as client:
            for _ in range(100_000):
                client.call("count")
                counts = client.answer().json
                if all(counts[kind] >= count for kind, count in wanted.items()):
                    return
        raise AssertionError(f"the worker never saw {wanted}, but {counts}")
