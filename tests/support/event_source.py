"""A reader of server-sent events that behaves as a browser's: it comes back with the last id after every end."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from typing import Any, NamedTuple
from urllib.parse import quote

from tests.support.server import PATIENCE_SECONDS, Server


class Event(NamedTuple):
    id: int
    kind: str
    data: Any


class EventSource:
    """Reads in a thread of its own until it is closed. ``events`` grows; ``wait`` waits for some to be there."""

    def __init__(self, server: Server, type_: str, name: str, query: str = "") -> None:
        self._server = server
        self._path = f"/actors/{type_}/{quote(name, safe='')}/events{query}"
        self._connection: http.client.HTTPConnection | None = None
        self._closed = False
        self._changed = threading.Condition()
        self.last_id = ""
        self.connections = 0  # that were answered with a stream
        self.events: list[Event] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, count: int) -> list[Event]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.events) >= count, PATIENCE_SECONDS), self.events[-3:]
            return list(self.events)

    def wait_connected(self, times: int = 1) -> EventSource:
        with self._changed:
            assert self._changed.wait_for(lambda: self.connections >= times and self.last_id, PATIENCE_SECONDS)
        return self

    def close(self) -> None:
        self._closed = True
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(2)
        self._thread.join(PATIENCE_SECONDS)

    def __enter__(self) -> EventSource:
        return self.wait_connected()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closed:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._read()
            time.sleep(0.02)  # what a browser waits for, shortened

    def _read(self) -> None:
        connection = self._connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", self._path, headers={"Last-Event-ID": self.last_id} if self.last_id else {})
            response = connection.getresponse()
            if response.status != 200:
                response.read()
                return
            assert response.getheader("content-type") == "text/event-stream"
            with self._changed:
                self.connections += 1
            fields: dict[str, str] = {}
            while line := response.readline().decode():
                if not line.endswith("\n"):
                    return
                if line != "\n":
                    name, _, value = line.rstrip("\n").partition(": ")
                    fields[name] = value
                    continue
                self._dispatch(fields)
                fields = {}

    def _dispatch(self, fields: dict[str, str]) -> None:
        with self._changed:
            self.last_id = fields.get("id", self.last_id)
            if "data" in fields:
                event = Event(int(self.last_id), fields.get("event", "message"), json.loads(fields["data"]))
                self.events.append(event)
            self._changed.notify_all()
