"""Direct links: clients of this machine that call actors without a front between. Off unless ``server.direct``.

Promises:

1. A direct link carries calls of methods and their cancellation. Any other frame, an extra beside "key", a flag that
   is not a caller's, or an id in use closes it: a client can pass for neither a front, a worker nor an outbox.
2. Nothing is taken before the ticket of this life of the server, which the front gives out with ``GET /-/map`` under
   its own rules of access. The socket file is for the server's user alone (0600, in a folder with 0700).
3. The front's limits hold here too: the size of a body, of what is being received and of what waits, the number of
   connections, the time for greeting and for taking answers. A client that does not read is not read from.
4. What is not for this worker (it leaves; the slot is another's; a reload holds everything back) is answered ELSEWHERE:
   it was not taken, for certain. A client with several calls on a link says STOPPED when it has heard that the worker
   leaves, and writes nothing more; one that makes a call at a time (CALLER) need not, since it has nothing to lose.
5. The begun map is a file of this worker's making, which the client maps, unmarks and removes. So the client can have
   nothing opened here, and no mark is lost with this process: after a kill -9 the map says which calls had begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, cast

from actord.errors import ActordError, ActorOverloaded, PayloadTooLarge
from actord.limits import DIRECT_CALLS, DIRECT_FRAME_BYTES, LINK_BYTES, NAME_BYTES
from actord.settings import Http
from actord.shards.begun import make_map
from actord.shards.call import Call
from actord.shards.idempotency import check_key
from actord.shards.intake import Connection
from actord.shards.problem import problem_reply
from actord.shards.slots import slot_of
from actord.shards.wire import (
    CALL,
    CALLX,
    CANCEL,
    ELSEWHERE,
    HELLO,
    MSGPACK,
    PAIR,
    READY,
    REPLY,
    STOPPED,
    VERSION,
    BatchReader,
    Frame,
    WireError,
    pack_batch,
)

if TYPE_CHECKING:
    from actord.shards.dispatch import Dispatcher

CLIENT, CALLER = "client", "caller"
_FLAGS = (MSGPACK | PAIR, MSGPACK, 0)


class DirectDoor:
    """What all direct links of this worker share."""

    def __init__(self, dispatcher: Dispatcher, http: Http, *, runtime_dir: str, index: int, epoch: str, ticket: str):
        self.dispatcher = dispatcher
        self.http = http
        self.epoch = epoch
        self.ticket = ticket.encode()
        self.frame_bytes = http.body_bytes + DIRECT_FRAME_BYTES
        self.links: set[DirectConnection] = set()
        self.held = False  # no call begins for now, whoever makes it
        self.receiving = 0  # bytes of batches that are not complete
        self.waiting = 0  # bytes of bodies whose calls are not answered
        self._made = 0
        self._begun_path = f"{runtime_dir}/begun-direct-worker{index}-"
        for left in Path(runtime_dir).glob(f"begun-direct-worker{index}-*"):  # by a worker that was killed
            left.unlink(missing_ok=True)

    def __call__(self) -> asyncio.Protocol:
        """A protocol for the next client."""
        return cast(asyncio.Protocol, DirectConnection(self))

    def begun_path(self) -> str:
        self._made += 1
        return f"{self._begun_path}{os.getpid()}-{self._made}"


class DirectConnection(Connection):
    """One client."""

    def __init__(self, door: DirectDoor) -> None:
        super().__init__(door.dispatcher)
        self.blame = logging.WARNING
        self.outside = True
        self._door = door
        self._reader = BatchReader(door.frame_bytes)
        self._draining = False
        self._held = 0  # bytes of this link in ``door.receiving``
        self._sizes = [0] * DIRECT_CALLS  # of the bodies whose calls are not answered
        self._begun_path = ""
        self._timer: asyncio.TimerHandle | None = None

    # -- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        door = self._door
        door.links.add(self)
        if len(door.links) > door.http.connections:
            self._drop()
            return
        self._abort_after(door.http.head_timeout)

    def _abort_after(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._drop)

    def _in_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _greet(self, frame: Frame) -> None:
        kind, version, caller, ticket = frame
        door = self._door
        if kind != HELLO or version != VERSION or caller not in (CLIENT, CALLER):
            raise WireError(f"{caller!r:.100} is not a client of version {VERSION} of the wire format")
        if not hmac.compare_digest(ticket.encode(), door.ticket):
            self.blame = logging.DEBUG  # one of an earlier life: it will ask for the map again
            raise WireError("a client without the ticket of this server")
        if door.dispatcher.leaving:
            self.blame = logging.DEBUG
            raise WireError("a client came when the worker was about to leave")
        self._in_time()
        self.caller = caller
        self._begun_path = path = door.begun_path()
        self.begun = make_map(path, DIRECT_CALLS)
        facts = {
            "epoch": door.epoch,
            "begun": path,
            "body_bytes": door.http.body_bytes,
            "batch_bytes": door.frame_bytes,
            "clock": int(monotonic() * 1000),
        }
        assert self._transport is not None
        self._transport.write(pack_batch([(READY, VERSION, facts)]))
        door.dispatcher.connections.add(self)

    def data_received(self, data: bytes) -> None:
        Connection.data_received(self, data)
        held = len(self._reader)
        if held != self._held:
            door = self._door
            door.receiving += held - self._held
            self._held = held
            if door.receiving > LINK_BYTES:
                self._drop()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._transport is not None:
            self._transport.pause_reading()
            self._abort_after(self._door.http.write_stall)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._in_time()
        if self._transport is not None:
            self._transport.resume_reading()

    def say_draining(self) -> None:
        self._draining = True
        if self.caller == CLIENT:
            self.stopped = asyncio.Event()
        super().say_draining()

    def _hear(self, frames: list[Frame]) -> None:
        self._take(frames)

    def stop(self) -> None:
        """It was told already, and what it sends all the same is answered ELSEWHERE."""

    def connection_lost(self, exc: Exception | None) -> None:
        door = self._door
        door.links.discard(self)
        door.receiving -= self._held
        door.waiting -= sum(self._sizes)
        self._held, self._sizes = 0, [0] * DIRECT_CALLS
        super().connection_lost(exc)
        self._in_time()
        if self._begun_path:
            with contextlib.suppress(OSError):
                os.unlink(self._begun_path)

    # -- calls

    def _take(self, frames: list[Frame]) -> None:
        now = monotonic()
        door = self._door
        dispatcher = door.dispatcher
        for frame in frames:
            kind = frame[0]
            if kind == STOPPED and self.stopped is not None:
                self.stopped.set()
                continue
            id_ = frame[1]
            if type(id_) is not int or not 0 <= id_ < DIRECT_CALLS:
                raise WireError(f"the id {id_!r:.100} is none of a client's")
            if kind == CANCEL:
                self._cancel(id_)
                continue
            if kind == CALLX:
                extras = frame[5]
                if type(extras) is not dict or list(extras) != ["key"]:
                    raise WireError("extras that are not a client's")
            elif kind != CALL:
                raise WireError(f"frame kind {kind!r:.100} is not a client's")
            if frame[-3] not in _FLAGS or id_ in self.calls:
                raise WireError("flags that are not a caller's, or an id in use")
            if len(frame[2]) > NAME_BYTES or len(frame[4]) > NAME_BYTES:
                raise WireError("a type or a method with a name that is too long")
            slot = slot_of(frame[2], frame[3])
            if self._draining or door.held or (dispatcher.shard_of[slot] is None and slot not in dispatcher.damaged):
                self._out.append((ELSEWHERE, id_))
                continue
            try:
                self._count(id_, len(frame[-1]))
                if kind == CALLX:
                    check_key(extras["key"])
            except ActordError as error:
                self.put_reply(id_, *problem_reply(error, msgpack=bool(frame[-3] & MSGPACK)))
                continue
            if kind == CALL:
                dispatcher.call(self, frame, now)
            else:
                dispatcher.callx(self, frame, now)
        if self._out:
            self.flush()

    def _count(self, id_: int, size: int) -> None:
        """Count a body for as long as its call is not answered. Raises when it is too much."""
        door = self._door
        if size > door.http.body_bytes:
            raise PayloadTooLarge(f"The body may have {door.http.body_bytes} bytes at most.")
        if door.waiting + size > LINK_BYTES:
            raise ActorOverloaded("The worker has too many calls waiting.", retry_after=1)
        door.waiting += size - self._sizes[id_]
        self._sizes[id_] = size

    def put(self, call: Call) -> None:
        id_ = call.id
        self._door.waiting -= self._sizes[id_]
        self._sizes[id_] = 0
        self._out.append((REPLY, id_, call.status, call.body, call.head))
        self.calls.pop(id_, None)

    def _drop(self) -> None:
        """End the link. What has not begun never will: the client makes it elsewhere as soon as it sees the end."""
        self._forsake()
        if self._transport is not None:
            self._transport.abort()
