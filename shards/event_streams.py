"""``GET /actors/{type}/{name}/events``: what an actor emits, as server-sent events, for any number of readers.

1. A reader gets every event above the number it began with, once and in order, and none before its commit is durable:
   it is told of new ones behind the output gate, and what it reads from the store is of durable commits alone.
2. Where events are gone that it should have had, it is told so in their place, by an event ``actord.gap``.
3. The first thing that it gets is the number it stands at, so that a connection that breaks at any moment is resumed by
   ``Last-Event-ID`` without gap or duplicate.
4. Nothing is queued for a reader: it has a position and a window (``shards.outflow``). One that does not keep up reads
   from the store once it takes more. New events are put into their form once, for all readers of an actor.
5. Neither an instance nor an activation is needed, nor kept in memory.
6. A worker that leaves says of each stream where it stands; the front asks its successor to go on from there, and
   clients notice nothing. One that dies leaves the streams to the front, which cuts them.

Crash story: nothing here is state. The reader's position comes with its next request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from random import randrange
from time import monotonic
from typing import TYPE_CHECKING

from actord.errors import ActorOverloaded, ActorUnavailable, BadRequest, NotFound, StorageError, StoreBroken
from actord.http import Request
from actord.limits import STREAM_FRAME_BYTES, STREAM_PIECE_BYTES
from actord.shards import alarm as clock
from actord.shards.outflow import EVENTS, Outflow
from actord.shards.wire import DATA, MORE, MOVED
from actord.storage.api import Event

if TYPE_CHECKING:
    from actord.shards.activation import Host
    from actord.shards.intake import Connection
    from actord.shards.shard import Shard

log = logging.getLogger("actord.events")

KEEP_ALIVE_SECONDS = 15.0
TICK_SECONDS = 5.0
RETRY_MS = 1_000  # and as much again by chance: the readers of a worker that died do not all come back at once
RECENT_BYTES = 64 * 1024
PAGE_EVENTS = 256
PIECE_MS = 100  # for how long the readers that stand at the same event are given the same piece
_NUMBER_MAX = 1 << 62

_HEAD = b"content-type: " + EVENTS + b"\r\nx-accel-buffering: no\r\n"
_KEEP_ALIVE = b":\n\n"


class Topic:
    """The events of one actor, for as long as somebody reads them. ``last``: the newest that may be told."""

    __slots__ = (
        "_actor",
        "_due",
        "_host",
        "_name",
        "_piece",
        "_piece_ms",
        "_recent",
        "_shard",
        "_size",
        "_slot",
        "last",
        "readers",
    )

    def __init__(self, host: Host, name: str, shard: Shard, slot: int) -> None:
        self._host = host
        self._name = name
        self._shard = shard
        self._slot = slot
        self._actor: int | None = None
        self._recent: deque[tuple[int, bytes, int]] = deque()  # the newest ones without a gap: number, form, until
        self._size = 0
        self._piece: tuple[int, int, bytes, int] = (-1, -1, b"", 0)  # what the last reader was given,
        self._piece_ms = 0  # and when
        self._due = False
        self.readers: dict[Reader, None] = {}
        actor = self._known()
        self.last = 0 if actor is None else shard.store.last_event(actor, batch=shard.committer.durable_seq)

    def _known(self) -> int | None:
        if self._actor is None:
            self._actor = self._shard.store.find_actor(self._slot, self._host.type.name, self._name)
        return self._actor

    def publish(self, seq: int, kind: str, data: bytes, until: int) -> None:
        """An event is durable. They come in order."""
        if seq <= self.last:
            return
        form = _form(seq, kind, data)
        self.last = seq
        self._recent.append((seq, form, until))
        self._size += len(form)
        while self._size > RECENT_BYTES and len(self._recent) > 1:
            self._size -= len(self._recent.popleft()[1])
        if not self._due:  # several of one commit go out together
            self._due = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._due = False
        for reader in list(self.readers):
            reader.advance()

    def after(self, at: int) -> tuple[bytes, int]:
        """A piece of the stream behind event ``at``, and the number of its last event; nothing when there is none."""
        last = self.last
        if at >= last:
            return b"", at
        now = clock.wall_ms()
        if self._piece[:2] == (at, last) and 0 <= now - self._piece_ms < PIECE_MS:
            return self._piece[2:]
        recent = self._recent
        while recent and recent[0][2] <= now:
            self._size -= len(recent.popleft()[1])
        if recent and recent[0][0] <= at + 1:
            parts = [form for seq, form, _ in recent if seq > at] if at + 1 < last else [recent[-1][1]]
            data, upto = b"".join(parts), last
        else:
            data, upto = self._stored(at)
        self._piece = at, last, data, upto
        self._piece_ms = now
        return data, upto

    def _stored(self, at: int) -> tuple[bytes, int]:
        found = self._read(at)
        if not found:
            return _gap(at, self.last + 1), self.last
        parts = [_gap(at, found[0].seq)] if found[0].seq > at + 1 else []
        parts += [_form(event.seq, event.kind, event.data) for event in found]
        return b"".join(parts), found[-1].seq

    def _read(self, at: int) -> list[Event]:
        """Some events behind ``at`` that are kept, the next ones; none when all of them are gone."""
        actor = self._known()
        now = clock.wall_ms()
        while actor is not None:
            found = self._shard.store.read_events(
                actor,
                after=at,
                batch=self._shard.committer.durable_seq,
                limit=PAGE_EVENTS,
                limit_bytes=STREAM_PIECE_BYTES // 2,
            )
            if not found:
                break
            at = found[-1].seq
            found = [event for event in found if event.until > now and event.seq <= self.last]
            if found:
                return found
        return []

    def oldest(self, least: int) -> int:
        """The number before the oldest event that is kept and not below ``least``."""
        found = self._read(least - 1)
        return found[0].seq - 1 if found else self.last

    def failed(self, error: StorageError) -> None:
        if isinstance(error, StoreBroken):
            self._shard.committer.break_off(error)
        else:
            log.error("the events of %s %r can't be read: %s", self._host.type.name, self._name, error)

    def leave(self, reader: Reader) -> None:
        del self.readers[reader]
        if not self.readers and self._host.topics.get(self._name) is self:
            del self._host.topics[self._name]


class Reader(Outflow):
    """One subscription: where it stands, and how much its caller takes. Its writer is whoever calls ``advance``."""

    __slots__ = ("_at", "_streams", "_topic")

    def __init__(self, streams: EventStreams, topic: Topic, sink: Connection, id_: int, at: int) -> None:
        super().__init__(sink, id_, self.end)
        self._streams = streams
        self._topic = topic
        self._at = at

    def start(self, greeting: bytes) -> None:
        self._topic.readers[self] = None
        self._sink.doors[self._id] = self
        self.begin(200, _HEAD, None)
        self._put(greeting)
        self.advance()

    def advance(self) -> None:
        """Send what there is and what fits."""
        while self._window > 0 and not self.over:
            try:
                data, self._at = self._topic.after(self._at)
            except StorageError as error:
                self._topic.failed(error)
                self.break_off()
                return
            if not data:
                return
            self._put(data)

    def _put(self, data: bytes) -> None:
        for start in range(0, len(data), STREAM_PIECE_BYTES):
            piece = data[start : start + STREAM_PIECE_BYTES]
            self._window -= len(piece) + STREAM_FRAME_BYTES
            self._sink.put_frame((DATA, self._id, piece, MORE))
        self._since = monotonic()

    def grant(self, size: int) -> None:
        super().grant(size)
        self.advance()

    def keep_alive(self, now: float) -> None:
        if now - self._since >= KEEP_ALIVE_SECONDS and self._window > 0:
            self._put(_KEEP_ALIVE)

    def end_if_idle(self, now: float, since: float) -> None:
        """The worker leaves: its successor goes on."""
        self._finish(MOVED)

    def cancel(self) -> None:
        """The caller has gone."""
        self.break_off()

    def _finish(self, state: int, data: bytes = b"") -> None:
        if not self.over:
            super()._finish(state, b"%d" % self._at if state == MOVED else data)
            self._topic.leave(self)
            self._streams.leave(self)


class EventStreams:
    """All the readers of one worker, at most ``limit``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._readers: dict[Reader, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._readers)

    def open(
        self, sink: Connection, id_: int, host: Host, name: str, shard: Shard, slot: int, request: Request
    ) -> None:
        """Begin a stream. Raises what the request is refused with, before anything of it was sent."""
        if not host.type.events_public:
            raise NotFound(f"The events of {host.type.name} are not public.")
        if len(self._readers) >= self._limit:
            raise ActorOverloaded(f"{self._limit} event streams are open in this worker already.", retry_after=5)
        if shard.committer.broken is not None:
            raise ActorUnavailable("The worker restarts.", retry_after=1)
        seen, first = _wanted(request)
        try:
            self._begin(sink, id_, host, name, shard, slot, seen, first)
        except StoreBroken as error:
            shard.committer.break_off(error)
            raise ActorUnavailable("The worker restarts.", retry_after=1) from error

    def _begin(
        self,
        sink: Connection,
        id_: int,
        host: Host,
        name: str,
        shard: Shard,
        slot: int,
        seen: int | None,
        first: int | None,
    ) -> None:
        topic = host.topics.get(name)
        if topic is None:
            topic = Topic(host, name, shard, slot)
        greeting = b"retry: %d\n" % (RETRY_MS + randrange(RETRY_MS))
        if seen is not None:
            at = seen
        elif first is not None:
            at = topic.oldest(max(first, 1)) if first <= topic.last else topic.last
        else:
            at = topic.last
        if at > topic.last:  # it saw events that are none any more: an older copy of the data was put in place
            greeting += b"\n" + _gap(at, topic.last + 1)
            at = topic.last
        else:
            greeting += b"id: %d\n\n" % at
        topic.after(at)  # what can't be read is told now; otherwise it is asked for again at once
        host.topics[name] = topic
        reader = Reader(self, topic, sink, id_, at)
        self._readers[reader] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)
        reader.start(greeting)

    def leave(self, reader: Reader) -> None:
        self._readers.pop(reader, None)

    def _tick(self) -> None:
        self._timer = None
        now = monotonic()
        for reader in list(self._readers):
            reader.keep_alive(now)
        if self._readers:
            self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)


def _wanted(request: Request) -> tuple[int | None, int | None]:
    """The number of the last event that was seen; or else the first one that is wanted."""
    # The header is the newer one: an EventSource that reconnects sends it along with the address that it was made with.
    seen = request.headers.get("last-event-id") or request.query.get("last_event_id")
    return _number("Last-Event-ID", seen), _number("from", request.query.get("from"))


def _number(what: str, text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > _NUMBER_MAX:
        raise BadRequest(f"{what} is the number of an event, as in the `id` lines of the stream; not {text[:64]!r}.")
    return int(text)


def _form(seq: int, kind: str, data: bytes) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (seq, kind.encode(), data)


def _gap(after: int, following: int) -> bytes:
    return b'id: %d\nevent: actord.gap\ndata: {"after":%d,"next":%d}\n\n' % (following - 1, after, following)
