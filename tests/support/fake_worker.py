"""A worker that has no actors: it speaks the wire, obeys the method's name, and counts what reaches it.

    python -P tests/support/fake_worker.py SOCKET [--front-door]

Methods of any type: ``echo`` answers the body · ``hold`` waits for ``release`` (held calls are then answered newest
first, each with its body; it marks them begun) · ``queue`` waits for ``release`` without being begun · ``big`` answers
a megabyte · ``shed`` asks for one call in a billion to be refused · ``full`` says that the mailbox of its actor is
full · ``count`` answers how many frames of each kind came, without counting itself · ``seen`` answers the last frame.
FETCH and DOOR answer a JSON description of the request; its path may be ``/hold`` as well.

Sockets are in fake_sockets.py.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import sys
from typing import Any

import uvloop
from actord.shards import wire

sys.path.insert(0, os.path.dirname(__file__))
from fake_sockets import EVENTS, FakeSockets

KINDS = {wire.CALL: "call", wire.CALLX: "callx", wire.FETCH: "fetch", wire.DOOR: "door", wire.CANCEL: "cancel"}
TEXT = b"Content-Type: text/plain\r\nX-From: worker\r\n"


def latin1(data: bytes) -> str:
    return data.decode("latin-1")


class Program:
    """What all links of the worker share."""

    def __init__(self, front_door: bool) -> None:
        self.facts = {"front_door": front_door, "types": ["Account"]}
        self.counts = dict.fromkeys(KINDS.values(), 0)
        self.held: list[tuple[FakeWorker, int, bytes]] = []
        self.last: Any = None
        self.sockets = FakeSockets()


class FakeWorker(asyncio.Protocol):
    def __init__(self, program: Program) -> None:
        self.program = program
        self.reader = wire.BatchReader()
        self.begun: mmap.mmap | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        replies: list[wire.Frame] = []
        for frame in self.reader.feed(data):
            if frame[0] == wire.CALL and frame[4] == "debit":  # the benchmark's
                replies.append((wire.REPLY, frame[1], 200, b'{"ok":true,"balance":999999999}', None))
            else:
                self.take(frame, replies)
        if replies:
            self.transport.write(wire.pack_batch(replies))

    def take(self, frame: wire.Frame, replies: list[wire.Frame]) -> None:
        program = self.program
        kind = frame[0]
        if kind == wire.HELLO:
            fd = os.open(frame[3], os.O_RDWR)
            self.begun = mmap.mmap(fd, 0)
            os.close(fd)
            program.sockets.greet(self.transport, self.begun)
            replies.append((wire.READY, wire.VERSION, program.facts))
            return
        if kind in EVENTS:
            replies += program.sockets.take(frame)
            return
        id_ = frame[1]
        if kind == wire.CALL and frame[4] == "count":
            replies.append((wire.REPLY, id_, 200, json.dumps(program.counts).encode(), None))
            return
        if kind == wire.CALL and frame[4] == "seen":
            replies.append((wire.REPLY, id_, 200, json.dumps(program.last, default=latin1).encode(), None))
            return
        if kind == wire.CALL and frame[4] == "sockets":
            replies.append((wire.REPLY, id_, 200, json.dumps(program.sockets.seen).encode(), None))
            return
        if kind == wire.CALL and frame[4] == "go_on":
            program.sockets.go_on()
            replies.append((wire.REPLY, id_, 200, b"null", None))
            return
        if kind == wire.CALL and frame[4] == "release":
            held, program.held = program.held, []
            for link, waiting, body in reversed(held):
                link.transport.write(wire.pack_batch([(wire.REPLY, waiting, 200, body, None)]))
            replies.append((wire.REPLY, id_, 200, b"%d" % len(held), None))
            return
        program.counts[KINDS[kind]] += 1
        if kind == wire.CANCEL:
            program.held = [entry for entry in program.held if entry[:2] != (self, id_)]
            replies.append((wire.REPLY, id_, 503, b"{}", None))
            return
        program.last = frame
        if kind == wire.CALL and frame[4] == "full":
            replies += [(wire.FULL, frame[2], frame[3], True), (wire.REPLY, id_, 200, b"null", None)]
        elif kind == wire.CALL:
            self.call(id_, frame[4], frame[7], replies)
        elif kind == wire.CALLX:
            self.call(id_, frame[4], frame[8], replies)
        else:
            request = frame[2] if kind == wire.DOOR else frame[4]
            if request[1].startswith("/hold"):
                self.hold(id_, b"held")
            else:
                body = json.dumps({"kind": KINDS[kind], "request": request, "body": frame[-1].decode()}).encode()
                replies.append((wire.REPLY, id_, 200, body, TEXT))

    def call(self, id_: int, method: str, body: bytes, replies: list[wire.Frame]) -> None:
        if method == "hold":
            self.hold(id_, body)
        elif method == "queue":
            self.program.held.append((self, id_, body))
        elif method == "shed":
            replies += [(wire.SHED, 1e-9), (wire.REPLY, id_, 200, b"null", None)]
        elif method == "big":
            replies.append((wire.REPLY, id_, 200, b'"' + b"x" * 1_000_000 + b'"', None))
        else:
            replies.append((wire.REPLY, id_, 200, body or b"null", None))

    def hold(self, id_: int, body: bytes) -> None:
        assert self.begun is not None
        self.begun[id_] = 1
        self.program.held.append((self, id_, body))


async def main() -> None:
    program = Program("--front-door" in sys.argv)
    path = sys.argv[1]
    server = await asyncio.get_running_loop().create_unix_server(lambda: FakeWorker(program), path)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
