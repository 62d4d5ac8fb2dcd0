"""The supervisor: opens what must outlive its children, starts them, replaces what dies, and ends them in order.

Promises:

1. It holds the data directory's lock for as long as it lives and every listening socket until it drains; it parses
   nothing.
2. It says where it listens once every child is ready: one line on standard output, words on standard error.
3. A program that does not load, or a disk that fails, ends the first start with the child's message and exit code;
   later on it is logged, and tried again.
4. TERM or INT drains: first the fronts, which finish their calls, then the workers, which commit. A second signal,
   or the drain limit, kills what is left.
5. No child outlives it, whatever ends it: the kernel kills them with their parent, and they end when their control
   line closes.
6. HUP reloads the program and the configuration (``server/rollout.py``).
7. Under a service manager it takes the sockets that it is handed, and tells how it is (``server/notify.py``).

Children are started with the interpreter (``sys.executable -m``), never by a bare fork: an SQLite connection must not
cross one. The first line on a child's control line is its ``boot`` message; see ``shards/control.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any

import actord
import msgspec
from actord import logs
from actord.errors import DataDirError, DataDirLocked, InvariantViolated
from actord.server import admin, guard, sockets, tls
from actord.server.announce import announce, report
from actord.server.backups import Backups
from actord.server.children import Child, Next
from actord.server.exits import CONFIG, FAILED, OK, TEMPORARY, StartError
from actord.server.listeners import Listeners
from actord.server.metrics import ServerMetrics
from actord.server.notify import Notifier
from actord.server.process import Failure
from actord.server.rollout import Rollout
from actord.server.trash import TrashKeeper
from actord.server.vitals import Vitals
from actord.settings import Settings
from actord.shards.blackbox import BlackBox
from actord.shards.control import ControlChannel, Message
from actord.storage.datadir import DataDir, open_data_dir

log = logging.getLogger("actord.supervisor")

PING_SECONDS = 1.0
FAILED_START_DRAIN_SECONDS = 5.0
FRONTS_SHARE = 0.8  # of the drain limit: workers have to commit behind a front that used all of its time
BURY_SECONDS = 2.0  # SIGKILL works at once, unless a disk hangs

# -P: the folder that the server was started in must not shadow modules.
FRONT = (sys.executable, "-P", "-m", "actord.server.front")
WORKER = (sys.executable, "-P", "-m", "actord.shards.worker")
# -B: bytecode is stamped with whole seconds, so that of a file saved twice within one would be taken for fresh.
DEV_WORKER = (sys.executable, "-P", "-B", "-m", "actord.shards.worker")


class State(Enum):
    STARTING = auto()
    SERVING = auto()
    DRAINING_FRONTS = auto()
    DRAINING_WORKERS = auto()
    STOPPED = auto()


class Event(Enum):
    ALL_READY = auto()
    STOP = auto()  # a signal, or a first start that failed
    FRONTS_GONE = auto()
    WORKERS_GONE = auto()


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.STARTING, Event.ALL_READY): State.SERVING,
    (State.STARTING, Event.STOP): State.DRAINING_FRONTS,
    (State.SERVING, Event.STOP): State.DRAINING_FRONTS,
    (State.DRAINING_FRONTS, Event.FRONTS_GONE): State.DRAINING_WORKERS,
    (State.DRAINING_WORKERS, Event.WORKERS_GONE): State.STOPPED,
    # what arrives when it no longer matters
    (State.SERVING, Event.ALL_READY): State.SERVING,
}


class Supervisor:
    """One server. ``run`` is called once; ``front`` and ``worker`` are the children's command lines."""

    def __init__(
        self,
        settings: Settings,
        *,
        resolve: Callable[[], Settings] | None = None,
        companion: Callable[[Supervisor], Awaitable[None]] | None = None,
        front: Sequence[str] = FRONT,
        worker: Sequence[str] = WORKER,
    ) -> None:
        # for life
        self.settings = settings
        self.program: dict[str, Any] = {}
        self.data_dir: DataDir
        self.listeners: Listeners
        self.metrics: ServerMetrics
        self.workers: list[Child] = []
        self.fronts: list[Child] = []
        read = resolve or (lambda: settings)
        self.rollout = Rollout(self, lambda: self.listeners.correct(read()))
        self.notifier = Notifier(os.environ)
        self._companion = companion
        self._argv = {"front": front, "worker": worker}
        self._cleanup = contextlib.ExitStack()
        # changing
        self.state = State.STARTING
        self.exit = OK
        self._ready: set[Child] = set()
        self._gone: set[Child] = set()
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()  # a child became ready or failed
        self._deadline: asyncio.TimerHandle | None = None
        self._drain_until = 0.0

    async def run(self) -> int:
        """Serve until a signal ends it; returns the exit code. Raises ``StartError`` when it can't even begin."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_bug)
        with self._cleanup:
            self._open()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_signal, number)
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup, sockets.has_terminal())
            for child in (*self.workers, *self.fronts):
                child.start()
            await self._admin.start()
            TrashKeeper(self.data_dir.path, lambda: self.settings.storage.trash_age).sweep()
            tasks = [loop.create_task(self._tick())]
            if self._companion is not None:
                tasks.append(loop.create_task(self._run_companion(self._companion)))
            try:
                await self._stopped.wait()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self.rollout.close()
                await self._bury()
        return self.exit

    # -- what outlives the children

    def _open(self) -> None:
        server = self.settings.server
        sockets.raise_descriptor_limit(self.settings.http.connections)
        self.guard = guard.Guard(self.settings)
        self.guard.load()
        self.guard.check_host(server.host)
        tls.context_of(server)  # what can't be used is refused before anything is made
        cores = sorted(os.sched_getaffinity(0))
        wanted = server.workers or len(cores)
        try:
            self.data_dir = open_data_dir(
                server.data_dir, shards=self.settings.storage.shards or wanted, ballast=self.settings.storage.ballast
            )
        except DataDirLocked as error:
            raise StartError(error.detail, TEMPORARY) from None
        except DataDirError as error:
            raise StartError(error.detail, CONFIG) from None
        self._cleanup.callback(self.data_dir.close)
        self._cleanup.callback(self.notifier.close)
        shards = self.data_dir.shards
        workers = min(wanted, shards)
        if workers < wanted:
            level = logging.WARNING if server.workers else logging.INFO
            words = "the data directory has %d shards: %d workers are started, not %d (`actord reshard` changes that)"
            log.log(level, words, shards, workers, wanted)
        self.listeners = listeners = Listeners(self.settings, self._cleanup)
        self.guard.check_public(listeners.clients)
        given = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]  # of the service manager
        runtime = sockets.RuntimeDir(Path(self.data_dir.path), given)
        self._cleanup.callback(runtime.remove)

        settings = msgspec.to_builtins(self.settings)
        common = {
            "supervisor": os.getpid(),
            "settings": settings,
            "links": [
                {"path": str(runtime.path / f"worker-{index}.sock"), "shards": list(range(index, shards, workers))}
                for index in range(workers)
            ],
            "shards": shards,
            "runtime_dir": str(runtime.path),
            "version": actord.__version__,
            "epoch": secrets.token_hex(8),
            "ticket": secrets.token_hex(16),
        }
        if server.direct:
            for index, link in enumerate(common["links"]):
                link["direct"] = str(runtime.path / f"direct-{index}.sock")
        pin = server.pin and workers <= len(cores)
        for index, link in enumerate(common["links"]):
            sock = self._cleanup.enter_context(sockets.open_worker_socket(link["path"]))
            black_box = BlackBox(f"worker-{index}")
            self._cleanup.callback(black_box.close)
            boot = {
                **common,
                "settings": guard.without_secrets(settings),
                "boot": "worker",
                "index": index,
                "cpu": cores[index] if pin else None,
                "listen": sock.fileno(),
                "black_box": black_box.fd,
                "own": link["shards"],
                "data_dir": str(self.data_dir.path),
                "identity": self.data_dir.identity,
            }
            fds = [sock.fileno(), black_box.fd]
            if "direct" in link:
                direct = self._cleanup.enter_context(sockets.open_worker_socket(link["direct"]))
                boot["direct"] = direct.fileno()
                fds.append(direct.fileno())
            self.workers.append(self._child("worker", index, boot, fds, black_box))
        fds = [sock.fileno() for sock in listeners.clients]
        monitors = [sock.fileno() for sock in listeners.scrapers]
        for index in range(server.fronts):
            boot = {
                **common,
                "boot": "front",
                "index": index,
                "listen": fds,
                "patient": listeners.handed,
                "monitors": monitors,
                "access": self.guard.message,
            }
            self.fronts.append(self._child("front", index, boot, [*fds, *monitors]))
        self._vitals = Vitals(self.workers, self.fronts, shards)
        self.metrics = ServerMetrics((*self.workers, *self.fronts))
        self._admin = self._open_admin()

    def _open_admin(self) -> admin.AdminServer:
        path = str(self.data_dir.path)
        sock = sockets.open_admin_socket(os.path.join(path, admin.FOLDER), admin.NAME)
        self._cleanup.callback(admin.remove, path)
        self._cleanup.enter_context(sock)
        own = {"metrics": self.metrics.exposition, "top": self.metrics.top}
        tasks = {"reload": self.rollout.on_request, "backup.begin": Backups(self).begin}
        return admin.AdminServer(sock, self.workers, self.data_dir.shards, own, tasks)

    def _child(self, role: str, index: int, boot: Message, fds: list[int], black_box: BlackBox | None = None) -> Child:
        server = self.settings.server
        return Child(
            f"{role}-{index}",
            self._argv[role],
            boot,
            fds,
            self,
            stuck_after=server.stuck_after,
            delay_max=server.restart_delay_max,
            black_box=black_box,
            environment=guard.environment_without_secrets() if role == "worker" else None,
        )

    # -- from the children

    def child_ready(self, child: Child, message: Message) -> None:
        self.program = message.get("program") or self.program
        log.log(
            logging.DEBUG if self.state is State.STARTING else logging.INFO,
            "%s is ready",
            child.name,
            extra={"pid": child.pid},
        )
        self._ready.add(child)
        self._news.set()
        if self.state is State.STARTING and len(self._ready) == len(self.workers) + len(self.fronts):
            self._step(Event.ALL_READY)
            announce(self.settings, self.program, self.listeners.urls, str(self.data_dir.path), len(self.workers))
            for front in self.fronts:  # one that comes later serves what there is
                front.boot = front.boot | {"patient": False}
            self.notifier.ready(self.status)

    def child_failed(self, child: Child, failure: Failure) -> Next:
        self._ready.discard(child)
        self._news.set()
        if self._stopped.is_set():
            return Next.NOTHING
        if self.state is State.STARTING:
            self.exit = failure.exit or FAILED
            report(self.settings, failure.message)
            self._stop(FAILED_START_DRAIN_SECONDS)
            return Next.NOTHING
        if self.exit != OK:  # a first start that failed is being cleared up
            return Next.NOTHING
        why = failure.message.removesuffix(".")
        if self._companion is not None and failure.exit is not None and child in self.workers:
            log.error("%s; it waits for a change of the program's files", why, extra={"child": child.name})
            return Next.HOLD
        log.error("%s; it is started again", why, extra={"child": child.name})
        return Next.AGAIN

    def child_crowded(self, child: Child) -> None:
        self.rollout.crowded()

    def child_ended(self, child: Child) -> None:
        self._gone.add(child)
        self._news.set()
        self._leave()

    def child_asks(self, child: Child, message: Message) -> None:
        task = asyncio.get_running_loop().create_task(self._grant(child, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _grant(self, child: Child, message: Message) -> None:
        """Fronts are asked for the metrics, and the supervisor has them."""
        try:
            granted = await self.metrics.exposition(message["wish"])
        except Exception:  # nobody's call depends on it
            log.exception("the metrics can't be written")
            granted = None
        child.tell({"granted": granted, "id": message["id"]})

    # -- the end

    def _on_signal(self, number: signal.Signals) -> None:
        if self.state in (State.STARTING, State.SERVING):
            limit = self.settings.server.drain_limit
            log.info("%s: finishing what runs, for at most %g s; once more ends it now", number.name, limit)
            self._stop(limit)
        else:
            self._kill(f"{number.name} again: ending now")

    def _on_hangup(self, terminal: bool) -> None:
        if terminal and not sockets.has_terminal():  # it was closed: nobody is there who could end us
            self._on_signal(signal.SIGHUP)
        elif self.state is State.SERVING:
            self.reload_access()
            self.rollout.on_signal()

    def _stop(self, limit: float) -> None:
        if self.state not in (State.STARTING, State.SERVING):
            return
        self._step(Event.STOP)
        self.notifier.stopping(limit)
        self.listeners.close_clients()
        loop = asyncio.get_running_loop()
        self._drain_until = loop.time() + limit
        self._deadline = loop.call_later(limit, self._kill, f"not finished within {limit:g} s: ending now")
        for child in self.fronts:
            child.drain(limit * FRONTS_SHARE)
        self._leave()

    def _leave(self) -> None:
        """Go on with the end, as far as the children that have left allow."""
        if self.state is State.DRAINING_FRONTS and self._gone.issuperset(self.fronts):
            self._step(Event.FRONTS_GONE)
            limit = max(self._drain_until - asyncio.get_running_loop().time(), 0.1)
            for child in self.workers:
                child.drain(limit)
        if self.state is State.DRAINING_WORKERS and self._gone.issuperset(self.workers):
            self._step(Event.WORKERS_GONE)
            if self._deadline is not None:
                self._deadline.cancel()
            log.info("stopped")
            self._stopped.set()

    def _kill(self, why: str) -> None:
        log.warning("%s", why)
        self.exit = self.exit or FAILED
        for child in (*self.fronts, *self.workers):
            child.kill()
        self._stopped.set()

    async def _bury(self) -> None:
        """Wait for what was killed, so that no lock is held any more when this process ends."""
        children = (*self.workers, *self.fronts)
        for child in children:
            child.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BURY_SECONDS):
                while any(child.pid for child in children):
                    self._news.clear()
                    await self._news.wait()

    def _on_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(context.get("protocol"), ControlChannel) and not isinstance(error, InvariantViolated):
            # Its line has been closed, and a child without a line ends: it is replaced as any that dies.
            log.error("a child said what can't be understood: %s", error)
            return
        log.critical("a bug in the supervisor: %s", context.get("message"), exc_info=error)
        self.exit = FAILED
        self._kill("ending, since nothing is certain any more")

    # -- beside it

    def reload_access(self) -> None:
        """Read the token file and the certificates again: fronts apply what has changed at once."""
        self._reload_tokens()
        if self.settings.server.tls_cert:
            for child in self.fronts:
                child.inform({"tls": msgspec.to_builtins(self.settings.server)})

    def _reload_tokens(self) -> None:
        if self.guard.reload():
            for child in self.fronts:
                child.inform({"access": self.guard.message})

    async def recycle_workers(self, limit: float) -> None:
        """Replace the workers one after the other; the next one goes on only when its predecessor is ready again.

        A program that does not load leaves its worker down and the others as they are, until this is called again.
        """
        for child in self.workers:
            if self.state is not State.SERVING:
                return
            self._ready.discard(child)
            await child.recycle(limit)
            while child not in self._ready:
                if self.state is not State.SERVING or child.held:
                    return
                self._news.clear()
                await self._news.wait()

    @property
    def serving(self) -> bool:
        return self.state is State.SERVING

    def take(self, settings: Settings) -> None:
        """Go on with other settings, of which those that need a restart are the same."""
        self.settings = settings
        logs.configure(settings.log.level, settings.log.format, process="supervisor")
        sockets.raise_descriptor_limit(settings.http.connections)
        for child in (*self.workers, *self.fronts):
            child.limits(stuck_after=settings.server.stuck_after, delay_max=settings.server.restart_delay_max)
            if child in self.fronts and child.pid is not None:
                with contextlib.suppress(OSError):
                    resource.prlimit(child.pid, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))

    async def _tick(self) -> None:
        while True:
            interval = min(PING_SECONDS, self.settings.server.stuck_after / 4, (self.notifier.watchdog or 3600.0) / 4)
            await asyncio.sleep(interval)
            for child in (*self.workers, *self.fronts):
                child.tick(interval)
            if self.guard.changed():
                self._reload_tokens()
            if self.notifier:
                self._tell_how_it_is()

    def _tell_how_it_is(self) -> None:
        if self._vitals.all_answer:
            self.notifier.feed()
        if self.state is State.STARTING:
            self.notifier.status(self._vitals.starting())
        elif self.state is State.SERVING and self._vitals.due():
            self.notifier.status(self.status)

    @property
    def status(self) -> str:
        """How it is, in a line."""
        app = self.settings.app
        line = self._vitals.line(str(self.program.get("name") or app.name or app.main))
        return f"{line}. {self.rollout.trouble}" if self.rollout.trouble else line

    async def _run_companion(self, companion: Callable[[Supervisor], Awaitable[None]]) -> None:
        try:
            await companion(self)
        except Exception:
            log.exception("the watch for changed files has ended")

    def _step(self, event: Event) -> None:
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise InvariantViolated(f"the supervisor: {event.name} can't happen when {self.state.name}") from None


def run(settings: Settings, **options: Any) -> int:
    """Run a server in this process to its end; returns the exit code. For ``options`` see ``Supervisor``."""

    async def main() -> int:
        return await Supervisor(settings, **options).run()

    return asyncio.run(main())
