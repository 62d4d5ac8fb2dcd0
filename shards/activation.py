"""The live side of one key: its mailbox, its cache, and the user's object while there is one."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from actord.errors import InstanceAborted, TurnEnded
from actord.shards.blackbox import label_of
from actord.shards.call import UNTOUCHED, Call, current_turn
from actord.shards.events import emit
from actord.shards.kv import KV
from actord.shards.sockets import Addressed, Room, Socket, broadcast, open_sockets
from actord.shards.upgrades import bring_up_to_date

if TYPE_CHECKING:
    from actord.actor import StatefulActor
    from actord.context import Env, When
    from actord.settings import Actors
    from actord.shards.event_streams import Topic
    from actord.shards.events import Numbers
    from actord.shards.registry import ActorType
    from actord.shards.shard import Shard
    from actord.shards.sql import SqlPool
    from actord.storage.api import Alarm, Batch, Store

_UNKNOWN: Any = object()


class Host:
    """One actor type in this worker, with its activations by name."""

    __slots__ = (
        "activations",
        "created",
        "events_age_ms",
        "events_kept",
        "idle_after",
        "mailbox",
        "rooms",
        "sql_pool",
        "topics",
        "type",
    )

    def __init__(self, type_: ActorType, defaults: Actors, sql_pool: SqlPool) -> None:
        self.type = type_
        self.sql_pool = sql_pool
        self.idle_after = type_.idle_after or defaults.idle_after
        self.mailbox = type_.mailbox or defaults.mailbox
        self.activations: dict[str, Activation] = {}
        self.created = 0  # activations since the worker began
        self.events_kept = type_.events_kept or defaults.events_kept
        self.events_age_ms = int((type_.events_age or defaults.events_age) * 1000)
        self.topics: dict[str, Topic] = {}  # the events of an actor, by name, while somebody reads them
        self.rooms: dict[str, Room] = {}  # those that have sockets, by name

    def room(self, name: str) -> Room:
        """The room of an actor, which may be empty."""
        return self.rooms.get(name) or Room(self.rooms, self.type.name, name)


class Activation:
    """Exists while anything about its key is in memory. The instance may be dropped and built anew many times: the
    mailbox and the cache of what is committed stay, so nothing queued and nothing unwritten is lost with it.
    """

    __slots__ = (
        "alarm",
        "busy",
        "events",
        "host",
        "instance",
        "keys",
        "kv",
        "label",
        "last_used",
        "mailbox",
        "name",
        "seq",
        "shard",
        "slot",
        "turn",
    )

    def __init__(self, host: Host, name: str, shard: Shard, slot: int) -> None:
        # for life
        self.host = host
        self.name = name
        self.shard = shard
        self.slot = slot
        self.label = label_of(host.type.name, name)
        self.kv = KV(self)
        self.alarm = _UNKNOWN  # as the turns so far left it, once it was read
        self.events: Numbers | None = None  # of its events, once they were needed
        # changing
        self.instance: StatefulActor | None = None
        self.busy = False  # a turn runs, or is about to
        self.turn: Call | None = None
        self.mailbox: deque[Call] | None = None
        self.seq = 0  # the newest commit that holds a write of this key
        self.keys: dict[str, None] | None = None  # idempotency keys with a reply, oldest first; None: not looked up
        self.last_used = 0  # in ticks of the worker's sweep

    @property
    def store(self) -> Store:
        return self.shard.store

    def join(self, turn: Call, batch: Batch) -> None:
        """Move what a finished turn wrote into the open batch. Raises before anything was moved, or not at all."""
        sql = self.kv.used_sql
        if turn.once is not None:  # what may raise comes first
            turn.once.check(turn)
        if turn.alarm is not UNTOUCHED:
            self.committed_alarm()
        if turn.once is not None or turn.effects is not None:
            self.kv.known_id()
        if sql is not None:
            self.kv.known_id()
            sql.commit(turn)
        if turn.alarm is not UNTOUCHED:
            self._join_alarm(turn.alarm, batch)
        if turn.writes is not None:
            self.kv.join(turn, batch)
        if sql is not None:
            sql.join(turn, batch)
        if turn.once is not None:
            turn.once.join(turn, batch)
        if turn.effects is not None:
            for effect in turn.effects:
                effect.join(turn, batch)

    def committed_alarm(self) -> Alarm | None:
        """The alarm as the turns so far left it."""
        if self.alarm is _UNKNOWN:
            actor = self.kv.known_id()
            self.alarm = None if actor is None else self.store.read_alarm(actor)
        alarm: Alarm | None = self.alarm
        return alarm

    def _join_alarm(self, alarm: Alarm | None, batch: Batch) -> None:
        if alarm != self.committed_alarm():
            batch.alarms[self.kv.ensure_id(batch)] = alarm
            self.alarm = alarm
            self.seq = batch.seq

    def forget(self) -> None:
        """The store took something back: what is cached here may never have been."""
        self.kv.forget()
        self.alarm = _UNKNOWN
        self.keys = None
        self.events = None
        self.seq = 0
        if self.kv.used_sql is not None:
            self.kv.used_sql.drop()
        room = self.host.rooms.get(self.name)
        if room is not None:
            room.forget()

    def undo(self, turn: Call) -> bool:
        """Take back what a failed turn did beyond its own buffers. True when it had written there."""
        sql = self.kv.used_sql
        wrote = sql is not None and sql.rollback()
        effects = turn.effects
        return wrote or turn.alarm is not UNTOUCHED or (effects is not None and any(e.is_write for e in effects))

    @property
    def evictable(self) -> bool:
        """Nothing runs, waits or is held, and the store has everything."""
        return not self.busy and self.seq <= self.shard.committer.durable_seq


class ActorContext:
    """Implements ``actord.context.Context`` for one instance."""

    __slots__ = ("_act", "_before_first_turn", "env", "storage")

    def __init__(self, act: Activation, env: Env) -> None:
        self._act = act
        self.env = env
        self.storage = act.kv
        self._before_first_turn: list[Callable[[], Awaitable[Any]]] | None = None

    @property
    def id(self) -> str:
        return self._act.name

    @property
    def type(self) -> str:
        return self._act.host.type.name

    @property
    def fence(self) -> tuple[int, int, int]:
        act = self._act
        return act.slot, act.shard.epoch, act.shard.store.commit_seq

    def set_alarm(self, when: When) -> Awaitable[None]:
        return self._act.kv.set_alarm(when)

    def emit(self, kind: str, data: Any = None) -> None:
        emit(self._act.kv.turn(), kind, data)

    def count(self, tag: str | None = None) -> int:
        return sum(1 for _ in open_sockets(self._act, tag))

    def sockets(self, tag: str | None = None) -> list[Socket]:
        return list(open_sockets(self._act, tag))

    def broadcast(self, data: str | bytes, *, tag: str | None = None, exclude: Any = None) -> Addressed:
        return broadcast(self._act, data, tag, exclude)

    def block_concurrency_while(self, fn: Callable[[], Awaitable[Any]]) -> None:
        if self._act.instance is not None:
            raise RuntimeError("block_concurrency_while is for the constructor: calls are not yet let in there")
        if self._before_first_turn is None:
            self._before_first_turn = []
        self._before_first_turn.append(fn)

    def abort(self, reason: str = "") -> None:
        turn = current_turn.get()
        if turn is None or turn.over or turn.act is not self._act:
            raise TurnEnded("Only the turn that runs can abort its instance.")
        turn.aborted = reason or "the actor called ctx.abort"
        raise InstanceAborted(turn.aborted)

    def initialisers(self) -> list[Callable[[], Awaitable[Any]]]:
        """What has to run before the first turn: the constructor's own, then ``on_activate``."""
        found = self._before_first_turn or []
        self._before_first_turn = None
        if self._act.host.type.version > 1:
            found.insert(0, partial(bring_up_to_date, self._act))
        if self._act.host.type.has_on_activate:
            assert self._act.instance is not None
            found.append(self._act.instance.on_activate)
        return found
