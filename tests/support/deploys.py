"""A server whose program is deployed again and again, and the load that must not notice."""

from __future__ import annotations

import asyncio
import socket
import threading
import uuid
from pathlib import Path
from typing import Any

from actord.server.admin import AdminClient

from tests.support.client import Client
from tests.support.server import PROGRAMS, Server, until
from tests.support.websockets import CLOSE, Socket

SOURCE = (PROGRAMS / "deploys.py").read_text()
PATIENCE = 60.0


class Deployed:
    """``app.py`` in a folder of its own. ``reload`` answers like the command; StartError with its words."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.app = folder / "app.py"
        self.write(SOURCE)
        options = {"server.workers": 2, "storage.shards": 2, "server.pin": False} | settings
        name = f"actord-test-{uuid.uuid4().hex}"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # in the place of systemd
        self.manager.bind(f"\0{name}")
        self.manager.settimeout(PATIENCE)
        environment = {"NOTIFY_SOCKET": f"@{name}"}
        self.server = Server(self.app, folder / "data", settings=options, environment=environment).start()

    def write(self, source: str) -> None:
        self.app.write_text(source)

    def version(self, number: int, source: str = SOURCE) -> None:
        self.write(source.replace("VERSION = 1", f"VERSION = {number}"))

    def reload(self) -> dict[str, Any]:
        with AdminClient(str(self.server.data_dir)) as admin:
            done: dict[str, Any] = admin.have_done("reload", on_progress=lambda _: None, patience=PATIENCE)
        return done

    def versions(self) -> set[int]:
        """Of both workers."""
        return {self.server.result("Account", name, "version") for name in "abcdef"}

    def workers(self) -> set[int]:
        return {child.pid for child in self.server.children("worker")}

    def notified(self, of: str) -> list[str]:
        """What the service manager is told next that begins so, line by line."""
        while not (message := self.manager.recv(65_536).decode()).startswith(of):
            pass
        return message.splitlines()

    def close(self) -> None:
        self.server.close()
        self.manager.close()


class Load:
    """Clients over HTTP, until ``end``: calls along chains, messages, slow turns, repeated keys, the front door.

    ``marks``: actor -> the marks that it must have. ``failed``: every answer that was not the one to expect.
    """

    def __init__(self, port: int, clients: int = 8) -> None:
        self._port = port
        self.calls = 0
        self.failed: list[Any] = []
        self.marks: dict[str, set[str]] = {}
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(clients)]

    async def _run(self, number: int) -> None:
        client = Client(self._port)
        count = 0
        while not self._stop.is_set():
            count += 1
            mark = f"{number}-{count}"
            a, b, c = f"a{count % 5}", f"b{count % 3}", f"c{count % 7}"
            match (number + count) % 6:
                case 0:
                    reached, reply = [c], await client.call("Account", c, "add", mark)
                case 1:
                    reached, reply = [a, b, c], await client.call("Account", a, "pay", mark, b, c)
                case 2:
                    reached, reply = [b, c], await client.call("Account", b, "post", mark, c)
                case 3:
                    reached, reply = [b], await client.call("Account", b, "slow", mark, 0.005)
                case 4:
                    head = f"POST /actors/Account/{a}/add HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                    body = f'["{mark}"]'
                    request = f"{head}Idempotency-Key: {mark}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
                    await client.send(request)
                    reached, reply = [a], await client.send(request)
                case _:
                    request = f"POST /pay/{a}/{c}?mark={mark} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n".encode()
                    reached, reply = [a, c], await client.send(request)
            self.calls += 1
            if reply.status != 200 or reply.json()[0] != 1:
                self.failed.append(reply)
                continue
            for name in reached:
                self.marks.setdefault(name, set()).add(mark)
        client.close()

    async def end(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    def audit(self, server: Server) -> None:
        """Everything that was answered is where it should be, and nothing is anywhere twice."""
        for name, marks in self.marks.items():
            until(lambda name=name, marks=marks: server.result("Account", name, "marks").keys() >= marks, name)
            found = server.result("Account", name, "marks")
            assert {mark: times for mark, times in found.items() if times != 1} == {}, name


class Guest(threading.Thread):
    """A socket that says something whenever it has heard the last of it, until the test ends."""

    def __init__(self, server: Server, room: str, user: str) -> None:
        super().__init__(daemon=True)
        self._socket = Socket(("127.0.0.1", server.port), f"/actors/Account/{room}?user={user}")
        self._user = user
        self._leave = threading.Event()
        self.said: list[str] = []
        self.heard: list[list[str]] = []
        self.end: str = ""
        self.start()

    def run(self) -> None:
        while not self._leave.is_set():
            self.said.append(f"{self._user}-{len(self.said)}")
            self._socket.text(self.said[-1])
            while True:
                got = self._socket.receive()
                if got is None or got.opcode is CLOSE:
                    self.end = "cut" if got is None else f"{got.code} {got.reason}"
                    return
                words = got.data.decode().split(" ")
                if words[0] == self.said[-1]:
                    self.heard.append(words)
                    break

    def leave(self) -> None:
        self._leave.set()
        self.join(PATIENCE)
        self._socket.sock.close()

    def check(self) -> None:
        """It was never closed; each message was handled once; its attachment counts them all."""
        assert self.end == ""
        assert [(words[0], words[1]) for words in self.heard] == [(said, "1") for said in self.said]
        assert [int(words[2]) for words in self.heard] == list(range(1, len(self.said) + 1))
