"""What an actor sees of its sockets, and the rooms: which sockets each actor has.

Promises:

1. Everything that a turn does to sockets (frames, tags, attachments, closes) is kept in the turn. It counts for the
   turns behind it when the turn succeeds, and leaves through the output gate; a turn that fails leaves nothing of it.
   ``send_now`` alone does not wait.
2. A socket is in its room from the beginning of its ``web_socket`` turn to the beginning of its ``web_socket_close``
   turn. Once a turn has closed it, it is counted and addressed no more.
3. Rooms do not belong to instances: they outlive evictions, and a new worker gets them from the fronts.
4. A broadcast is one frame for each front, however many sockets it reaches.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from actord import codec
from actord.errors import CodecError, TurnEnded
from actord.http import FRAMING_HEADERS, HeaderInput, Headers, Request
from actord.limits import (
    SOCKET_ATTACHMENT_BYTES,
    SOCKET_REASON_BYTES,
    SOCKET_SEND_BYTES,
    SOCKET_TAG_BYTES,
    SOCKET_TAGS,
    SOCKET_TURN_BYTES,
)
from actord.shards.alarm import DONE, Done
from actord.shards.call import Call, Effect, current_turn
from actord.shards.wire import WS_ACCEPT, WS_BROADCAST, WS_CLOSE, WS_SEND, WS_STATE, Frame
from actord.websocket import Tags

if TYPE_CHECKING:
    from actord.shards.activation import Activation
    from actord.shards.intake import Connection
    from actord.storage.api import Batch

State = tuple[tuple[str, ...], bytes | None]  # tags, attachment

_CODES = frozenset(range(1000, 1015)) - {1004, 1005, 1006}  # for others they stand for what was never sent
_OWN_HEADERS = FRAMING_HEADERS | {"content-type", "sec-websocket-accept"}


class Addressed(int):
    """A number of sockets; may be awaited, or not."""

    def __await__(self) -> Generator[Any, None, int]:
        return int(self)
        yield


class Room:
    """The sockets of one actor."""

    __slots__ = ("_rooms", "_sids", "members", "name", "type")

    def __init__(self, rooms: dict[str, Room], type_: str, name: str) -> None:
        self._rooms = rooms  # those of the type that have members
        self.type = type_
        self.name = name
        self.members: dict[Socket, None] = {}  # in the order in which they came
        self._sids: dict[Connection, list[int]] | None = None  # of all that are not closing

    def add(self, socket: Socket) -> None:
        room = self._rooms.setdefault(self.name, self)  # it may have been empty, and another one begun, meanwhile
        socket.room = room
        room.members[socket] = None
        room._sids = None

    def remove(self, socket: Socket) -> None:
        self.members.pop(socket, None)
        self._sids = None
        if not self.members and self._rooms.get(self.name) is self:
            del self._rooms[self.name]

    def changed(self) -> None:
        """A member has closed, or has not after all."""
        self._sids = None

    def sids(self) -> dict[Connection, list[int]]:
        """Every socket by its front. The lists are not to be changed: frames under way hold them."""
        if self._sids is None:
            self._sids = by_connection(self.members)
        return self._sids

    def forget(self) -> None:
        """The store took back turns that had succeeded: so is what they did to sockets."""
        for socket in self.members:
            socket.state = socket.kept
            socket.closing = socket.closed
        self._sids = None


def by_connection(sockets: Iterable[Socket]) -> dict[Connection, list[int]]:
    found: dict[Connection, list[int]] = {}
    for socket in sockets:
        if not socket.closing:
            found.setdefault(socket.connection, []).append(socket.sid)
    return found


class Sends(Effect):
    """All that one turn does to sockets."""

    __slots__ = ("closing", "frames", "size", "states")
    is_write = False

    def __init__(self) -> None:
        self.frames: list[tuple[Connection, Frame, int]] = []
        self.size = 0
        self.states: dict[Socket, State] | None = None
        self.closing: set[Socket] | None = None

    def add(self, connection: Connection, frame: Frame, size: int) -> None:
        if self.size + size > SOCKET_TURN_BYTES:
            raise ValueError(f"one turn sends at most {SOCKET_TURN_BYTES >> 20} MiB to sockets")
        self.size += size
        self.frames.append((connection, frame, size))

    def join(self, call: Call, batch: Batch) -> None:
        if self.states is not None:
            for socket, state in self.states.items():
                socket.state = state
        if self.closing is not None:
            for socket in self.closing:
                socket.closing = True
                socket.room.changed()

    def leave(self, call: Call) -> None:
        if self.states is not None:
            for socket, state in self.states.items():
                socket.kept = state
                socket.connection.put_socket((WS_STATE, socket.sid, list(state[0]), state[1]), 0)
        if self.closing is not None:
            for socket in self.closing:
                socket.closed = True
        for connection, frame, size in self.frames:
            connection.put_socket(frame, size)


class Accept(Effect):
    """The first effect of a ``web_socket`` turn: whatever else it sends follows."""

    __slots__ = ("head", "socket", "subprotocol")
    is_write = False

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.subprotocol: str | None = None
        self.head = b""

    def leave(self, call: Call) -> None:
        self.say()

    def say(self) -> None:
        socket = self.socket
        if socket.opening is not None:
            socket.opening = None
            socket.subprotocol = self.subprotocol
            socket.connection.put_socket((WS_ACCEPT, socket.sid, self.subprotocol, self.head), 0)


class Socket:
    """Implements ``actord.WebSocket``."""

    __slots__ = (
        "broken",
        "closed",
        "closing",
        "connection",
        "id",
        "kept",
        "offered",
        "opening",
        "room",
        "sid",
        "state",
        "subprotocol",
    )

    def __init__(self, connection: Connection, sid: int, uid: str, room: Room) -> None:
        self.connection = connection
        self.sid = sid
        self.id = uid
        self.room = room
        self.subprotocol: str | None = None
        self.offered: tuple[str, ...] = ()
        self.opening: Accept | None = None  # while ``web_socket`` may still say how the client is let in
        self.state: State = ((), None)  # as the turns so far left it
        self.kept: State = self.state  # as the front has it
        self.closing = False  # closed by a turn
        self.closed = False  # and that has left
        self.broken = False  # a handler failed: its messages are not handled any more

    # -- what belongs to it

    @property
    def attachment(self) -> Any:
        encoded = self._state()[1]
        return None if encoded is None else codec.decode(encoded)

    @attachment.setter
    def attachment(self, value: Any) -> None:
        encoded = None if value is None else codec.encode(value)
        if encoded is not None and len(encoded) > SOCKET_ATTACHMENT_BYTES:
            raise CodecError(
                f"An attachment has at most {SOCKET_ATTACHMENT_BYTES} bytes encoded; this one has {len(encoded)}."
            )
        self._change(self._state()[0], encoded)

    @property
    def tags(self) -> Tags:
        return Tags(self, self._state()[0])

    @tags.setter
    def tags(self, tags: Iterable[str]) -> None:
        if isinstance(tags, str):
            raise TypeError("tags are a collection of words, not one")
        found = tuple(dict.fromkeys(tags))
        if len(found) > SOCKET_TAGS:
            raise ValueError(f"a socket has at most {SOCKET_TAGS} tags")
        for tag in found:
            if not isinstance(tag, str) or not 1 <= len(tag.encode()) <= SOCKET_TAG_BYTES:
                raise ValueError(f"a tag is a str of 1 to {SOCKET_TAG_BYTES} bytes, not {tag!r:.100}")
        self._change(found, self._state()[1])

    def _state(self) -> State:
        turn = current_turn.get()
        if turn is not None and turn.effects is not None:
            sends = sends_of(turn)
            if sends is not None and sends.states is not None:
                return sends.states.get(self, self.state)
        return self.state

    def _change(self, tags: tuple[str, ...], attachment: bytes | None) -> None:
        sends = self._sends()
        if sends.states is None:
            sends.states = {}
        sends.states[self] = (tags, attachment)

    # -- what it does

    def accept(self, subprotocol: str | None = None, *, headers: HeaderInput = None) -> Done:
        self._turn()
        opening = self.opening
        if opening is None:
            raise RuntimeError("the socket was accepted already: accept is for web_socket, before anything is sent now")
        if subprotocol is not None and subprotocol not in self.offered:
            raise ValueError(f"the client offers no subprotocol {subprotocol!r}, but {list(self.offered)!r}")
        opening.head = handshake_lines(Headers(headers).multi_items())
        opening.subprotocol = subprotocol
        return DONE

    def send(self, data: str | bytes) -> Done:
        data, size = checked(data)
        sends = self._sends()
        if not self._closing(sends):
            sends.add(self.connection, (WS_SEND, self.sid, data), size)
        return DONE

    def send_now(self, data: str | bytes) -> Done:
        data, _ = checked(data)
        turn = self._turn()
        if not self._closing(sends_of(turn)):
            if self.opening is not None:
                self.opening.say()
            self.connection.put_frame((WS_SEND, self.sid, data))
        return DONE

    def close(self, code: int = 1000, reason: str = "") -> Done:
        check_close(code, reason)
        sends = self._sends()
        if not self._closing(sends):
            if sends.closing is None:
                sends.closing = set()
            sends.closing.add(self)
            sends.add(self.connection, (WS_CLOSE, self.sid, code, reason), 0)
        return DONE

    def _closing(self, sends: Sends | None) -> bool:
        return self.closing or (sends is not None and sends.closing is not None and self in sends.closing)

    def _turn(self) -> Call:
        turn = current_turn.get()
        if turn is None or turn.over:
            raise TurnEnded("A socket can be used only by the turn that runs: not by a task that outlives it.")
        act = turn.act
        if act.name != self.room.name or act.host.type.name != self.room.type:
            raise TurnEnded("This socket belongs to another actor.")
        return turn

    def _sends(self) -> Sends:
        turn = self._turn()
        return sends_of(turn) or new_sends(turn)

    def __repr__(self) -> str:
        return f"<socket {self.id} of {self.room.type}/{self.room.name}>"


def check_close(code: object, reason: object) -> None:
    """Raise ``ValueError`` for what can't be in a close frame."""
    if type(code) is not int or not (3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))):
        raise ValueError(f"{code!r} is no code that an application may close a socket with")
    if not isinstance(reason, str) or len(reason.encode()) > SOCKET_REASON_BYTES:
        raise ValueError(f"the reason of a close is a str of at most {SOCKET_REASON_BYTES} bytes")


def handshake_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Header lines for the answer to a handshake, without those that are the server's own."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers if _allowed(name)).encode("latin-1")


def offered_subprotocols(request: Request) -> tuple[str, ...]:
    """What the client offers, in its order."""
    values = request.headers.getlist("sec-websocket-protocol")
    return tuple(word.strip() for value in values for word in value.split(","))


def _allowed(name: str) -> bool:
    lower = name.lower()
    return lower not in _OWN_HEADERS and not lower.startswith("sec-websocket-")


def sends_of(turn: Call) -> Sends | None:
    for effect in turn.effects or ():
        if type(effect) is Sends:
            return effect
    return None


def new_sends(turn: Call) -> Sends:
    sends = Sends()
    turn.add(sends)
    return sends


def checked(data: object) -> tuple[Any, int]:
    """A message and its size; ``TypeError`` and ``ValueError`` for what can't be one."""
    if isinstance(data, str):
        size = len(data) if data.isascii() else _size(data)
    elif isinstance(data, bytes | bytearray | memoryview):
        data = bytes(data)
        size = len(data)
    else:
        raise TypeError(f"a message is str or bytes, not {type(data).__name__}; for JSON use json.dumps")
    if size > SOCKET_SEND_BYTES:
        raise ValueError(f"a message has at most {SOCKET_SEND_BYTES >> 20} MiB; this one has {size} bytes")
    return data, size


def _size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("the text of a message holds half of a surrogate pair, which has no UTF-8") from None


def open_sockets(act: Activation, tag: str | None) -> Iterator[Socket]:
    """The open sockets of an actor in the order in which they came, as the running turn sees them."""
    room = act.host.rooms.get(act.name)
    if room is None:
        return
    turn = current_turn.get()
    sends = sends_of(turn) if turn is not None else None
    closing = (sends.closing if sends is not None else None) or ()
    for socket in room.members:
        if not socket.closing and socket not in closing and (tag is None or tag in socket.tags):
            yield socket


def broadcast(act: Activation, data: str | bytes, tag: str | None, exclude: Any) -> Addressed:
    """Send a message to the open sockets of an actor; how many that are."""
    turn = current_turn.get()
    if turn is None or turn.over or turn.act is not act:
        raise TurnEnded("Only the turn that runs can broadcast: not a task that outlives it.")
    data, size = checked(data)
    room = act.host.rooms.get(act.name)
    if room is None or not room.members:
        return Addressed(0)
    sends = sends_of(turn) or new_sends(turn)
    if tag is None and exclude is None and not sends.closing:
        found = room.sids()
    else:
        left_out = excluded(exclude)
        found = by_connection(socket for socket in open_sockets(act, tag) if socket not in left_out)
    count = 0
    for connection, sids in found.items():
        sends.add(connection, (WS_BROADCAST, sids, data), size)
        count += len(sids)
    return Addressed(count)


def excluded(exclude: Any) -> frozenset[Socket]:
    """Whom a broadcast leaves out: one socket, or several."""
    if exclude is None:
        return frozenset()
    if isinstance(exclude, Socket):
        return frozenset((exclude,))
    found = frozenset(exclude)
    if not all(isinstance(one, Socket) for one in found):
        raise TypeError("exclude is a socket, or several of them")
    return found
