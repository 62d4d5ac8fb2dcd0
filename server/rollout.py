"""A reload: new code and configuration, worker by worker, while the server serves.

1. Nothing is touched before a process of the new program has loaded it, and has told what is in it: code that does not
   import, options that need a restart, another version of actord and a program that lacks a type with data are refused
   in one sentence, and everything goes on as it was.
2. Each worker is replaced by a process that has loaded the program and waits, so that its shards are without an owner
   for the moment that it takes to close and open them. The fronts hold the calls for these shards meanwhile; sockets
   stay open. A turn has ``server.drain_limit`` to finish, then it is cut off as at the end of the server.
3. All or nothing: the processes of before wait, with their program in memory, until the last worker has been replaced.
   When a new one fails before that, every worker goes back to them, and the reload has failed.
4. The fronts take their options without a new process, last of all: then the new program stands.
5. One reload at a time. A signal during one asks for another one after it.

Crash story: the server's own end ends all of it. A process of before that died while it waited can't come back; its
worker starts again from the files, as after any crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
from actord.errors import ActordError
from actord.server import children
from actord.server.children import Child, SwapFailed
from actord.server.exits import CONFIG, FAILED, TEMPORARY, StartError
from actord.server.guard import without_secrets
from actord.server.process import Process
from actord.server.tls import context_of
from actord.settings import Settings
from actord.shards.control import Message

if TYPE_CHECKING:
    from actord.server.supervisor import Supervisor

log = logging.getLogger("actord.reload")

# What children and listening sockets are made of. configs/default.toml says it of each, and a test compares.
NEED_RESTART = frozenset(
    {
        "server.host",
        "server.port",
        "server.uds",
        "server.fronts",
        "server.direct",
        "server.workers",
        "server.pin",
        "server.data_dir",
        "server.token_file",
        "server.tls_cert",
        "server.tls_client_ca",
        "server.tls_client",
        "server.anonymous",
        "storage.shards",
        "metrics.listen",
    }
)
ANSWER_SECONDS = 10.0
BURY_SECONDS = 2.0

Say = Callable[[str], None]


class ReloadError(ActordError):
    """The reload was refused, or it failed and was undone; ``exit`` is for the command."""

    title = "Reload failed"

    def __init__(self, detail: str, exit: int = CONFIG) -> None:
        super().__init__(detail)
        self.exit = exit


class Rollout:
    """The reloads of one server. ``resolve`` reads the settings anew, as the command line did at the start."""

    def __init__(self, supervisor: Supervisor, resolve: Callable[[], Settings]) -> None:
        self._supervisor = supervisor
        self._resolve = resolve
        self._task: asyncio.Task[dict[str, Any]] | None = None
        self._again = False
        self.trouble = ""  # why the last reload was none
        self._waiting: set[Process] = set()  # those that are no child's: standbys, and processes of before
        self._held = False

    @property
    def under_way(self) -> bool:
        return self._task is not None

    # -- who asks

    def on_signal(self) -> None:
        """SIGHUP."""
        if self._task is not None:
            self._again = True
            return
        self._begin(lambda _: None)

    async def on_request(self, _: Message, say: Say) -> dict[str, Any]:
        """``actord reload``."""
        if self._task is not None:
            raise ReloadError("A reload is under way already.", TEMPORARY)
        return await asyncio.shield(self._begin(say))  # whoever asked may leave

    def _begin(self, say: Say) -> asyncio.Task[dict[str, Any]]:
        self._task = task = asyncio.get_running_loop().create_task(self._run(say))
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._task = None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            done = task.result()
            log.info("reloaded", extra=done | {"changed": ",".join(done["changed"])})
        elif isinstance(error, ReloadError):
            log.error("%s", error.detail)
        if self._again:
            self._again = False
            self.on_signal()

    def crowded(self) -> None:
        """The worker that leaves is kept by calls of the others: no call at all begins until it has left."""
        if self._task is not None:
            self._hold(True)

    async def close(self) -> None:
        """The server has ended."""
        self._again = False
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._task

    # -- the reload

    async def _run(self, say: Say) -> dict[str, Any]:
        began = monotonic()
        self._supervisor.notifier.reloading()

        def tell(words: str) -> None:
            log.info("%s", words)
            say(words)

        try:
            tell("reload: the program and the configuration are loaded")
            settings, changed, candidate = await self._prepare()
            tell("reload: they are good; the workers are replaced, one after the other")
            await self._replace(settings, candidate, tell)
            await self._settle(settings)
            self.trouble = ""
        except ReloadError as error:
            self.trouble = error.detail
            raise
        except Exception as error:
            log.exception("a bug in the reload")
            self.trouble = "The reload failed; the log says why."
            raise ReloadError(f"The reload failed: {type(error).__name__}: {error}", FAILED) from error
        finally:
            self._hold(False)
            await self._bury()
            if self._serving():
                self._supervisor.notifier.ready(self._supervisor.status)
        seconds = round(monotonic() - began, 3)
        return {"workers": len(self._supervisor.workers), "seconds": seconds, "changed": changed}

    async def _bury(self) -> None:
        """End those that wait, and see them go: their memory is free then."""
        waiting, self._waiting = self._waiting, set()
        for process in waiting:
            process.send({"drain": BURY_SECONDS})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BURY_SECONDS):
                for process in waiting:
                    await process.gone.wait()
        for process in waiting:
            process.kill()

    async def _prepare(self) -> tuple[Settings, list[str], Process]:
        """Promise 1. The first worker's standby is the candidate that loads the program."""
        supervisor = self._supervisor
        self._check_ready()
        try:
            settings = self._resolve()
            context_of(settings.server)  # certificates that can't be used
        except StartError as error:
            raise refused(str(error)) from None
        changed = differences(supervisor.settings, settings)
        fixed = [name for name in changed if name in NEED_RESTART]
        if fixed:
            raise refused(f"{' and '.join(fixed)} changed, which needs a restart.")
        try:
            candidate, described = await self._load(supervisor.workers[0], settings)
            types = [type_["type"] for type_ in described["types"]]
            answers = await asyncio.gather(
                *(_ask(child, do="reload.lost", types=types) for child in supervisor.workers)
            )
        except ReloadError as error:
            raise refused(error.detail, error.exit) from None
        lost = sorted({name for answer in answers for name in answer["lost"]})
        if lost:
            raise refused(
                f"The new program has no type {' and no type '.join(lost)}, of which there is data. Bring it back; or, "
                "if it is meant to be gone, restart the server with the new program."
            )
        newer = sorted(
            {
                f"{type_['type']} has version {type_['version']}, and there are data of version {version}"
                for type_ in described["types"]
                for answer in answers
                if (version := answer["versions"].get(type_["type"], 1)) > type_["version"]
            }
        )
        if newer:
            raise refused(f"The new program is older than the data: {'; '.join(newer)}.")
        return settings, changed, candidate

    def _check_ready(self) -> None:
        supervisor = self._supervisor
        for child in supervisor.workers:
            if child.state is not children.State.READY:
                raise refused(f"{child.name} is not ready; try again", TEMPORARY)

    async def _load(self, child: Child, settings: Settings) -> tuple[Process, Message]:
        """A process that has loaded the program, and what is in it."""
        loaded: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()

        def on_message(message: Message) -> None:
            if "standby" in message and not loaded.done():
                loaded.set_result(message["program"])

        def on_exit(_: int) -> None:
            if not loaded.done():
                loaded.set_result(None)

        process = child.standby(self._boot(child, settings))
        process.on_message = on_message
        process.on_exit = on_exit
        self._waiting.add(process)
        limit = settings.server.stuck_after
        try:
            async with asyncio.timeout(limit):
                described = await loaded
        except TimeoutError:
            raise ReloadError(f"The new program did not load within server.stuck_after = {limit:g} s.") from None
        if described is None:
            raise ReloadError(process.failure("the process that loads the new program").message)
        return process, described

    def _boot(self, child: Child, settings: Settings) -> Message:
        return child.boot | {"settings": without_secrets(msgspec.to_builtins(settings))}

    async def _replace(self, settings: Settings, candidate: Process, tell: Say) -> None:
        """Promises 2 and 3."""
        workers = self._supervisor.workers
        before: list[tuple[Child, Process | None, Message, int]] = []
        standby: Process | None = candidate
        deaths = {child: child.deaths for child in workers}
        try:
            for number, child in enumerate(workers, 1):
                if standby is None:
                    standby, _ = await self._load(child, settings)
                boot, standby_now, standby = child.boot, standby, None
                began = monotonic()
                parked = await self._swap(child, standby_now, self._boot(child, settings), settings)
                before.append((child, parked, boot, standby_now.pid))
                await _ask(child, do="reload.lost", types=[])  # it answers
                for other, _, _, pid in before:
                    if other.pid != pid or other.state is not children.State.READY:
                        raise ReloadError(f"the new {other.name} died")
                tell(f"reload: {child.name} is replaced ({number} of {len(workers)}, {monotonic() - began:.2f} s)")
        except (ReloadError, SwapFailed) as error:
            why = error.detail if isinstance(error, ReloadError) else str(error)
            if not self._serving():
                raise ReloadError("The server stops.", TEMPORARY) from None
            restored = not isinstance(error, SwapFailed) or error.restored
            for child, parked, boot, _ in reversed(before):
                restored = await self._restore(child, parked, boot, settings) and restored
                deaths.pop(child)
            restored = restored and all(child.deaths == count for child, count in deaths.items())
            end = (
                "Every worker serves the program of before again."
                if restored
                else "Not every worker could go back to the program of before: those start again from the files."
            )
            raise ReloadError(f"The reload failed and was undone: {_sentence(why)} {end}", FAILED) from None

    async def _swap(self, child: Child, successor: Process, boot: Message, settings: Settings) -> Process | None:
        limits = settings.server.drain_limit, settings.actors.init_timeout + settings.server.stuck_after
        if not self._serving():
            raise ReloadError("The server stops.", TEMPORARY)
        if child.state is not children.State.READY:
            raise ReloadError(f"{child.name} died meanwhile", TEMPORARY)
        self._waiting.discard(successor)
        try:
            parked = await child.swap(successor, boot, limit=limits[0], start_limit=limits[1])
        finally:
            self._hold(False)
        if parked is not None:
            self._waiting.add(parked)
        return parked

    async def _restore(self, child: Child, parked: Process | None, boot: Message, settings: Settings) -> bool:
        """Back to the process of before."""
        if parked is None or parked.ended:
            child.boot = boot
            return False
        try:
            if child.state is not children.State.READY:
                self._waiting.discard(parked)
                child.restore(parked, boot)
                return True
            await self._swap(child, parked, boot, settings)
        except (ReloadError, SwapFailed):
            return False
        return True

    async def _settle(self, settings: Settings) -> None:
        """Promise 4."""
        supervisor = self._supervisor
        supervisor.take(settings)
        plain = msgspec.to_builtins(settings)
        for front in supervisor.fronts:
            front.boot = front.boot | {"settings": plain}
            with contextlib.suppress(ReloadError):  # one that is away starts with them
                await _ask(front, do="settings", settings=plain)

    def _hold(self, held: bool) -> None:
        if held != self._held:
            self._held = held
            for child in (*self._supervisor.fronts, *self._supervisor.workers):  # those for their direct clients
                child.say({"hold": held})

    def _serving(self) -> bool:
        return self._supervisor.serving


async def _ask(child: Child, **request: Any) -> Any:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await child.ask(request)
    except TimeoutError:
        raise ReloadError(f"{child.name} does not answer.", TEMPORARY) from None
    if "error" in answer:
        raise ReloadError(answer["error"]["detail"], TEMPORARY)
    return answer["value"]


def refused(why: str, exit: int = CONFIG) -> ReloadError:
    return ReloadError(f"The reload was refused: {_sentence(why)} Nothing was changed.", exit)


def _sentence(words: str) -> str:
    return words if words.endswith((".", "?", "!")) else f"{words}."


def differences(old: Settings, new: Settings) -> list[str]:
    """The options that are not the same, as in the file: ``section.key``."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    return sorted(
        f"{section}.{key}"
        for section in before
        for key in before[section]
        if before[section][key] != after[section][key] and section != "app"
    )
