"""Frames between processes: batches of msgpack arrays on a unix stream. Bytes in, frames out; no I/O here.

A batch is a 32-bit little-endian length and a msgpack array of frames; a frame is an array that begins with its kind.
One C call decodes a whole batch, which measured three times faster than one struct per frame.

Caller to worker                                                  Worker to caller
  HELLO   version, caller's name, path of its begun map             READY   version, facts about the program (a map)
  CALL    id, type, name, method, flags, deadline, body             REPLY   id, status, body, head
  FETCH   id, type, name, request, extras, flags, deadline, body           DRAINING
  DOOR    id, request, flags, deadline, body
  CALLX   id, type, name, method, extras, flags, deadline, body
  CANCEL  id                                                        HEAD    id, status, head
  GRANT   id, bytes                                                 DATA    id, data, state
  BODY    id, data, last                                            GRANT_BODY  id, bytes
  PROBE   worker, token, born, via, path
  CYCLE   token, path                                               ELSEWHERE   id
  STOPPED                                                           LEAVING
                                                                    SHED    share
                                                                    FULL    type, name, whether it is

A link of a client (shards/direct.py) has the ticket of the map in the place of the begun map's path, which READY tells;
it is told DRAINING alone, and says STOPPED when it has many calls at a time.
ELSEWHERE is for it alone: the call was not taken, and is for the front, or for another worker.
SHED tells a front which share of its calls, from 0 to 1, it should refuse itself (shards/admission.py), FULL that a
name's mailbox is full, or not any more (shards/fullness.py).

``extras`` is None or a map: "key" and "msg" make the call take effect once (an idempotency key; a message of an
outbox), "again" says that a call with "key" had begun when its link was lost, "from" is the actor whose turn makes the
call: [type, name, born], born in nanoseconds of CLOCK_MONOTONIC. "trace" is a W3C traceparent and "rid" the request's
id, for logs and traces.
PROBE and CYCLE are between workers, see ``shards.waits``; a path is a list of [type, name].

``deadline`` is in milliseconds of CLOCK_MONOTONIC, which all processes of one machine share. ``request`` of FETCH and
DOOR is [method, target, [[name, value], ...], client address], all str: target in ASCII, names in lower case, values as
Latin-1; the address is an IP address, or None on a unix socket. ``head`` of a REPLY is None for plain JSON (a problem
document when the status is 400 or more), else the header lines of the response as bytes, each ended by CRLF, without
Content-Length, Date and Connection: the front adds those.

A call is answered by one REPLY, or, when the answer is a stream, by one HEAD and any number of DATA. ``state`` of DATA
is MORE, END, BROKEN or MOVED: with one of the latter the call is over and its id free again. ``head`` of HEAD is as
above, but never None, and may hold ``content-length: N``. The worker may have sent STREAM_WINDOW_BYTES (data, and
STREAM_FRAME_BYTES for each DATA that is not the last) more than the caller has granted; GRANT raises that.

MOVED ends a stream of events that a worker's successor goes on with: ``data`` is the number of the last event, and the
caller asks again with it as Last-Event-ID.

A DOOR with the flag BODY_FOLLOWS has its body in BODY frames, sent as GRANT_BODY allows, from nothing on.

A worker that makes room for its successor says DRAINING to the fronts: what comes from now on should wait. LEAVING,
which every caller is told, says that nothing more is taken: the caller sends what it has, STOPPED behind it, and no
frame after that on this connection, which the worker then closes. What it did not take has not begun.

Sockets (server/relay.py, shards/sockets.py) are numbered by the front for each link: ``sid``.
  WS_OPEN     sid, seq, uid, type, name, request, deadline[, True]  WS_ACCEPT     sid, subprotocol or None, head
  WS_DOOR     sid, seq, uid, request, deadline                      WS_REFUSE     sid, status, body, head
  WS_MESSAGE  sid, seq, data                                        WS_FORWARD    sid, type, name, request, head
  WS_CLOSED   sid, seq, code, reason                                WS_SEND       sid, data
  WS_HELD     [[sid, uid, type, name, subprotocol, tags,            WS_BROADCAST  [sid, ...], data
                attachment], ...]                                   WS_CLOSE      sid, code, reason
                                                                    WS_STATE      sid, tags, attachment
                                                                    WS_DONE       sid, seq
The first four are events. ``seq`` grows from event to event of a link; each event is answered by one WS_DONE, behind
everything that its turn sends. When the turn of an event begins, its seq is noted in the begun map, in the eight bytes
of the sid. ``data`` is str or bytes, ``tags`` a list of str, ``attachment`` the value as the codec encodes it, or None.
WS_HELD names the sockets that were accepted before this connection of the link; an empty one is the last.
The True of WS_OPEN: the front door leaves the socket to the actor, which need not be exposed to clients for that.
WS_REFUSE answers WS_OPEN or WS_DOOR over HTTP; WS_FORWARD asks to open the socket at an actor, with that request and
those lines in the head of the answer.
"""

from __future__ import annotations

import struct
from typing import Any

import ormsgpack
from actord.limits import WIRE_BATCH_BYTES

VERSION = 2

HELLO, CALL, FETCH, DOOR, CANCEL, CALLX, PROBE, CYCLE, BODY, GRANT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
READY, REPLY, DRAINING, HEAD, DATA, GRANT_BODY = 16, 17, 18, 19, 20, 21
ELSEWHERE = 56
SHED, FULL = 57, 58
STOPPED, LEAVING = 48, 49

# states of DATA
MORE, END, BROKEN, MOVED = 0, 1, 2, 3

WS_OPEN, WS_HELD, WS_MESSAGE, WS_CLOSED, WS_DOOR = 11, 12, 13, 14, 15
WS_ACCEPT, WS_REFUSE, WS_SEND, WS_BROADCAST, WS_CLOSE, WS_STATE, WS_DONE, WS_FORWARD = 22, 23, 24, 25, 26, 27, 28, 29

# flags of CALL, FETCH and DOOR
MSGPACK = 1  # body and reply are application/msgpack, with every codec type
TIMING = 2  # the caller wants Server-Timing in the reply's head
EVENTS = 8  # of a FETCH: not the actor's handler is meant, but the stream of what it emits
PAIR = 4  # with MSGPACK: the body is [positional, keywords], as a Python caller gave them
BODY_FOLLOWS = 16  # of a DOOR: the body comes in frames of its own

# A DOOR with this target is answered by the runtime: the program as an OpenAPI document.
OPENAPI = "/-/openapi.json"

Frame = tuple[Any, ...] | list[Any]

_LENGTH = struct.Struct("<I")
_packb = ormsgpack.packb
_unpackb = ormsgpack.unpackb


class WireError(Exception):
    """The peer sent something that is no batch. The link is closed; nothing of the batch was taken."""


def pack_batch(frames: list[Frame]) -> bytes:
    payload = _packb(frames)
    return _LENGTH.pack(len(payload)) + payload


class BatchReader:
    """Turns stream bytes into frames. ``feed`` returns the frames of all batches completed by these bytes."""

    __slots__ = ("_buffer", "_limit", "_need")

    def __init__(self, limit: int = WIRE_BATCH_BYTES) -> None:
        """``limit``: the most bytes of one batch."""
        self._limit = limit
        self._buffer = bytearray()
        self._need = 0  # total bytes of the batch at the buffer's head, its length included; 0 when unknown

    def __len__(self) -> int:
        """Bytes of a batch that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        buffer = self._buffer
        if not buffer and len(data) >= 4:
            need = 4 + _LENGTH.unpack_from(data)[0]
            if need == len(data) and need <= self._limit:
                return _frames(memoryview(data)[4:])
        buffer += data
        frames: list[Frame] = []
        while True:
            if not self._need:
                if len(buffer) < 4:
                    return frames
                self._need = 4 + _LENGTH.unpack_from(buffer)[0]
                if self._need > self._limit:
                    raise WireError(f"a batch of {self._need} bytes is over the limit of {self._limit}")
            need = self._need
            if len(buffer) < need:
                return frames
            payload = bytes(memoryview(buffer)[4:need])
            del buffer[:need]
            self._need = 0
            frames += _frames(payload)


def _frames(payload: bytes | memoryview) -> list[Frame]:
    try:
        frames = _unpackb(payload)
    except ValueError as error:
        raise WireError(f"a batch that is not msgpack: {error}") from None
    if type(frames) is not list:
        raise WireError("a batch that is not an array")
    for frame in frames:
        if type(frame) is not list or not frame or type(frame[0]) is not int:
            raise WireError("a frame that is not an array with a kind")
    return frames
