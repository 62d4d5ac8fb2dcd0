"""The store of one shard, as the shard sees it: load, read, commit a numbered batch, make it durable.

Contract, for any engine:

1. ``write`` applies a whole batch or nothing. Batches arrive in the order of their numbers, without gaps, and the
   number is stored in the same transaction.
2. Reads see every batch whose ``write`` has returned, durable or not.
3. ``sync`` returns only when every batch written before it was called survives a power cut. It alone may be called
   from a thread of its own, and never twice at once.
4. ``StoreFull`` from ``write`` means that nothing of the batch was applied, for certain, and that the store works on.
   Any other failure of ``write``, ``sync`` or ``maintain`` is ``StoreBroken``: the outcome is unknown, and no method
   may be called again, reads included.
5. A row that was not written by this store for this actor and key is never returned: ``StoreCorrupt`` instead.

Nothing above this interface assumes a file: an engine on a database server leases slots and checks an epoch in
``write``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol


class Alarm(NamedTuple):
    """The one alarm of an actor. Times are milliseconds of wall clock since the epoch."""

    due: int  # when it fires next
    scheduled: int  # when it was meant to fire first; retries move ``due`` alone
    retries: int = 0  # runs that failed so far
    error: str | None = None  # why it is kept as a failed alarm that fires no more; None while it is armed


class Reply(NamedTuple):
    """What a call with an idempotency key was answered."""

    at: int  # when, in milliseconds of wall clock since the epoch
    digest: bytes  # of the request: another one must not get this answer
    status: int
    head: bytes | None  # header lines as the wire's REPLY carries them
    body: bytes


class AlarmEntry(NamedTuple):
    """An alarm with the key that it belongs to."""

    actor: int
    type: str
    name: str
    alarm: Alarm


class Event(NamedTuple):
    """One event that an actor emitted."""

    seq: int  # 1, 2, 3 ... for each actor
    kind: str
    data: bytes  # JSON
    until: int  # when it may be dropped, milliseconds of wall clock


class ExpiredEvents(NamedTuple):
    """The events of an actor up to number ``seq`` may be dropped."""

    actor: int
    type: str
    name: str
    seq: int


class Message(NamedTuple):
    """What an actor has sent to another one: a method with its arguments."""

    id: int
    sender: int  # actor id
    type: str  # of the receiver
    name: str
    method: str
    args: bytes  # [positional, keywords] in the codec's form
    # Milliseconds of wall clock: not to be delivered before, 0 for at once; with attempts, when the next one is due.
    due: int = 0
    attempts: int = 0  # how often the receiver has failed on it
    error: str | None = None  # why it is parked: kept, and not delivered; None while it is to be delivered


class MessageEntry(NamedTuple):
    """A message with its sender's key."""

    type: str
    name: str
    message: Message


class Batch:
    """The writes of the turns that share one commit.

    ``kv`` maps actor id -> key -> encoded value, None for a deletion. An actor in ``cleared`` loses all of its keys
    and pages before its part of ``kv`` and ``pages`` is applied; it keeps its alarm. ``actors`` are the names that get
    their id with this batch. ``page_counts`` is the new size of each SQL database whose size changed, in pages: pages
    beyond it are removed; ``pages`` maps actor id -> page number (from 1) -> content. ``alarms`` maps actor id ->
    alarm, None for no alarm. ``events`` maps actor id -> new events, in order; ``event_logs`` maps it to the numbers of
    the oldest and of the newest event that is kept from now on: older ones are removed, all when the first
    number is above the second. ``replies`` maps (actor id, idempotency key) -> reply, None for no reply any more, in
    the order in which they came; ``expired_replies`` are rows to delete, by the ids of ``Store.expired_replies``. When
    replies are added, the store may delete some of the oldest that are from ``replies_before`` (milliseconds of wall
    clock) or earlier. ``outbox`` maps message id -> message, None for a deletion; ``inbox`` has (shard, message id) of
    messages of other shards that take effect here; ``floors`` maps a shard to the id below which its messages need not
    be remembered. ``versions`` maps actor id -> the version of its data. Clearing an actor touches neither its events
    nor its replies nor its messages nor its version.
    """

    __slots__ = (
        "actors",
        "alarms",
        "cleared",
        "event_logs",
        "events",
        "expired_replies",
        "floors",
        "inbox",
        "kv",
        "outbox",
        "page_counts",
        "pages",
        "replies",
        "replies_at",
        "replies_before",
        "seq",
        "versions",
    )

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.kv: dict[int, dict[str, bytes | None]] = {}
        self.cleared: set[int] = set()
        self.actors: list[tuple[int, int, str, str]] = []  # (id, slot, type, name)
        self.page_counts: dict[int, int] = {}
        self.pages: dict[int, dict[int, bytes]] = {}
        self.alarms: dict[int, Alarm | None] = {}
        self.events: dict[int, list[Event]] = {}
        self.event_logs: dict[int, tuple[int, int]] = {}
        self.replies: dict[tuple[int, str], Reply | None] = {}
        self.replies_at = 0  # the time that whoever adds them gives all of them
        self.replies_before = 0
        self.expired_replies: list[int] = []
        self.outbox: dict[int, Message | None] = {}
        self.inbox: dict[tuple[int, int], None] = {}
        self.floors: dict[int, int] = {}
        self.versions: dict[int, int] = {}


class Store(Protocol):
    """See the contract above. All sizes are bytes."""

    commit_seq: int  # the number of the newest batch written, 0 in a new store
    epoch: int  # one more than that of the last opening that committed something

    def find_actor(self, slot: int, type_: str, name: str) -> int | None:
        """The id of an actor that has written before, else None."""
        ...

    def lost_types(self, slot: int, known: Collection[str]) -> list[str]:
        """The types that are none of these, and of which an actor of this slot has a key, a page or an alarm."""
        ...

    def read_version(self, actor: int) -> int:
        """The version of an actor's data; 1 when nothing was ever said of it."""
        ...

    def older_actors(self, type_: str, version: int, *, after: int, limit: int) -> list[tuple[int, str]]:
        """Ids and names of a type's actors whose data are older than ``version``, by id above ``after``."""
        ...

    def newest_versions(self, *, after: int, limit: int) -> tuple[dict[str, int], int]:
        """Types of which there are data of later versions than 1 -> the latest of them.

        Looks at the next ``limit`` actors that have one, by id above ``after``; returns the id to go on behind, 0 when
        the end was reached.
        """
        ...

    def next_actor_id(self) -> int:
        """A new id, never used before in this store; it is taken by naming it in ``Batch.actors``."""
        ...

    def read(self, actor: int, key: str) -> bytes | None: ...

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
        """Rows of one actor in key order, and whether the range was read to its end.

        ``start`` inclusive (exclusive with ``start_after``), ``end`` exclusive, in key order also when ``reverse``.
        Stops after ``limit`` rows, or when the values read exceed ``limit_bytes``.
        """
        ...

    def page_count(self, actor: int) -> int:
        """The size of the actor's SQL database in pages, 0 when it has none."""
        ...

    def read_page(self, actor: int, number: int) -> bytes | None:
        """One page of it, from 1."""
        ...

    def read_alarm(self, actor: int) -> Alarm | None: ...

    def armed_alarms(self, *, until: int, limit: int, after: tuple[int, int] = (-1, 0)) -> list[AlarmEntry]:
        """Alarms due at or before ``until``, by (due, actor) above ``after``, at most ``limit``."""
        ...

    def failed_alarms(self, *, limit: int, after: int = 0) -> list[AlarmEntry]:
        """Alarms kept after their last retry, by actor id above ``after``, at most ``limit``."""
        ...

    def event_log(self, actor: int) -> tuple[int, int]:
        """The numbers of the oldest and of the newest event that is kept; the second is the last one ever given."""
        ...

    def last_event(self, actor: int, *, batch: int) -> int:
        """The number of the newest event that stood at the end of commit ``batch``, which is one of the last two."""
        ...

    def read_events(self, actor: int, *, after: int, batch: int, limit: int, limit_bytes: int) -> list[Event]:
        """Events above number ``after`` from commits up to ``batch``, in order: those that are kept.

        Stops after ``limit`` of them, or with the one that reaches ``limit_bytes``.
        """
        ...

    def expired_events(self, *, now: int, limit: int) -> list[ExpiredEvents]:
        """Actors with events that need not be kept beyond ``now``, from a look at the ``limit`` oldest ones."""
        ...

    def read_reply(self, actor: int, key: str) -> Reply | None:
        """The reply kept for an idempotency key, however old it is."""
        ...

    def reply_keys(self, actor: int) -> list[str]:
        """The keys of all replies kept for an actor, oldest first."""
        ...

    def expired_replies(self, *, before: int, after: int, limit: int) -> tuple[list[int], int]:
        """Of the next ``limit`` replies of the store behind the id ``after``: those from ``before`` or earlier.

        Returns their ids, for ``Batch.expired_replies``, and the id to go on behind, 0 when the end was reached.
        """
        ...

    def next_message_id(self) -> int:
        """A new id for a message, above all that this store has ever given."""
        ...

    def queued_messages(self, *, after: int, until: int, limit: int) -> tuple[list[Message], int]:
        """Messages to be delivered or tried again, by id above ``after`` up to ``until``, and up to which id that was.

        Looks at ``limit`` messages, queued or not; fewer when they are large.
        """
        ...

    def pair_messages(
        self, sender: int, type_: str, name: str, *, after: int, until: int, limit: int
    ) -> tuple[list[Message], bool]:
        """The same for one sender and one receiver, at most ``limit``, and whether these are all there are."""
        ...

    def delayed_messages(self, *, until: int, limit: int, after: tuple[int, int] = (-1, 0)) -> list[Message]:
        """Messages sent with a delay that is over at ``until``, by (due, id) above ``after``, at most ``limit``."""
        ...

    def read_message(self, id_: int) -> Message | None: ...

    def list_messages(self, *, parked: bool, after: int, limit: int) -> list[MessageEntry]:
        """Messages with their senders, by id above ``after``: all of them, or those that are parked."""
        ...

    def was_received(self, shard: int, id_: int) -> bool:
        """Whether a message of another shard has taken effect here; it may have been forgotten below its floor."""
        ...

    def write(self, batch: Batch) -> None: ...

    def sync(self) -> None: ...

    @property
    def sync_fd(self) -> int:
        """The descriptor whose ``fdatasync`` is what ``sync`` does, for whoever has a cheaper way to run it."""
        ...

    def sync_failed(self, error: OSError) -> Exception:
        """That way failed: the store is broken from now on. Returns the ``StoreBroken`` to report."""
        ...

    def maintain(self) -> None:
        """Called on the loop thread between commits, when nothing is in flight: checkpoints when one is due."""
        ...

    def close(self) -> None:
        """A clean stop: everything durable, a marker with the last number left behind."""
        ...

    def abandon(self) -> None:
        """Let go of files and locks without another write, after ``StoreBroken``."""
        ...
