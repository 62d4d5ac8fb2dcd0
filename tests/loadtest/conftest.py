"""A bank in memory behind a real socket: what wrk and the audit talk to in these tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Bank:
    """Accounts over HTTP. ``seen``: (method, path, media type, body) of each call. Fields plant bugs."""

    def __init__(self) -> None:
        self.balances: dict[str, int] = {}
        self.seen: list[tuple[str, str, str, bytes]] = []
        self.status = 200
        self.forget_every = 0  # answer each n-th debit without writing it
        self.write_twice_every = 0  # write each n-th debit twice
        self.debits = 0
        self.lock = threading.Lock()
        self.port = 0

    def call(self, name: str, method: str, amount: int) -> object:
        with self.lock:
            balance = self.balances.get(name, 0)
            if method == "balance":
                return balance
            if method == "deposit":
                self.balances[name] = balance + amount
                return self.balances[name]
            if balance < amount:
                return {"ok": False, "balance": balance}
            self.debits += 1
            if not (self.forget_every and self.debits % self.forget_every == 0):
                self.balances[name] = balance - amount
            if self.write_twice_every and self.debits % self.write_twice_every == 0:
                self.balances[name] -= amount
            return {"ok": True, "balance": balance - amount}


@pytest.fixture
def bank() -> Iterator[Bank]:
    state = Bank()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.seen.append((self.command, self.path, self.headers["Content-Type"], body))
            _, _, _, name, method = self.path.split("/")
            reply = json.dumps(state.call(name, method, json.loads(body).get("amount", 0))).encode()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # the audit opens its connections at once

    with Server(("127.0.0.1", 0), Handler) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        server.shutdown()
        thread.join()
