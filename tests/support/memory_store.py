"""``storage.api.Store`` in memory, which fails when it is told to and holds its caller to the contract."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from actord.errors import StoreBroken, StoreFull
from actord.storage.api import Alarm, AlarmEntry, Batch, Event, ExpiredEvents, Message, MessageEntry, Reply


def full() -> StoreFull:
    return StoreFull("no room", retry_after=5)


def broken() -> StoreBroken:
    return StoreBroken("EIO", applied="unknown")


class MemoryStore:
    """``fail_write`` and ``fail_sync`` hold an outcome for each of the next calls: an exception, or None to succeed.

    ``durable_seq`` is the newest batch that a power cut would leave.
    """

    def __init__(self) -> None:
        self.commit_seq = 0
        self.epoch = 1
        self.rows: dict[int, dict[str, bytes]] = {}
        self.actors: dict[tuple[int, str, str], int] = {}
        self.alarms: dict[int, Alarm] = {}
        self.replies: dict[tuple[int, str], tuple[int, Reply]] = {}  # with the id
        self._last_reply = 0
        self.versions: dict[int, int] = {}
        self.pages: dict[int, dict[int, bytes]] = {}
        self.events: dict[int, dict[int, tuple[int, Event]]] = {}  # by actor and number, with the batch's
        self.event_logs: dict[int, tuple[int, int]] = {}
        self.outbox: dict[int, Message] = {}
        self.inbox: set[tuple[int, int]] = set()
        self.fail_write: deque[BaseException | None] = deque()
        self.fail_sync: deque[BaseException | None] = deque()
        self.fail_maintain: deque[BaseException | None] = deque()
        self.durable_seq = 0
        self.batches: list[Batch] = []
        self.reads = 0
        self.closed = False
        self.is_broken = False
        self._syncing = False
        self._last_id = 0
        self._messages = 0

    def _alive(self) -> None:
        assert not self.is_broken, "contract 4: no method may be called after StoreBroken"

    def _outcome(self, of: deque[BaseException | None]) -> None:
        error = of.popleft() if of else None
        if error is not None:
            self.is_broken = not isinstance(error, StoreFull)
            raise error

    def find_actor(self, slot: int, type_: str, name: str) -> int | None:
        self._alive()
        self.reads += 1
        return self.actors.get((slot, type_, name))

    def lost_types(self, slot: int, known: Collection[str]) -> list[str]:
        self._alive()
        return sorted(
            {
                type_
                for (at, type_, _), actor in self.actors.items()
                if at == slot
                and type_ not in known
                and (self.rows.get(actor) or self.pages.get(actor) or actor in self.alarms)
            }
        )

    def read_version(self, actor: int) -> int:
        self._alive()
        return self.versions.get(actor, 1)

    def older_actors(self, type_: str, version: int, *, after: int, limit: int) -> list[tuple[int, str]]:
        self._alive()
        found = sorted((id_, name) for (_, of, name), id_ in self.actors.items() if of == type_ and id_ > after)
        return [(id_, name) for id_, name in found if self.versions.get(id_, 1) < version][:limit]

    def newest_versions(self, *, after: int, limit: int) -> tuple[dict[str, int], int]:
        self._alive()
        rows = sorted(
            (id_, type_) for (_, type_, _), id_ in self.actors.items() if id_ in self.versions and id_ > after
        )
        found: dict[str, int] = {}
        for id_, type_ in rows[:limit]:
            found[type_] = max(found.get(type_, 1), self.versions[id_])
        return found, rows[limit - 1][0] if len(rows) >= limit else 0

    def next_actor_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def read(self, actor: int, key: str) -> bytes | None:
        self._alive()
        self.reads += 1
        return self.rows.get(actor, {}).get(key)

    def scan(
        self,
        actor: int,
        *,
        start: str | None = None,
        start_after: bool = False,
        end: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        limit_bytes: int | None = None,
    ) -> tuple[list[tuple[str, bytes]], bool]:
        self._alive()
        self.reads += 1
        rows: list[tuple[str, bytes]] = []
        room = limit_bytes
        for key, value in sorted(self.rows.get(actor, {}).items(), key=lambda row: row[0].encode(), reverse=reverse):
            if start is not None and (key < start or (key == start and start_after)):
                continue
            if end is not None and key >= end:
                continue
            if len(rows) == limit or (room is not None and room < 0):
                return rows, False
            rows.append((key, value))
            if room is not None:
                room -= len(value)
        return rows, True

    def page_count(self, actor: int) -> int:
        self._alive()
        return max(self.pages.get(actor, {0: b""}))

    def read_page(self, actor: int, number: int) -> bytes | None:
        self._alive()
        self.reads += 1
        return self.pages.get(actor, {}).get(number)

    def read_alarm(self, actor: int) -> Alarm | None:
        self._alive()
        return self.alarms.get(actor)

    def armed_alarms(self, *, until: int, limit: int, after: tuple[int, int] = (-1, 0)) -> list[AlarmEntry]:
        self._alive()
        armed = sorted((a.due, id_) for id_, a in self.alarms.items() if a.error is None)
        return [self._entry(id_) for due, id_ in armed if due <= until and (due, id_) > after][:limit]

    def failed_alarms(self, *, limit: int, after: int = 0) -> list[AlarmEntry]:
        self._alive()
        failed = sorted(id_ for id_, a in self.alarms.items() if a.error is not None)
        return [self._entry(id_) for id_ in failed if id_ > after][:limit]

    def event_log(self, actor: int) -> tuple[int, int]:
        self._alive()
        return self.event_logs.get(actor, (1, 0))

    def last_event(self, actor: int, *, batch: int) -> int:
        self._alive()
        newer = [seq for seq, (written, _) in self.events.get(actor, {}).items() if written > batch]
        return min(newer) - 1 if newer else self.event_log(actor)[1]

    def read_events(self, actor: int, *, after: int, batch: int, limit: int, limit_bytes: int) -> list[Event]:
        self._alive()
        self.reads += 1
        found: list[Event] = []
        for seq, (written, event) in sorted(self.events.get(actor, {}).items()):
            if seq > after and written <= batch and len(found) < limit and limit_bytes > 0:
                found.append(event)
                limit_bytes -= len(event.data)
        return found

    def expired_events(self, *, now: int, limit: int) -> list[ExpiredEvents]:
        self._alive()
        oldest = sorted((e.until, id_, seq) for id_, of in self.events.items() for seq, (_, e) in of.items())
        newest: dict[int, int] = {}
        for until, id_, seq in oldest[:limit]:
            if until <= now:
                newest[id_] = max(seq, newest.get(id_, 0))
        keys = {id_: key for key, id_ in self.actors.items()}
        return [ExpiredEvents(id_, keys[id_][1], keys[id_][2], seq) for id_, seq in newest.items()]

    def next_message_id(self) -> int:
        self._messages += 1
        return self.epoch << 40 | self._messages

    def queued_messages(self, *, after: int, until: int, limit: int) -> tuple[list[Message], int]:
        self._alive()
        self.reads += 1
        page = [m for id_, m in sorted(self.outbox.items()) if after < id_ <= until][:limit]
        return [m for m in page if _queued(m)], page[-1].id if len(page) == limit else until

    def pair_messages(
        self, sender: int, type_: str, name: str, *, after: int, until: int, limit: int
    ) -> tuple[list[Message], bool]:
        self._alive()
        self.reads += 1
        of_pair = [m for m in self.outbox.values() if (m.sender, m.type, m.name) == (sender, type_, name)]
        found = sorted(m for m in of_pair if _queued(m) and after < m.id <= until)
        return found[:limit], len(found) <= limit

    def delayed_messages(self, *, until: int, limit: int, after: tuple[int, int] = (-1, 0)) -> list[Message]:
        self._alive()
        delayed = sorted((m.due, m.id) for m in self.outbox.values() if m.error is None and m.due and not m.attempts)
        return [self.outbox[id_] for due, id_ in delayed if due <= until and (due, id_) > after][:limit]

    def read_message(self, id_: int) -> Message | None:
        self._alive()
        return self.outbox.get(id_)

    def list_messages(self, *, parked: bool, after: int, limit: int) -> list[MessageEntry]:
        self._alive()
        keys = {id_: key for key, id_ in self.actors.items()}
        found = [m for id_, m in sorted(self.outbox.items()) if id_ > after and (m.error is not None or not parked)]
        return [MessageEntry(*keys[m.sender][1:], m) for m in found[:limit]]

    def was_received(self, shard: int, id_: int) -> bool:
        self._alive()
        return (shard, id_) in self.inbox

    def _entry(self, id_: int) -> AlarmEntry:
        _, type_, name = next(key for key, known in self.actors.items() if known == id_)
        return AlarmEntry(id_, type_, name, self.alarms[id_])

    def read_reply(self, actor: int, key: str) -> Reply | None:
        self._alive()
        self.reads += 1
        return self.replies.get((actor, key), (0, None))[1]

    def reply_keys(self, actor: int) -> list[str]:
        self._alive()
        self.reads += 1
        return [key for (id_, key), _ in sorted(self.replies.items(), key=lambda row: row[1][0]) if id_ == actor]

    def expired_replies(self, *, before: int, after: int, limit: int) -> tuple[list[int], int]:
        self._alive()
        rows = sorted((id_, reply.at) for id_, reply in self.replies.values() if id_ > after)[:limit]
        return [id_ for id_, at in rows if at <= before], rows[-1][0] if len(rows) == limit else 0

    def write(self, batch: Batch) -> None:
        self._alive()
        assert batch.seq == self.commit_seq + 1, f"contract 1: batch {batch.seq} after {self.commit_seq}"
        assert set(batch.events) <= set(batch.event_logs)
        known = set(batch.kv) | set(batch.pages) | set(batch.page_counts) | set(batch.alarms) | batch.cleared
        assert known | set(batch.event_logs) <= {
            *self.actors.values(),
            *(actor[0] for actor in batch.actors),
        }
        self._outcome(self.fail_write)
        for id_, slot, type_, name in batch.actors:
            assert (slot, type_, name) not in self.actors, "an actor got a second id"
            self.actors[slot, type_, name] = id_
        for id_ in batch.cleared:
            self.rows[id_] = {}
            self.pages.pop(id_, None)
        for id_, items in batch.kv.items():
            rows = self.rows.setdefault(id_, {})
            for key, value in items.items():
                if value is None:
                    rows.pop(key, None)
                else:
                    rows[key] = value
        for id_, pages in batch.pages.items():
            self.pages.setdefault(id_, {}).update(pages)
        for id_, count in batch.page_counts.items():
            pages_left = {number: data for number, data in self.pages.get(id_, {}).items() if number <= count}
            self.pages.pop(id_, None)
            if pages_left:
                self.pages[id_] = pages_left
        for id_, alarm in batch.alarms.items():
            if alarm is None:
                self.alarms.pop(id_, None)
            else:
                self.alarms[id_] = alarm
        for id_, (first, last) in batch.event_logs.items():
            kept = self.events.setdefault(id_, {})
            assert last == self.event_logs.get(id_, (1, 0))[1] + len(batch.events.get(id_, ())), "a gap in the numbers"
            kept.update((event.seq, (batch.seq, event)) for event in batch.events.get(id_, ()))
            self.events[id_] = {seq: kept[seq] for seq in range(first, last + 1)}  # none of them is missing
            self.event_logs[id_] = first, last
        for place, reply in batch.replies.items():
            assert place[0] in self.actors.values()
            self.replies.pop(place, None)
            if reply is not None:
                self._last_reply += 1
                self.replies[place] = self._last_reply, reply
        assert set(batch.versions) <= set(self.actors.values())
        self.versions |= batch.versions
        gone = set(batch.expired_replies)
        if any(batch.replies.values()):
            oldest = sorted((id_, reply.at) for id_, reply in self.replies.values())[: max(16, 2 * len(batch.replies))]
            gone |= {id_ for id_, at in oldest if at <= batch.replies_before}
        self.replies = {place: row for place, row in self.replies.items() if row[0] not in gone}
        for id_, message in batch.outbox.items():
            if message is None:
                self.outbox.pop(id_, None)
            else:
                assert message.id == id_
                assert message.sender in self.actors.values()
                self.outbox[id_] = message
        self.inbox |= set(batch.inbox)
        self.inbox = {(shard, id_) for shard, id_ in self.inbox if id_ >= batch.floors.get(shard, 0)}
        self.commit_seq = batch.seq
        self.batches.append(batch)

    def sync(self) -> None:
        self._alive()
        assert not self._syncing, "contract 3: two syncs at once"
        self._syncing = True
        try:
            self._outcome(self.fail_sync)
        finally:
            self._syncing = False
        self.durable_seq = self.commit_seq

    @property
    def sync_fd(self) -> int:
        raise AssertionError("there is no file: call sync")

    def sync_failed(self, error: OSError) -> Exception:
        raise AssertionError("there is no file: call sync")

    def maintain(self) -> None:
        self._alive()
        self._outcome(self.fail_maintain)

    def close(self) -> None:
        self.closed = True

    def abandon(self) -> None:
        self.closed = True


def _queued(message: Message) -> bool:
    return message.error is None and (message.due == 0 or message.attempts > 0)
