"""The fake worker's side of sockets: the name of the actor and the messages say what it does.

Names: ``refuse`` answers 403 · ``wait`` leaves the opening alone, and does not begin it · ``begin`` begins it and
leaves it alone · ``forward`` (a path of the front door) leaves the socket to Account/there · anything else accepts,
with the last subprotocol that was offered and an extra header.

Messages: ``close CODE REASON`` · ``all TEXT`` goes to every socket · ``flood COUNT SIZE`` sends as many messages ·
``keep`` sets tags and attachment · ``busy`` begins and is not done, nor is anything after it, until ``go_on`` is
called · ``die`` begins and ends the process · anything else comes back.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from actord.limits import LINK_CALLS
from actord.shards import wire

EVENTS = (wire.WS_OPEN, wire.WS_DOOR, wire.WS_MESSAGE, wire.WS_CLOSED, wire.WS_HELD)


class FakeSockets:
    def __init__(self) -> None:
        self.seen: list[Any] = []  # events without sid and seq; a held socket as a whole
        self.sids: list[int] = []
        self.waiting: deque[wire.Frame] | None = None

    def greet(self, transport: Any, begun: Any) -> None:
        self.transport = transport
        self.begun = memoryview(begun)[LINK_CALLS:].cast("Q")

    def take(self, frame: wire.Frame) -> list[wire.Frame]:
        kind = frame[0]
        if kind == wire.WS_HELD:
            for held in frame[1]:
                self.sids.append(held[0])
                self.seen.append(["held", *(h.decode("latin-1") if type(h) is bytes else h for h in held[1:])])
            return []
        if self.waiting is not None:
            self.waiting.append(frame)
            return []
        return self.answer(frame)

    def answer(self, frame: wire.Frame) -> list[wire.Frame]:
        kind, sid, seq, *fields = frame
        done = (wire.WS_DONE, sid, seq)
        if kind in (wire.WS_OPEN, wire.WS_DOOR):
            return self.open(kind, sid, seq, fields, done)
        self.begun[sid] = seq
        if kind == wire.WS_CLOSED:
            self.seen.append(["closed", *fields])
            if sid in self.sids:
                self.sids.remove(sid)
            return [done]
        data = fields[0]
        self.seen.append(["message", data.decode("latin-1") if type(data) is bytes else data])
        verb, _, rest = data.partition(" ") if type(data) is str else ("", "", "")
        if verb == "close":
            code, _, reason = rest.partition(" ")
            return [(wire.WS_CLOSE, sid, int(code), reason), done]
        if verb == "all":
            return [(wire.WS_BROADCAST, self.sids, rest), done]
        if verb == "flood":
            count, size = map(int, rest.split())
            return [*((wire.WS_SEND, sid, "x" * size) for _ in range(count)), done]
        if verb == "keep":
            return [(wire.WS_STATE, sid, ["red"], b"\x01"), (wire.WS_SEND, sid, "kept"), done]
        if verb == "busy":
            self.waiting = deque([(*frame[:3], "done")])
            return [(wire.WS_SEND, sid, "busy")]
        if verb == "die":
            os._exit(9)
        return [(wire.WS_SEND, sid, data), done]

    def open(self, kind: int, sid: int, seq: int, fields: list[Any], done: wire.Frame) -> list[wire.Frame]:
        request = fields[3 if kind == wire.WS_OPEN else 1]
        name = fields[2] if kind == wire.WS_OPEN else request[1].strip("/")
        self.seen.append(["open" if kind == wire.WS_OPEN else "door", name])
        if name == "wait":
            return []
        self.begun[sid] = seq
        if name == "begin":
            return []
        if name == "refuse":
            return [(wire.WS_REFUSE, sid, 403, b'{"no":1}', b"Content-Type: application/problem+json\r\n"), done]
        if name == "forward":
            request[2].append(["x-user", "ann"])
            return [(wire.WS_FORWARD, sid, "Account", "there", request, b"X-Door: yes\r\n"), done]
        offered = [value for key, value in request[2] if key == "sec-websocket-protocol"]
        self.sids.append(sid)
        user = next((value for key, value in request[2] if key == "x-user"), "")
        first = [(wire.WS_SEND, sid, f"user {user}")] if user else []
        accept = (wire.WS_ACCEPT, sid, offered[0].split(", ")[-1] if offered else None, b"X-Extra: 1\r\n")
        return [accept, *first, done]

    def go_on(self) -> None:
        waiting, self.waiting = self.waiting or deque(), None
        out: list[wire.Frame] = []
        while waiting and self.waiting is None:
            out += self.answer(waiting.popleft())
        if waiting:
            assert self.waiting is not None
            self.waiting += waiting
        if out:
            self.transport.write(wire.pack_batch(out))
