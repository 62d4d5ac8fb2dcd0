"""One SQLite file for each actor, each commit with its own fsync: WAL, ``synchronous=FULL``, every file kept open.

uvloop and httptools without a framework, so that little but SQLite and the disk is measured; a name always goes to
the same of 32 threads, so that fsyncs of different files overlap. Usage: ``python -m
actord.loadtest.peers.sqlite_files PORT DIRECTORY``; the directory holds ``NAME.db`` for each name, with a table
``entry (id INTEGER PRIMARY KEY, amount INTEGER)``. Two such processes may share the port.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sqlite3
import sys
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import httptools
import uvloop

THREADS = 32


class Files:
    """The open databases, each used by one thread alone."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._threads = [ThreadPoolExecutor(1) for _ in range(THREADS)]
        self._open: list[dict[str, sqlite3.Connection]] = [{} for _ in range(THREADS)]

    def insert(self, name: str, amount: int) -> Future[int]:
        number = zlib.crc32(name.encode()) % THREADS  # the same in every process, and in every run
        return self._threads[number].submit(self._insert, self._open[number], name, amount)

    def _insert(self, known: dict[str, sqlite3.Connection], name: str, amount: int) -> int:
        connection = known.get(name)
        if connection is None:
            path = f"file:{os.path.join(self._directory, name)}.db?mode=rw"
            connection = sqlite3.connect(path, uri=True, isolation_level=None, timeout=30, check_same_thread=False)
            connection.execute("PRAGMA synchronous = FULL")
            known[name] = connection
        row = connection.execute("INSERT INTO entry (amount) VALUES (?)", (amount,)).lastrowid
        assert row is not None
        return row


class Connection(asyncio.Protocol):
    """Answers the requests of one client in their order; the client has one under way at a time."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        name = self._url.split(b"/")[3].decode()
        future = self._files.insert(name, json.loads(self._body)["amount"])
        self._body = b""
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._reply, done))

    def _reply(self, done: Future[int]) -> None:
        failed = done.exception() is not None
        body = b'{"error":true}' if failed else b'{"id":%d}' % done.result()
        status = b"500 Internal Server Error" if failed else b"200 OK"
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        self._transport.write(head + body)


async def main(port: int, directory: str) -> None:
    files = Files(directory)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(files), "127.0.0.1", port, backlog=1024, reuse_port=True
    )
    await server.serve_forever()


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.setswitchinterval(0.0005)
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
