"""An HTTP server that answers by a script, and remembers what it was asked. For tests of the client."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

from actord import codec
from actord.errors import ActordError


class Asked(NamedTuple):
    """A request as it came. Header names are lower case; ``connection`` tells the connections apart."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


class Reply(NamedTuple):
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}


# What a script is made of: a reply, a function of the request that makes one, or one of these.
DROP = object()  # close the connection without an answer
Step = Reply | Callable[[Asked], Any] | object


def value(result: Any) -> Reply:
    """The result of a method."""
    return Reply(200, codec.encode(result), {"Content-Type": "application/msgpack"})


def problem(error: ActordError) -> Reply:
    """An error as the front tells it."""
    document = error.to_problem()
    return Reply(document["status"], json.dumps(document).encode(), {"Content-Type": "application/problem+json"})


class FakeServer:
    """Takes the script's steps in turn, and repeats the last one. ``url`` is its address."""

    def __init__(
        self, script: Iterable[Step], *, path: Path | None = None, tls: tuple[Path, Path] | None = None
    ) -> None:
        self.script = list(script)
        self.asked: list[Asked] = []
        self.busy = self.busiest = 0  # how many requests are being answered, and were at once
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = path is None

            def setup(self) -> None:
                super().setup()
                with fake._lock:
                    fake._open.append(self.connection)
                    self.number = len(fake._open)

            def parse_request(self) -> bool:
                self.command = ""
                return super().parse_request()

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {key.lower(): text for key, text in self.headers.items()}
                reply = fake.reply(Asked(self.command, self.path, headers, body, self.number))
                if not isinstance(reply, Reply):
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for key, text in reply.headers.items():
                    self.send_header(key, text)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(socketserver.ThreadingMixIn, socketserver.TCPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: Any) -> None:
                """Clients go away."""

        class Tcp(Quiet):
            pass

        class Unix(Quiet):
            address_family = socket.AF_UNIX

        self._server: socketserver.BaseServer
        if path is None:
            self._server = Tcp(("127.0.0.1", 0), Handler)
            self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
            if tls is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*tls)
                self._server.socket = context.wrap_socket(
                    self._server.socket, server_side=True, do_handshake_on_connect=False
                )
                self.url = f"https://localhost:{self._server.server_address[1]}"
        else:
            self._server = Unix(str(path), Handler)  # type: ignore[arg-type]
            self.url = f"unix:{path}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def reply(self, asked: Asked) -> Any:
        with self._lock:
            step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            self.asked.append(asked)
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
        try:
            return step(asked) if callable(step) else step
        finally:
            with self._lock:
                self.busy -= 1

    @property
    def connections(self) -> int:
        """How many were ever made."""
        return len(self._open)

    def stop_listening(self) -> None:
        """From now on connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    def hang_up(self) -> None:
        """Close all connections."""
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_listening()
        self.hang_up()
        self._thread.join()
