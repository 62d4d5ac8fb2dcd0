"""The supervisor's part in a backup: bring all workers to one moment, and say where their shards stood in it.

1. All workers shorten their logs, then all hold their commits, then all go on: the time in which no commit is written
   is that of two messages over a local line, and of a commit that was in flight. Turns run meanwhile.
2. A worker that is away, a reload that is under way or a hold that did not last until all held ends the attempt, and
   leaves nothing behind.

The files are copied by the command, in its own process: the shards are pinned until it says ``backup.end``, or has not
said ``backup.keep`` for ten minutes. See ``shards/backup_admin.py``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actord.errors import ActordError
from actord.server.exits import FAILED, TEMPORARY, UNAVAILABLE

if TYPE_CHECKING:
    from actord.server.supervisor import Supervisor

log = logging.getLogger("actord.supervisor")

STEP_SECONDS = 30.0


class BackupRefused(ActordError):
    """No backup now; ``exit`` is for the command."""

    title = "Backup refused"

    def __init__(self, detail: str, exit: int = TEMPORARY) -> None:
        super().__init__(detail)
        self.exit = exit


class Backups:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._lock = asyncio.Lock()

    async def begin(self, request: dict[str, Any], _: Callable[[str], None]) -> dict[str, Any]:
        """``backup.begin``: ``{"id", "identity", "moment", "held", "shards": [...]}``.

        ``moment``: milliseconds since the epoch. ``held``: seconds for which commits waited.
        """
        supervisor = self._supervisor
        if not supervisor.serving or supervisor.rollout.under_way:
            raise BackupRefused("The server starts, stops or is being reloaded: try again when that has ended.")
        async with self._lock:
            id_ = secrets.token_hex(8)
            try:
                await self._all("backup.prepare", id_)
                began = time.monotonic()
                held = await self._all("backup.hold", id_)
                moment = time.time_ns() // 1_000_000
                if not all(await self._all("backup.go", id_)):
                    raise BackupRefused("The workers did not come to a common moment in time. Try again.")
                seconds = time.monotonic() - began
                shards = sorted((shard for one in held for shard in one["shards"]), key=lambda shard: shard["shard"])
                if [shard["shard"] for shard in shards] != list(range(supervisor.data_dir.shards)):
                    raise BackupRefused("Not every shard is served: see the server's log.", FAILED)
            except BaseException:
                await self._end(id_)
                raise
            log.info("a backup begins", extra={"backup": id_, "held_ms": round(seconds * 1000, 1)})
            return {
                "id": id_,
                "identity": supervisor.data_dir.identity,
                "moment": moment,
                "held": seconds,
                "shards": shards,
            }

    async def _all(self, do: str, id_: str) -> list[Any]:
        try:
            async with asyncio.timeout(STEP_SECONDS):
                answers = await asyncio.gather(
                    *(child.ask({"do": do, "id": id_}) for child in self._supervisor.workers)
                )
        except TimeoutError:
            raise BackupRefused("A worker does not answer. Try again.", UNAVAILABLE) from None
        for answer in answers:
            if "error" in answer:
                raise BackupRefused(answer["error"]["detail"], FAILED if answer["error"]["status"] < 500 else TEMPORARY)
        return [answer["value"] for answer in answers]

    async def _end(self, id_: str) -> None:
        """Let every worker go, whatever the others say."""
        asked = (child.ask({"do": "backup.end", "id": id_}) for child in self._supervisor.workers)
        try:
            async with asyncio.timeout(STEP_SECONDS):
                await asyncio.gather(*asked, return_exceptions=True)
        except TimeoutError:
            log.warning("a worker could not be told that there is no backup; it finds out by itself")
