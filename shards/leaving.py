"""How a worker stops: when the server does, or to let its successor take the shards.

1. The fronts, and clients of this machine, are told first: what they ask for from then on waits for the successor.
   Calls of other workers are still let in, on links that are made only now as well, because a turn that runs here may
   wait for one of them to come back.
2. The worker leaves at a moment at which no turn runs or waits here. What it has not taken by then has not begun: its
   caller sends it to the successor. So no call is made twice and none is lost, whichever worker it comes from.
3. Before a successor takes over, answers that are streams may end, within half of the limit, while calls go on. Then
   those that are left end: those that move, within the limit; those in which nothing moves for a moment, and
   server-sent events, at once. Actors' events go on at the successor. An application's sockets are closed with 1012,
   its lifespan is shut down.
4. Everything that was promised is committed and written to its caller before the links close; callers say that they
   have stopped writing, so that no reply is lost with a connection that broke. Then the stores are closed, cleanly.
5. At the limit the worker leaves whatever runs: those turns end as in a crash, with the truth for their callers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from actord.errors import StorageError
from actord.shards.asgi import AsgiDoor
from actord.shards.mounts import MountedDoors

if TYPE_CHECKING:
    from actord.shards.dispatch import Dispatcher
    from actord.shards.shard import Shard
    from actord.shards.turns import TurnRunner

log = logging.getLogger("actord.worker")

# A moment without a turn may be short: it is looked for closely at first.
_CLOSELY_SECONDS = 0.1
_POLL_SECONDS = 0.001
_SLOW_POLL_SECONDS = 0.01
# For so long the fronts of a busy worker alone are asked to wait; then all roots of calls are.
CROWDED_SECONDS = 0.5
_SHUTDOWN_SECONDS = 1.0  # what an application has at least for its shutdown; at most ten times as much
_LINKS_SECONDS = 2.0  # for callers to stop, and for what is written to be read


class Departure:
    """One worker's, once. ``crowded`` is called when other workers' calls keep it from leaving, ``close`` when no more
    links may come."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        runner: TurnRunner,
        shards: dict[int, Shard],
        crowded: Callable[[], None] = lambda: None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._dispatcher = dispatcher
        self._runner = runner
        self._shards = shards
        self._crowded = crowded
        self._close = close

    async def wait_for_streams(self, limit: float) -> None:
        """Let the streams of this moment end, for so many seconds at most."""
        open_now = [
            stream
            for connection in self._dispatcher.connections
            for stream in connection.streams.values()
            if not stream.endless
        ]
        until = monotonic() + limit
        for stream in open_now:
            while not stream.over:
                if monotonic() >= until:
                    return
                await asyncio.sleep(_SLOW_POLL_SECONDS)

    async def run(self, limit: float) -> bool:
        """Until the links are closed; the stores may be closed then. False: turns were left in the middle."""
        dispatcher, door = self._dispatcher, self._dispatcher.front_door
        began = monotonic()
        dispatcher.leaving = True
        for connection in dispatcher.connections:
            if not connection.from_worker:
                connection.say_draining()
        if isinstance(door, AsgiDoor | MountedDoors):
            door.drain()
        quiet = await self._quiet(began, limit)
        dispatcher.left = True
        self._close()
        for connection in dispatcher.connections:
            connection.stop()
        if isinstance(door, AsgiDoor | MountedDoors):
            left = began + limit - monotonic()
            await door.shutdown(max(_SHUTDOWN_SECONDS, min(left, 10 * _SHUTDOWN_SECONDS)))
        self._runner.stop()
        await self.settle()
        await self._close_links()
        return quiet

    async def settle(self) -> None:
        """Until everything that was promised is durable and nothing is being written."""
        while not all(shard.committer.idle for shard in self._shards.values()):
            for shard in self._shards.values():
                shard.committer.kick()
            await asyncio.sleep(_POLL_SECONDS)

    async def _quiet(self, began: float, limit: float) -> bool:
        """Wait for the moment to leave; False when the limit came first."""
        told = False
        while self._busy():
            now = monotonic()
            if now >= began + limit:
                log.warning("not finished within %g s: what still runs is cut off", limit)
                return False
            for connection in self._dispatcher.connections:
                for stream in list(connection.streams.values()):
                    stream.end_if_idle(now, began)
            if now - began < _CLOSELY_SECONDS:
                await asyncio.sleep(0)
                continue
            if not told and now - began >= CROWDED_SECONDS:
                told = True
                self._crowded()
            await asyncio.sleep(_POLL_SECONDS if now - began < 2.0 else _SLOW_POLL_SECONDS)
        return True

    def _busy(self) -> bool:
        runner, door = self._runner, self._dispatcher.front_door
        return (
            runner.waiting > 0
            or runner.suspended > 0
            or (door is not None and door.open > 0)
            or any(connection.streams or connection.doors for connection in self._dispatcher.connections)
        )

    async def _close_links(self) -> None:
        connections = self._dispatcher.connections
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINKS_SECONDS):
                for connection in list(connections):
                    if connection.stopped is not None:
                        await connection.stopped.wait()
        for connection in list(connections):
            connection.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINKS_SECONDS):
                for connection in list(connections):
                    await connection.closed.wait()


def close_stores(shards: dict[int, Shard]) -> bool:
    """Stop the stores cleanly; False when one could not be, and has to be recovered by whoever opens it next."""
    clean = True
    for shard in shards.values():
        try:
            shard.store.close()
        except StorageError as error:
            log.critical("shard %d failed while it was closed: %s", shard.number, error)
            clean = False
    return clean
