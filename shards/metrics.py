"""What a worker answers when it is asked for its figures: everything that it counts, gathered when somebody asks.

1. Nothing here runs between two questions, but for a timer that measures how late the loop is.
2. A label is a type, a method or an error's class of the program, a shard's number or a word from here: never a
   caller's text, never an actor's name. ``hottest`` alone names actors, for the operator who asks.
3. The work of an answer does not grow with the number of instances: of more than ``WALKED`` the sizes are estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from actord.measures import FAILED, REFUSED, RUN_SUM, Figure, LoopLag, Times
from actord.shards.direct import CALLER, CLIENT
from actord.shards.mounts import MountedDoors

if TYPE_CHECKING:
    from actord.shards.activation import Host
    from actord.shards.admin import Handler
    from actord.shards.alarms import AlarmScheduler
    from actord.shards.control import Message
    from actord.shards.dispatch import Dispatcher
    from actord.shards.eviction import Evictor
    from actord.shards.link import Link
    from actord.shards.meter import Meter
    from actord.shards.outbox import Outbox
    from actord.shards.shard import Shard
    from actord.shards.turns import TurnRunner

WALKED = 10_000  # instances whose caches are looked at
HOTTEST = 20


class WorkerMetrics:
    """``stores`` gives the figures of the stores, by shard; ``links`` those to other workers."""

    def __init__(
        self,
        meter: Meter,
        dispatcher: Dispatcher,
        runner: TurnRunner,
        evictor: Evictor,
        alarms: AlarmScheduler,
        outbox: Outbox,
        *,
        shards: Iterable[Shard],
        damaged: Iterable[int],
        stores: Callable[[], dict[int, dict[str, float]]],
        links: Callable[[], Iterable[Link]],
    ) -> None:
        self.lag = LoopLag()
        self._meter = meter
        self._dispatcher = dispatcher
        self._runner = runner
        self._evictor = evictor
        self._alarms = alarms
        self._outbox = outbox
        self._shards = list(shards)
        self._damaged = list(damaged)
        self._stores = stores
        self._links = links

    def handlers(self) -> dict[str, Handler]:
        return {"metrics": self._metrics, "hottest": self._hottest}

    async def _metrics(self, request: Message) -> list[Figure]:
        return list(self.figures())

    async def _hottest(self, request: Message) -> list[tuple[str, str, float, float, float]]:
        return self._meter.hot.top(HOTTEST)

    def figures(self) -> Iterator[Figure]:
        """All of them. What the system knows of the process is asked by the supervisor."""
        yield ("actord_event_loop_lag_seconds", (), self.lag.times.value())
        yield from self._calls()
        yield from self._commits()
        yield from self._instances()
        yield from self._alarms_and_messages()
        yield from self._storage()

    def _calls(self) -> Iterator[Figure]:
        meter, runner, dispatcher = self._meter, self._runner, self._dispatcher
        for type_, host in dispatcher.hosts.items():
            for method, times in _methods(host, self._alarms):
                yield from _runs(type_, method, times)
        yield ("actord_call_seconds", (), meter.call.value())
        yield ("actord_call_queue_seconds", (), meter.queue.value())
        for reason, count in (meter.refused + dispatcher.refused).items():
            yield ("actord_refused_total", (reason,), count)
        yield ("actord_replayed_calls_total", (), meter.replayed)
        yield ("actord_slow_calls_total", (), meter.slow.count)
        yield ("actord_queued_calls", (), runner.waiting)
        yield ("actord_suspended_turns", (), runner.suspended)
        yield ("actord_mailbox_depth", (), meter.deepest(runner.deepest))
        yield from self._doors()
        yield ("actord_event_streams", (), len(dispatcher.events))
        direct = sum(1 for connection in dispatcher.connections if connection.caller in (CLIENT, CALLER))
        yield ("actord_direct_connections", (), direct)
        yield ("actord_resent_calls_total", (), sum(link.resent for link in self._links()))

    def _doors(self) -> Iterator[Figure]:
        door = self._dispatcher.front_door
        yield ("actord_front_door_open", (), 0 if door is None else door.open)
        doors = door.doors if isinstance(door, MountedDoors) else [] if door is None else [("", door)]
        for mount, one in doors:
            yield ("actord_front_door_seconds", (mount,), one.requests.times.value())
            for outcome, count in one.requests.outcomes.items():
                yield ("actord_front_door_requests_total", (mount, outcome), count)

    def _commits(self) -> Iterator[Figure]:
        meter = self._meter
        yield ("actord_commit_wait_seconds", (), meter.commit_wait.value())
        yield ("actord_batch_write_seconds", (), meter.batch_write.value())
        yield ("actord_fsync_seconds", (), meter.fsync.value())
        yield ("actord_batch_calls", (), meter.batch_calls.value())

    def _instances(self) -> Iterator[Figure]:
        evictor = self._evictor
        for type_, host in self._dispatcher.hosts.items():
            yield ("actord_instances", (type_,), len(host.activations))
            yield ("actord_activations_total", (type_,), host.created)
        yield ("actord_evictions_total", ("idle",), evictor.evictions - evictor.for_memory)
        yield ("actord_evictions_total", ("memory",), evictor.for_memory)
        yield ("actord_cache_bytes", (), _cached(self._dispatcher.hosts.values()))
        yield ("actord_sql_databases_open", (), self._dispatcher.open_databases)

    def _alarms_and_messages(self) -> Iterator[Figure]:
        alarms, outbox = self._alarms, self._outbox
        yield ("actord_alarms_fired_total", (), alarms.fired)
        yield ("actord_alarm_retries_total", (), alarms.retried)
        yield ("actord_alarms_failed_total", (), alarms.failed)
        yield ("actord_alarms_running", (), len(alarms.running))
        yield ("actord_alarm_overdue_seconds", (), alarms.overdue())
        yield ("actord_alarm_lag_seconds", (), alarms.lag.value())
        yield ("actord_messages_delivered_total", (), outbox.delivered)
        yield ("actord_message_retries_total", (), outbox.retried)
        yield ("actord_messages_parked_total", (), outbox.parked)
        yield ("actord_messages_under_way", (), outbox.under_way)

    def _storage(self) -> Iterator[Figure]:
        for shard in self._shards:
            yield ("actord_shard_up", (str(shard.number),), int(shard.committer.broken is None))
            yield ("actord_commits_total", (str(shard.number),), shard.store.commit_seq)
        for number in self._damaged:
            yield ("actord_shard_up", (str(number),), 0)
        for number, figures in self._stores().items():
            for name, value in figures.items():
                yield (name, (str(number),), value)


def _methods(host: Host, alarms: AlarmScheduler) -> Iterator[tuple[str, Times]]:
    """Everything of a type that takes turns, by the names of its class."""
    type_ = host.type
    for name, method in type_.methods.items():
        yield name, method.times
    yield "fetch", type_.fetch.times
    for handler in (type_.web_socket, type_.web_socket_message, type_.web_socket_close):
        if handler is not None:
            yield handler.name, handler.times
    alarm = alarms.handler(type_.name)
    if alarm is not None:
        yield alarm.name, alarm.times


def _runs(type_: str, method: str, times: Times) -> Iterator[Figure]:
    buckets = times[:RUN_SUM]
    count = sum(buckets)
    if not count:  # a method that nobody has called yet is no line
        return
    refused, failed = times[REFUSED], times[FAILED]
    yield ("actord_calls_total", (type_, method, "ok"), count - refused - failed)
    yield ("actord_calls_total", (type_, method, "refused"), refused)
    yield ("actord_calls_total", (type_, method, "failed"), failed)
    yield ("actord_call_run_seconds", (type_, method), (buckets, times[RUN_SUM]))


def _cached(hosts: Iterable[Host]) -> int:
    """Bytes of stored values that instances keep: estimated from every so many of a type that has many."""
    total = 0
    for host in hosts:
        step = len(host.activations) // WALKED + 1
        total += step * sum(act.kv.cached_bytes for act in islice(host.activations.values(), 0, None, step))
    return total
