"""The core of one worker in this process: dispatcher, turns, committer, gate, eviction, front door, as a worker
composes them, with an fsync that returns when the test says so. No socket, no thread, no process.

Calls go in as the frames of a link, and replies come out as what the link would carry.
"""

from __future__ import annotations

import asyncio
import json
import mmap
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import closing
from typing import Any

from actord import StatefulActor, codec
from actord.actor import type_name
from actord.limits import BEGUN_BYTES, LINK_CALLS
from actord.settings import Actors
from actord.shards.activation import Activation, Host
from actord.shards.admin import Admin
from actord.shards.alarm_admin import AlarmAdmin
from actord.shards.alarms import AlarmScheduler
from actord.shards.asgi import AsgiDoor
from actord.shards.call import Call, Sink
from actord.shards.dispatch import Dispatcher
from actord.shards.door import FrontDoor
from actord.shards.eviction import Evictor
from actord.shards.gate import OutputGate
from actord.shards.idempotency import Sweeper
from actord.shards.link import Link
from actord.shards.outbound import Outbound
from actord.shards.outbox import Outbox
from actord.shards.outbox_admin import OutboxAdmin
from actord.shards.registry import ActorType, Program, upper_snake
from actord.shards.shard import Shard
from actord.shards.slots import SLOTS, slot_range
from actord.shards.stub import Environment
from actord.shards.turns import TurnRunner
from actord.shards.waits import WaitGraph
from actord.shards.wire import CALL, CALLX, DOOR, FETCH, MSGPACK, PAIR, TIMING
from actord.storage.api import Store
from actord.storage.flush import outcome_of_sync

from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import steps

__all__ = ["MSGPACK", "PAIR", "TIMING", "Answer", "Caller", "Core", "HandFlusher", "Pending", "steps"]


_cores: list[Core] = []


async def stop_all_after(main: Coroutine[Any, Any, None]) -> None:
    """Run a test; the cores that it made begin nothing more when its loop ends."""
    try:
        await main
    finally:
        for core in _cores:
            core.runner.stop()
        _cores.clear()


class HandFlusher:
    """Fsyncs return at once by default (in the next iteration), or one by one, when ``auto`` is False; or before
    ``submit`` does, while ``here``."""

    def __init__(self) -> None:
        self.here = False
        self.auto = True
        self.waiting: deque[tuple[Store, Callable[[BaseException | None], None]]] = deque()
        self.count = 0

    def submit(self, store: Store, done: Callable[[BaseException | None], None]) -> None:
        self.count += 1
        self.waiting.append((store, done))
        if self.here:
            self.fsync()
        elif self.auto:
            asyncio.get_running_loop().call_soon(self.fsync)

    def fsync(self) -> None:
        """The oldest fsync returns, or fails as its store was told to."""
        store, done = self.waiting.popleft()
        done(outcome_of_sync(store))


class Answer:
    """What a caller got."""

    def __init__(self, status: int, body: bytes, head: bytes | None) -> None:
        self.status = status
        self.body = body
        self.head = head or b""

    @property
    def value(self) -> Any:
        if b"application/msgpack" in self.head:
            return codec.decode(self.body)
        return json.loads(self.body)

    @property
    def name(self) -> Any:
        """The error's class; "" for a success."""
        return self.value["name"] if self.status >= 400 else ""

    @property
    def applied(self) -> Any:
        return self.value["applied"]

    @property
    def detail(self) -> Any:
        return self.value["detail"]

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.head!r} {self.body!r}>"


class Pending:
    """A call on its way. ``await`` it, or look whether it is ``done``."""

    def __init__(self, id_: int) -> None:
        self.id = id_
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    @property
    def done(self) -> bool:
        return self.future.done()

    @property
    def answer(self) -> Answer:
        return self.future.result()

    def __await__(self) -> Generator[Any, None, Answer]:
        return self.future.__await__()


class Caller(Sink):
    """The caller's end of a link: open calls by id, and the begun map. Replies count when they are flushed."""

    def __init__(self) -> None:
        self.outside = True
        self.hosts: dict[str, Host] = {}  # that its calls reach
        self.begun = mmap.mmap(-1, BEGUN_BYTES)
        self.calls: dict[int, Call] = {}
        self.doors: dict[int, asyncio.Task[None]] = {}
        self.pending: dict[int, Pending] = {}
        self.order: list[int] = []  # ids in the order in which their replies left
        self.begun_at_reply: dict[int, int] = {}
        self._out: list[tuple[int, Answer]] = []
        self._last = 0

    def open(self) -> Pending:
        self._last = (self._last + 1) % LINK_CALLS
        pending = self.pending[self._last] = Pending(self._last)
        return pending

    def put(self, call: Call) -> None:
        self.calls.pop(call.id, None)
        self.put_reply(call.id, call.status, call.body, call.head)

    def put_reply(self, id_: int, status: int, body: bytes, head: bytes | None) -> None:
        self._out.append((id_, Answer(status, body, head)))

    def flush(self) -> None:
        out, self._out = self._out, []
        for id_, answer in out:
            self.order.append(id_)
            self.begun_at_reply[id_] = self.begun[id_]
            self.pending.pop(id_).future.set_result(answer)  # a second reply is a KeyError


class Core:
    """Everything that lives in a worker but its process and its sockets."""

    def __init__(
        self,
        *classes: type[StatefulActor],
        store: Store | None = None,
        front_door: Any = None,
        app: Any = None,
        shard: int = 0,
        shards: int = 1,
        links: Callable[[int], Link] | None = None,
        **settings: Any,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.settings = actors = Actors(**settings)
        self.program = Program("test", [ActorType(cls, upper_snake(cls.__name__)) for cls in classes], front_door)
        self.default_type = type_name(classes[0]) if classes else ""
        self.store: Any = store if store is not None else MemoryStore()
        self.flusher = HandFlusher()
        self.gate = OutputGate()
        self.resident = 0
        self.broken: list[BaseException] = []
        router = Outbound(links or _no_link, 60.0)
        self.env = Environment(self.program, router)
        self.runner = TurnRunner(
            loop, self.gate, self.env, call_timeout=actors.call_timeout, init_timeout=actors.init_timeout
        )
        self.runner.admission.set_limits(actors.worker_queue, actors.queue_target)
        self.evictor = Evictor(self.runner, actors.memory_target, actors.cache_per_instance, lambda: self.resident)
        self.dispatcher = router.dispatcher = Dispatcher(self.program, actors, self.runner, self.gate, self.evictor)
        self.dispatcher.waits = WaitGraph(
            0,
            find=self.dispatcher.find,
            link_to=lambda key: None,
            link_of=lambda worker: None,
            refuse=self.runner.refuse_queued,
        )
        if front_door is not None:
            self.dispatcher.front_door = FrontDoor(front_door, self.env, time_limit=actors.call_timeout)
        self.app = None if app is None else AsgiDoor(app, time_limit=actors.call_timeout)
        if self.app is not None:
            self.dispatcher.front_door = self.app
        self.shard = Shard(shard, shards, self.store, self.flusher, self.gate, self.runner, self._on_broken)
        self.alarms = AlarmScheduler(
            self.dispatcher,
            self.runner,
            [self.shard],
            timeout=actors.alarm_timeout,
            retries=actors.alarm_retries,
            at_once=actors.alarms_at_once,
            chance=lambda: 0.0,
        )
        self.replies = Sweeper([self.shard], self.dispatcher.key_rules)
        router.outbox = self.outbox = Outbox(
            self.dispatcher,
            [self.shard],
            count=shards,
            links=links or _no_link,
            retries=actors.send_retries,
            at_once=actors.sends_at_once,
            chance=lambda: 0.0,
            on_bug=self.broken.append,
        )
        alarm_admin = AlarmAdmin(self.dispatcher, self.runner, [self.shard])
        self.admin = Admin(alarm_admin.handlers() | OutboxAdmin(self.outbox).handlers())
        own = slot_range(shard, shards)
        self.dispatcher.shard_of = [self.shard if slot in own else None for slot in range(SLOTS)]
        self.caller = Caller()
        self.caller.hosts = self.dispatcher.exposed
        self._now: Callable[[], float] = loop.time
        _cores.append(self)

    def _on_broken(self, _shard: Shard, error: BaseException) -> None:
        self.broken.append(error)
        self.runner.stop()

    # -- calls

    def send(
        self,
        name: str,
        method: str,
        body: bytes = b"",
        *,
        type_: str = "",
        flags: int = 0,
        within: float = 60.0,
        caller: Caller | None = None,
        key: str | None = None,
        again: int = 0,
    ) -> Pending:
        """A CALL frame with this body, its deadline ``within`` seconds from now; with a ``key`` a CALLX frame."""
        caller = caller or self.caller
        caller.hosts = self.dispatcher.exposed  # it is a client of a front
        pending = caller.open()
        deadline = int((self._now() + within) * 1000)
        if key is not None:
            extras = {"key": key} | ({"again": again} if again else {})
            fields = (pending.id, type_ or self.default_type, name, method, extras, flags, deadline, body)
            self.dispatcher.callx(caller, (CALLX, *fields), self._now())  # type: ignore[arg-type]
            self.gate.flush()
            return pending
        frame = (CALL, pending.id, type_ or self.default_type, name, method, flags, deadline, body)
        self.dispatcher.call(caller, frame, self._now())  # type: ignore[arg-type]
        self.gate.flush()
        return pending

    def call(self, name: str, method: str, *args: Any, **kwargs: Any) -> Pending:
        """A call with JSON arguments; options of ``send`` go through ``send``."""
        body = json.dumps(kwargs if kwargs else list(args)).encode() if args or kwargs else b""
        return self.send(name, method, body)

    def keyed(self, name: str, key: str, method: str, *args: Any, **kwargs: Any) -> Pending:
        """A call with JSON arguments and an idempotency key."""
        return self.send(name, method, json.dumps(kwargs if kwargs else list(args)).encode(), key=key)

    async def value(self, name: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """The result of a call that succeeds."""
        answer = await self.call(name, method, *args, **kwargs)
        assert answer.status == 200, answer
        return answer.value

    def fetch(
        self,
        name: str,
        method: str = "GET",
        url: str = "/",
        body: bytes = b"",
        *,
        headers: Any = (),
        within: float = 60,
    ) -> Pending:
        pending = self.caller.open()
        request = [method, url, [list(pair) for pair in headers], "127.0.0.1"]
        deadline = int((self._now() + within) * 1000)
        frame = (FETCH, pending.id, self.default_type, name, request, None, 0, deadline, body)
        self.dispatcher.fetch(self.caller, frame, self._now())  # type: ignore[arg-type]
        self.gate.flush()
        return pending

    def door(
        self, method: str = "GET", url: str = "/", body: bytes = b"", *, flags: int = 0, within: float = 60
    ) -> Pending:
        pending = self.caller.open()
        deadline = int((self._now() + within) * 1000)
        frame = (DOOR, pending.id, [method, url, [], "127.0.0.1"], flags, deadline, body)
        self.dispatcher.door(self.caller, frame, self._now())  # type: ignore[arg-type]
        self.gate.flush()
        return pending

    # -- looking inside

    def activation(self, name: str, type_: str = "") -> Activation:
        return self.dispatcher.hosts[type_ or self.default_type].activations[name]

    def activations(self, type_: str = "") -> dict[str, Activation]:
        return self.dispatcher.hosts[type_ or self.default_type].activations

    def hold_fsyncs(self) -> None:
        """From now on an fsync returns only by ``fsync``."""
        self.flusher.auto = False

    async def fsync(self) -> None:
        """The oldest fsync returns; what follows from it happens."""
        self.flusher.fsync()
        await steps()

    def sweep(self) -> None:
        """One whole sweep of the evictor. What waits for turns of ``on_deactivate`` goes on when they have run."""
        if self.evictor.sweep():
            self._sweep_more()

    def _sweep_more(self) -> None:
        while self.evictor.more():
            if self.runner.waiting:
                if not self.runner.stopped:
                    asyncio.get_running_loop().call_soon(self._sweep_more)
                return


def _no_link(slot: int) -> Link:
    raise AssertionError(f"slot {slot} is not this worker's, and there is no other")


def open_sqlite(directory: Any, shard: int = 0, shards: int = 1) -> Any:
    """A store of the real kind."""
    from actord.storage.sqlite import SqliteStore

    return closing(
        SqliteStore.open(
            str(directory / f"shard-{shard}.db"),
            shard=shard,
            identity="test",
            slots=slot_range(shard, shards),
            checkpoint_wal=256 * 1024,
            page_cache=1024 * 1024,
        )
    )
