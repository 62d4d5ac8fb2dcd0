"""The sockets of one link: their events to the worker, in order; what their actors send, back to them.

Promises:

1. The events of a socket (open, message, closed) reach the actor in their order, and those of one actor in the order
   in which they arrived. At most ``SOCKET_ROOM_WINDOW`` of one actor are with the worker; the others wait here.
2. What the turn of an event sends is taken whole, together with its WS_DONE, or not at all.
3. Sockets and what belongs to them (tags, attachment, subprotocol) live here: a new worker is told of all that are
   open as soon as it greets, before any call and event reaches it.
4. An event whose turn has committed is never delivered again. Crash story: when the worker dies, the begun map says
   how far each socket came. Events that had not begun are sent to the successor, in their order. A message whose turn
   had begun and was not done may have committed or not: its socket is closed with 1012 and nothing of it is sent
   again. An opening that had begun is answered 503. Only ``closed`` is sent again in that case: at least once, so that
   an actor never keeps a socket that has gone.
5. A socket that the front door serves itself has its state in one worker's process: it is closed with 1012 when that
   worker is lost, and nobody else is told of it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from actord.errors import ActorOverloaded, ActorUnavailable
from actord.limits import LINK_CALLS, LINK_SOCKETS, SOCKET_ROOM_WINDOW
from actord.server.opening import Opening
from actord.server.outgoing import Outgoing
from actord.shards.link import Link
from actord.shards.wire import (
    WS_ACCEPT,
    WS_BROADCAST,
    WS_CLOSE,
    WS_CLOSED,
    WS_DONE,
    WS_DOOR,
    WS_FORWARD,
    WS_HELD,
    WS_OPEN,
    WS_REFUSE,
    WS_SEND,
    WS_STATE,
    Frame,
    WireError,
)

if TYPE_CHECKING:
    from actord.server.websocket import WebSocket

RESTARTED = 1012
LOST = "The worker was lost while a message was handled."
STATE_LOST = "The worker that served this socket was lost."
_NO_WINDOW = 1 << 62
HELD_AT_ONCE = 512  # sockets in one WS_HELD

Key = tuple[str, str]


class Room:
    """The sockets of one actor on this front; of one socket, where the front door answers."""

    __slots__ = ("key", "out", "queue", "sockets", "window")

    def __init__(self, key: Key | None) -> None:
        self.key = key
        # One socket has limits of its own. Whoever serves it hears of its end even when it takes no messages.
        self.window = SOCKET_ROOM_WINDOW if key is not None else _NO_WINDOW
        self.sockets = 0
        self.out = 0  # events with the worker
        self.queue: deque[Frame] | None = None  # events that wait


class Relay:
    """Implements ``actord.shards.link.Relay``."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._begun = memoryview(link.begun_map)[LINK_CALLS:].cast("Q")
        self._sockets: dict[int, WebSocket] = {}
        self._rooms: dict[Key, Room] = {}
        self._free: list[int] = []
        self._top = 0
        self._seq = 0
        link.relay = self

    def __len__(self) -> int:
        return len(self._sockets)

    # -- sockets come and go

    def enter(self, socket: WebSocket, key: Key | None) -> None:
        """Number a socket; its first event follows. Raises ``ActorOverloaded``."""
        if self._free:
            sid = self._free.pop()
        elif self._top < LINK_SOCKETS:
            sid = self._top
            self._top += 1
        else:
            raise ActorOverloaded("The worker has too many sockets.", retry_after=1)
        room = self._rooms.get(key) if key is not None else None
        if room is None:
            room = Room(key)
            if key is not None:
                self._rooms[key] = room
        room.sockets += 1
        socket.relay, socket.room, socket.sid = self, room, sid
        self._sockets[sid] = socket

    def leave(self, socket: Opening) -> None:
        """The worker knows that the socket has gone, or never knew it."""
        if self._sockets.pop(socket.sid, None) is None:
            return
        self._free.append(socket.sid)
        room = socket.room
        room.sockets -= 1
        if not room.sockets and room.key is not None:
            del self._rooms[room.key]
        socket.released()

    # -- events

    def event(self, socket: Opening, kind: int, *fields: Any) -> None:
        self._seq = seq = self._seq + 1
        frame = (kind, socket.sid, seq, *fields)
        if socket.pending is None:
            socket.pending = deque()
        socket.pending.append(frame)
        room = socket.room
        if room.out < room.window and not room.queue and self.link.ready:
            room.out += 1
            self.link.send(frame)
            return
        if room.queue is None:
            room.queue = deque()
        room.queue.append(frame)

    def withdraw(self, socket: Opening) -> bool:
        """Take an opening back that has not left for the worker; the socket is forgotten then."""
        queue, pending = socket.room.queue, socket.pending
        if not queue or not pending or pending[0] not in queue:
            return False
        for frame in pending:
            queue.remove(frame)
        socket.pending = None
        self.leave(socket)
        return True

    def begun(self, socket: Opening) -> bool:
        """Whether the turn of the oldest event that is not done has begun."""
        return bool(socket.pending) and bool(self._begun[socket.sid] >= socket.pending[0][2])  # type: ignore[index]

    def _pump(self, room: Room) -> None:
        queue = room.queue
        while queue and room.out < room.window and self.link.ready:
            room.out += 1
            self.link.send(queue.popleft())
        if not queue:
            room.queue = None

    def _done(self, sid: int, seq: int) -> None:
        socket = self._sockets[sid]
        pending = socket.pending
        if not pending:
            raise WireError("an event was done twice")
        frame = pending[0]
        if frame[2] == seq:
            pending.popleft()
        else:  # refused before those in front of it were done
            frame = next(frame for frame in pending if frame[2] == seq)
            pending.remove(frame)
        if not pending:
            socket.pending = None
        room = socket.room
        room.out -= 1
        if room.queue:
            self._pump(room)
        kind = frame[0]
        if kind == WS_CLOSED:
            self.leave(socket)
        elif kind in (WS_OPEN, WS_DOOR):
            socket.opening_done()
        else:
            socket.message_done(frame[3])

    # -- from the link

    def on_frame(self, frame: Frame) -> None:
        kind = frame[0]
        if kind == WS_DONE:
            _, sid, seq = frame
            try:
                self._done(sid, seq)
            except (KeyError, StopIteration):
                raise WireError("an event that is not open was done") from None
            return
        if kind == WS_BROADCAST:
            _, sids, data = frame
            message = Outgoing(data)
            get = self._sockets.get
            for sid in sids:
                socket = get(sid)
                if socket is not None:
                    socket.deliver(message)
            return
        socket = self._sockets.get(frame[1])
        if kind == WS_SEND:
            _, _, data = frame
            if socket is not None:
                socket.deliver(Outgoing(data))
        elif socket is None:
            raise WireError(f"a frame of kind {kind!r} for a socket that is not there")
        elif kind == WS_ACCEPT:
            _, _, subprotocol, head = frame
            socket.accept(subprotocol, head)
        elif kind == WS_REFUSE:
            _, _, status, body, head = frame
            socket.refuse(status, body, head)
        elif kind == WS_CLOSE:
            _, _, code, reason = frame
            socket.close(code, reason)
        elif kind == WS_STATE:
            _, _, socket.tags, socket.attachment = frame
        elif kind == WS_FORWARD:
            _, _, type_, name, request, head = frame
            socket.forward(type_, name, request, head)
        else:
            raise WireError(f"frame kind {kind!r} is unknown")

    def on_up(self) -> None:
        held = [
            [socket.sid, socket.uid, *socket.room.key, socket.subprotocol, socket.tags, socket.attachment]
            for socket in self._sockets.values()
            if socket.accepted and socket.room.key is not None
        ]
        for start in range(0, len(held), HELD_AT_ONCE):
            self.link.send((WS_HELD, held[start : start + HELD_AT_ONCE]))
        self.link.send((WS_HELD, []))  # that was all: the worker waits for it
        self.go_on()

    def go_on(self) -> None:
        for room in {id(socket.room): socket.room for socket in self._sockets.values() if socket.pending}.values():
            self._pump(room)

    def on_down(self, garbled: bool) -> None:
        """See the crash story above."""
        waiting: dict[int, list[Frame]] = {}
        doubtful = []
        for socket in list(self._sockets.values()):
            room = socket.room
            room.out = 0
            room.queue = None
            if garbled or self.begun(socket) or (room.key is None and socket.accepted):
                doubtful.append(socket)
            elif socket.pending:
                waiting.setdefault(id(room), []).extend(socket.pending)
        for socket in self._sockets.values():
            frames = waiting.pop(id(socket.room), None)
            if frames is not None:
                socket.room.queue = deque(sorted(frames, key=_seq))
        for socket in doubtful:
            self._give_up(socket)

    def _give_up(self, socket: WebSocket) -> None:
        pending = socket.pending or deque()
        socket.pending = None
        closed = next((frame for frame in pending if frame[0] == WS_CLOSED), None)
        if not socket.accepted:
            self.leave(socket)
            socket.fail(ActorUnavailable("The worker was lost while the socket was opened.", applied="unknown"))
        elif socket.room.key is None:  # nobody is left who knows it
            self.leave(socket)
            socket.close_now(RESTARTED, STATE_LOST)
        elif closed is not None:
            self.event(socket, *closed[:1], *closed[3:])
        else:
            socket.close_now(RESTARTED, LOST)


def _seq(frame: Frame) -> int:
    seq: int = frame[2]
    return seq
