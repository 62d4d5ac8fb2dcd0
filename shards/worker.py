"""The worker process: ``python -m actord.shards.worker FD``. It opens its shards, then serves until it is drained;
or it waits as a standby for the shards of the worker that it is to replace.

This is where the parts of a worker are put together; nothing else imports the store that it opens.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from functools import partial
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, cast

import actord
import msgspec
import uvloop
from actord import logs
from actord.context import Env, set_env
from actord.errors import ActorUnavailable, StoreCorrupt
from actord.settings import Settings
from actord.shards import log_context
from actord.shards.admin import Admin
from actord.shards.alarm_admin import AlarmAdmin
from actord.shards.alarms import AlarmScheduler
from actord.shards.allocator import Resident, keep_freed
from actord.shards.asgi import AsgiDoor
from actord.shards.backup_admin import BackupAdmin
from actord.shards.blackbox import open_box
from actord.shards.control import Message, boot_child
from actord.shards.data_admin import DataAdmin
from actord.shards.direct import DirectDoor
from actord.shards.dispatch import Dispatcher
from actord.shards.door import FrontDoor
from actord.shards.events import EventSweeper
from actord.shards.eviction import SWEEP_SECONDS, Evictor
from actord.shards.gate import OutputGate
from actord.shards.idempotency import Sweeper
from actord.shards.inspect_admin import InspectAdmin
from actord.shards.intake import Connection
from actord.shards.leaving import Departure, close_stores
from actord.shards.link import Link
from actord.shards.meter import Meter
from actord.shards.metrics import WorkerMetrics
from actord.shards.mounts import Door, MountedDoors
from actord.shards.outbound import Outbound
from actord.shards.outbox import Outbox
from actord.shards.outbox_admin import OutboxAdmin
from actord.shards.process import EXIT_CONFIG, LAST_WORDS_SECONDS, PARKED, Process
from actord.shards.registry import FrontDoor as Handler
from actord.shards.registry import Program, ProgramError, load_program
from actord.shards.reload_admin import ReloadAdmin
from actord.shards.shard import Shard
from actord.shards.slots import SLOTS, shard_of_slot, slot_of, slot_range
from actord.shards.sql_database import small_connections
from actord.shards.stub import Environment
from actord.shards.turns import TurnRunner
from actord.shards.waits import Key, WaitGraph
from actord.shards.whole_admin import WholeAdmin
from actord.storage import audit
from actord.storage.ballast import Ballast
from actord.storage.datadir import shard_paths
from actord.storage.figures import figures
from actord.storage.flush import open_flusher
from actord.storage.sqlite import SqliteStore

if TYPE_CHECKING:
    from actord.shards.tracing import Tracing

log = logging.getLogger("actord.worker")

EXIT_SOFTWARE = 70
EXIT_BROKEN = 74  # EX_IOERR: the store failed, the supervisor starts a successor
# How soon a waiting thread gets the interpreter: with the default of 5 ms the loop would wait for the flush thread.
SWITCH_INTERVAL = 0.0001


class Worker:
    """All that lives in this process."""

    def __init__(
        self,
        boot: Message,
        settings: Settings,
        program: Program,
        stores: dict[int, SqliteStore],
        damaged: list[int],
    ) -> None:
        self.settings = settings
        self.program = program
        self._boot = boot
        self._loop = loop = asyncio.get_running_loop()
        self._meter = meter = Meter(settings.log.slow_call)
        self._gate = gate = OutputGate(meter)
        self._links: dict[int, Link] = {}
        router = Outbound(self._link_of_slot, settings.http.call_deadline)
        env = Environment(program, router)
        actors = settings.actors
        self.runner = runner = TurnRunner(
            loop, gate, env, call_timeout=actors.call_timeout, init_timeout=actors.init_timeout
        )
        runner.on_bug = self._on_bug
        self._flusher = open_flusher(loop, settings.storage.flush, runner.slices.pressed)
        if settings.storage.flush == "auto":
            runner.slices.on_full = self._flusher.hurry
        runner.admission.set_limits(actors.worker_queue, actors.queue_target)
        self.evictor = Evictor(runner, actors.memory_target, actors.cache_per_instance, Resident())
        self.dispatcher = dispatcher = Dispatcher(program, actors, runner, gate, self.evictor)
        router.dispatcher = dispatcher
        dispatcher.body_bytes = settings.http.body_bytes
        set_env(cast(Env, env))
        self.evictor.on_growth = self._on_growth
        self.evictor.before_giving_back = partial(meter.hot.forget_absent, dispatcher.find)
        self._door = dispatcher.front_door = self._open_doors(program, env)
        count = boot["shards"]
        self.shards = {
            number: Shard(number, count, store, self._flusher, gate, runner, self._on_broken)
            for number, store in stores.items()
        }
        for shard in self.shards.values():
            shard.committer.meter = meter
        dispatcher.shard_of = [self.shards.get(shard_of_slot(slot, count)) for slot in range(SLOTS)]
        dispatcher.damaged = frozenset(slot for number in damaged for slot in slot_range(number, count))
        self.alarms = AlarmScheduler(
            dispatcher,
            runner,
            self.shards.values(),
            timeout=actors.alarm_timeout,
            retries=actors.alarm_retries,
            at_once=actors.alarms_at_once,
        )
        router.outbox = self.outbox = Outbox(
            dispatcher,
            self.shards.values(),
            count=count,
            links=self._link_of_slot,
            retries=actors.send_retries,
            at_once=actors.sends_at_once,
            on_bug=self._on_bug,
        )
        alarm_admin = AlarmAdmin(dispatcher, runner, list(self.shards.values()))
        self.metrics = WorkerMetrics(
            meter,
            dispatcher,
            runner,
            self.evictor,
            self.alarms,
            self.outbox,
            shards=self.shards.values(),
            damaged=damaged,
            stores=lambda: {number: figures(store) for number, store in stores.items()},
            links=self._links.values,
        )
        record = partial(audit.record, boot["data_dir"])
        self.admin = Admin(
            alarm_admin.handlers()
            | OutboxAdmin(self.outbox).handlers()
            | self.metrics.handlers()
            | ReloadAdmin(self.shards.values(), count).handlers()
            | InspectAdmin(dispatcher, runner, meter).handlers()
            | BackupAdmin(self.shards.values(), stores, damaged, settings.storage.backup_wal).handlers()
            | DataAdmin(dispatcher, runner, record).handlers()
            | WholeAdmin(dispatcher, runner, record).handlers()
        )
        self._replies = Sweeper(self.shards.values(), dispatcher.key_rules)
        dispatcher.waits = self._waits = WaitGraph(
            boot["index"],
            find=dispatcher.find,
            link_to=self._link_to,
            link_of=self._link,
            refuse=runner.refuse_queued,
        )
        self._owner_of_shard = {shard: owner for owner, link in enumerate(boot["links"]) for shard in link["shards"]}
        self._event_sweeper = EventSweeper(dispatcher, runner, self.shards.values())
        self._damaged = damaged
        self._tracing = self._open_tracing(router)
        self._servers: list[asyncio.Server] = []
        self._direct: DirectDoor | None = None
        self._leaving: asyncio.Task[None] | None = None
        self.flushing: asyncio.Task[None] | None = None
        self._park = False
        self._sweeping: asyncio.TimerHandle | None = None
        self.on_crowded: Callable[[], None] = lambda: None
        self.done: asyncio.Future[int] = loop.create_future()

    def _open_doors(self, program: Program, env: Environment) -> Door | MountedDoors | None:
        settings = self.settings
        host, port = settings.server.host, settings.server.port
        limit = settings.actors.call_timeout

        def door(front_door: Handler | None, app: Any, mount: str = "") -> Door | None:
            if app is not None:
                return AsgiDoor(
                    app,
                    time_limit=limit,
                    root_path=settings.http.root_path + mount,
                    server=(host, port) if host and port else None,
                )
            return None if front_door is None else FrontDoor(front_door, env, time_limit=limit)

        main = door(program.front_door, program.app)
        if not program.mounted:
            return main
        doors = {"": main} | {one.mount: door(one.front_door, one.app, one.mount) for one in program.mounted}
        return MountedDoors({mount: each for mount, each in doors.items() if each is not None})

    def _open_tracing(self, router: Outbound) -> Tracing | None:
        settings = self.settings.tracing
        if not settings.enabled:
            return None
        from actord.shards.tracing import open_tracing  # an extra, and nobody else pays for it

        tracing = open_tracing(settings.sample, f"worker-{self._boot['index']}")
        self.runner.before_turn = tracing.begin
        self._meter.tracing = tracing
        router.parent = tracing.current_parent
        return tracing

    # -- life

    async def start(self) -> None:
        """Let calls in."""
        if not self.evictor.has_room:
            log.warning("runtime.memory_target is about what this worker takes by itself: no instance stays long")
        self.outbox.start()
        self.dispatcher.await_fronts(f"front-{index}" for index in range(self.settings.server.fronts))
        sock = socket.socket(fileno=os.dup(self._boot["listen"]))
        self._servers.append(
            await self._loop.create_unix_server(lambda: cast(asyncio.Protocol, Connection(self.dispatcher)), sock=sock)
        )
        if "direct" in self._boot:
            await self._open_direct(self._boot)
        self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        self.alarms.start()
        self.metrics.lag.start()
        if isinstance(self._door, AsgiDoor | MountedDoors):
            await self._door.startup(self.settings.actors.init_timeout)

    async def _open_direct(self, boot: Message) -> None:
        self._direct = door = DirectDoor(
            self.dispatcher,
            self.settings.http,
            runtime_dir=boot["runtime_dir"],
            index=boot["index"],
            epoch=boot["epoch"],
            ticket=boot["ticket"],
        )
        sock = socket.socket(fileno=os.dup(boot["direct"]))
        self._servers.append(await self._loop.create_unix_server(door, sock=sock))

    def hold(self, held: bool) -> None:
        """Take no calls of direct clients: the fronts hold back those of theirs."""
        if self._direct is not None:
            self._direct.held = held

    def _sweep(self) -> None:
        if self.evictor.sweep():
            self._loop.call_soon(self._sweep_more)
        for link in self._links.values():
            link.expire()
        self._waits.sweep()
        self._replies.sweep()
        self._event_sweeper.sweep()
        if self._meter.tick(self.runner.deepest):
            self.runner.deepest = 0
        self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _on_growth(self) -> None:
        self._loop.call_soon(self._sweep_more)

    def _sweep_more(self) -> None:
        if not self.done.done() and self.evictor.more():
            self._loop.call_later(0.001, self._sweep_more)

    def leave(self, limit: float, *, park: bool) -> None:
        """Finish what was begun and what waits, commit, let the stores go; at the limit at once.

        ``park``: this process waits then, with its program, in case that its successor does not start. Told again
        without it, it ends.
        """
        if self._leaving is None:
            self._park = park
            self._leaving = self._loop.create_task(self._leave(limit))
        elif self._park:
            self._park = park
        elif not park:
            self._finish(0)

    async def _leave(self, limit: float) -> None:
        departure = Departure(
            self.dispatcher, self.runner, self.shards, crowded=self.on_crowded, close=self._close_servers
        )
        began = monotonic()
        if self._park:
            await departure.wait_for_streams(limit / 2)
        limit -= monotonic() - began
        self.alarms.stop()
        self.outbox.stop()
        quiet = await departure.run(limit)
        if self._tracing is not None:
            self.flushing = self._loop.create_task(self._tracing.close())
            if not self._park:  # a successor does not wait for it: this process goes on meanwhile
                await self.flushing
        if self.done.done():
            return
        self.outbox.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
        await departure.settle()  # of what ended while the links were being closed; nothing new begins
        if self.done.done():
            return
        self._flusher.close()
        clean = close_stores(self.shards)
        park = self._park and quiet and clean
        if park:
            self._retire()
        self._finish(PARKED if park else 0 if clean else EXIT_BROKEN)

    def _close_servers(self) -> None:
        for server in self._servers:
            server.close()

    def _retire(self) -> None:
        """Let go of everything but the program, which a successor that does not start may need again."""
        self.metrics.lag.stop()
        for task in self.runner.tasks:  # no turn will come
            task.cancel()
        for link in self._links.values():
            link.close()
        self.dispatcher.shard_of = [None] * SLOTS
        for host in self.dispatcher.hosts.values():
            host.activations.clear()

    def _on_bug(self, _bug: BaseException) -> None:
        """No turn would run any more, while pings were still answered: leave it to a successor."""
        os._exit(EXIT_SOFTWARE)

    def _on_broken(self, shard: Shard, error: BaseException) -> None:
        log.critical("shard %d failed and this worker stops: %s", shard.number, error)
        self.runner.stop()
        self._loop.call_later(LAST_WORDS_SECONDS, self._finish, EXIT_BROKEN)

    def _finish(self, code: int) -> None:
        if not self.done.done():
            self.done.set_result(code)

    # -- links to other workers

    def _link_of_slot(self, slot: int) -> Link:
        return self._link(self._owner_of_shard[shard_of_slot(slot, self._boot["shards"])])

    def _link_to(self, key: Key) -> Link | None:
        """The link to the owner of a key; None when that is this worker."""
        slot = slot_of(*key)
        return None if self.dispatcher.shard_of[slot] is not None else self._link_of_slot(slot)

    def _link(self, owner: int) -> Link:
        link = self._links.get(owner)
        if link is None:
            if self.done.done():
                raise ActorUnavailable("The worker of this task was replaced.", retry_after=1)
            me, runtime_dir = self._boot["index"], self._boot["runtime_dir"]
            link = self._links[owner] = Link(
                self._boot["links"][owner]["path"],
                caller=f"worker-{me}",
                begun_path=f"{runtime_dir}/begun-worker{me}-worker{owner}",
            )
            link.connect()
        return link

    # -- for whoever looks from outside

    def load(self) -> Message:
        """What the supervisor is told with each answer to a ping."""
        return {
            "calls": sum(self._meter.call.counts),
            "instances": sum(len(host.activations) for host in self.dispatcher.hosts.values()),
            "damaged": len(self._damaged),
        }

    def watch(self, black_box: int) -> None:
        """Keep what runs here where the supervisor can read it."""
        self.runner.box = open_box(black_box)

    def explain(self, signal: int, frame: FrameType | None) -> None:
        """SIGUSR1: say which turn holds this process, and where it stands."""
        call = self.runner.now_running
        where = "".join(traceback.format_stack(frame)) if frame is not None else ""
        if call is None:
            log.warning("no turn runs at this moment; the stack:\n%s", where)
        else:
            held = f"{call.act.host.type.name}.{call.method.name}"
            log.critical(
                "%s of %r has held this worker for %.1f s:\n%s", held, call.act.name, monotonic() - call.started, where
            )


def main(argv: list[str]) -> int:
    """Boot, open, serve. The exit code is 0 after a drain, and one of sysexits.h otherwise."""
    control_socket, boot = boot_child(int(argv[1]))
    settings = msgspec.convert(boot["settings"], Settings)
    logs.configure(
        settings.log.level, settings.log.format, process=f"worker-{boot['index']}", context=log_context.fields
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the supervisor decides; a terminal's Ctrl-C reaches the whole group
    keep_freed()
    small_connections()
    sys.addaudithook(_refuse_forks)
    try:
        check_version(boot["version"])
        program = load_program(settings.app)
    except ProgramError as error:
        return _fatal(control_socket, str(error), EXIT_CONFIG, error.__cause__)
    sys.setswitchinterval(SWITCH_INTERVAL)
    return uvloop.run(_serve(control_socket, boot, settings, program))


def check_version(server: str) -> None:
    """``ProgramError`` when the supervisor is of another version than what is installed now."""
    if server != actord.__version__:
        raise ProgramError(
            f"actord {actord.__version__} is installed now, but the server that runs is {server}: a reload "
            "is for programs. Restart the server."
        )


def _refuse_forks(event: str, _arguments: tuple[Any, ...]) -> None:
    """A forked child would go on as this worker: commit to its shards, and answer its callers a second time."""
    if event in ("os.fork", "os.forkpty"):
        raise RuntimeError("a worker must not fork: use subprocess, or multiprocessing with the method spawn")


def _open_stores(boot: Message, settings: Settings) -> tuple[dict[int, SqliteStore], list[int]]:
    """The stores of this worker's shards, and the numbers of those that are damaged and not served."""
    count = boot["shards"]
    stores: dict[int, SqliteStore] = {}
    damaged = []
    for number in boot["own"]:
        path, ballast = shard_paths(boot["data_dir"], number)
        try:
            stores[number] = SqliteStore.open(
                path,
                shard=number,
                identity=boot["identity"],
                slots=slot_range(number, count),
                checkpoint_wal=settings.storage.checkpoint_wal,
                page_cache=settings.storage.page_cache,
                ballast=Ballast(ballast, settings.storage.ballast) if settings.storage.ballast else None,
            )
        except StoreCorrupt as error:
            log.critical("shard %d is damaged and is not served: %s", number, error.detail)
            damaged.append(number)
    return stores, damaged


async def _serve(control_socket: socket.socket, boot: Message, settings: Settings, program: Program) -> NoReturn:
    def compose() -> Worker:
        if boot["cpu"] is not None:  # not before: what a standby does would keep its predecessor from its core
            os.sched_setaffinity(0, {boot["cpu"]})
        stores, damaged = _open_stores(boot, settings)
        worker = Worker(boot, settings, program, stores, damaged)
        if "black_box" in boot:
            worker.watch(boot["black_box"])
        return worker

    await Process(control_socket, compose, program.describe(), standby="standby" in boot).run()


def _fatal(control_socket: socket.socket, message: str, code: int, cause: BaseException | None = None) -> int:
    if cause is not None:
        log.error("%s", message, exc_info=cause)
    control_socket.sendall(msgspec.json.encode({"fatal": {"message": message, "exit": code}}) + b"\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv))
