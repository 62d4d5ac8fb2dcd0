"""A worker's part in a backup: hold all commits for a moment, say where its shards stand, keep that from changing.

The supervisor asks for the steps (``server/backups.py``), the command copies the files meanwhile.

1. ``hold`` answers when no shard of this worker has a commit in flight; none writes its next one before ``go``. When
   all workers have answered, no shard moves: the commit numbers that they told are of one moment, and everything that
   was acknowledged before it is in them. A message that has arrived is in its sender's commits.
2. A hold that is not ended ends by itself after ``HOLD_SECONDS``, and the backup with it: ``go`` says so.
3. From then on the shards are pinned (``storage/pins.py``) until ``end``. They serve as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from actord.errors import ActorUnavailable, BadRequest, InvariantViolated

if TYPE_CHECKING:
    from actord.shards.admin import Handler
    from actord.shards.control import Message
    from actord.shards.shard import Shard

HOLD_SECONDS = 5.0
PIN_SECONDS = 600.0  # the command may wait for long until a slow disk has synced a copy
# A log below this is copied as it is: a checkpoint before the backup would cost more than it saves.
CHECKPOINT_ABOVE_BYTES = 1024 * 1024


class Pinnable(Protocol):
    """A store whose files can be copied; see ``storage/pins.py``."""

    path: str

    def pin(self, id_: str, *, seconds: float, log_limit: int) -> tuple[int, int]: ...
    def keep(self, id_: str, *, seconds: float) -> bool: ...
    def unpin(self, id_: str) -> bool: ...
    def want_checkpoint(self, above: int) -> None: ...


class BackupAdmin:
    """``stores`` by the numbers of the shards; ``damaged``: shards that are not served; ``log_limit`` in bytes."""

    def __init__(
        self, shards: Iterable[Shard], stores: Mapping[int, Pinnable], damaged: Iterable[int], log_limit: int
    ) -> None:
        self._shards = list(shards)
        self._stores = stores
        self._damaged = list(damaged)
        self._log_limit = log_limit
        self._holding = ""  # the id of the backup that holds the commits
        self._timer: asyncio.TimerHandle | None = None

    def handlers(self) -> dict[str, Handler]:
        return {
            "backup.prepare": self.prepare,
            "backup.hold": self.hold,
            "backup.go": self.go,
            "backup.keep": self.keep,
            "backup.end": self.end,
        }

    async def prepare(self, request: Message) -> Any:
        """Make the logs short, one shard after the other."""
        if self._damaged:
            numbers = ", ".join(map(str, self._damaged))
            raise BadRequest(
                f"Shard {numbers} is damaged and not served, so a backup would lack its actors. See `actord doctor`."
            )
        id_ = _id(request)
        self._begin(id_)
        try:
            for shard in self._shards:
                await self._paused([shard])
                self._stores[shard.number].want_checkpoint(CHECKPOINT_ABOVE_BYTES)
                try:
                    shard.store.maintain()
                except Exception as error:
                    shard.committer.break_off(error)  # what the committer does when a checkpoint of its own fails
                    raise ActorUnavailable(f"Shard {shard.number} failed: {error}", retry_after=1) from error
                shard.committer.resume()
        finally:
            self._release(id_)
        return True

    async def hold(self, request: Message) -> Any:
        """``{"shards": [{"shard", "commit_seq", "frames"}]}``; ``go`` has to follow within ``HOLD_SECONDS``."""
        id_ = _id(request)
        self._begin(id_)
        try:
            await self._paused(self._shards)
            found = []
            for shard in self._shards:
                seq, frames = self._stores[shard.number].pin(id_, seconds=PIN_SECONDS, log_limit=self._log_limit)
                if seq != shard.committer.durable_seq:
                    raise InvariantViolated(f"shard {shard.number} stands at {seq}: not durable")
                found.append({"shard": shard.number, "commit_seq": seq, "frames": frames})
        except BaseException:
            self._release(id_)
            self._unpin(id_)
            raise
        return {"shards": found}

    async def go(self, request: Message) -> Any:
        """Let commits through. False when they had been let through before: then there was no common moment."""
        return self._release(_id(request))

    async def keep(self, request: Message) -> Any:
        """Whether all pins hold; they do so for another ``PIN_SECONDS``."""
        id_ = _id(request)
        held = [store.keep(id_, seconds=PIN_SECONDS) for store in self._stores.values()]
        return all(held)

    async def end(self, request: Message) -> Any:
        """Whether all pins have held until now."""
        id_ = _id(request)
        self._release(id_)
        return self._unpin(id_)

    def _begin(self, id_: str) -> None:
        if self._holding:
            raise ActorUnavailable("Another backup begins at this moment; try again.", retry_after=1)
        self._holding = id_
        self._timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self._expire)

    def _release(self, id_: str) -> bool:
        """Let commits through. False when it is not this backup that holds them."""
        if self._holding != id_:
            return False
        self._holding = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for shard in self._shards:
            shard.committer.resume()
        return True

    def _expire(self) -> None:
        id_ = self._holding
        self._release(id_)
        self._unpin(id_)

    def _unpin(self, id_: str) -> bool:
        held = [store.unpin(id_) for store in self._stores.values()]  # each of them, whatever the others say
        return all(held)

    async def _paused(self, shards: list[Shard]) -> None:
        """Until nothing of these shards is in flight; they stay so until they are resumed."""
        loop = asyncio.get_running_loop()
        waits = []
        for shard in shards:
            reached: asyncio.Future[None] = loop.create_future()
            shard.committer.pause(lambda reached=reached: None if reached.done() else reached.set_result(None))  # type: ignore[misc]
            waits.append(reached)
        try:
            async with asyncio.timeout(HOLD_SECONDS):
                await asyncio.gather(*waits)
        except TimeoutError:
            raise ActorUnavailable(
                f"A commit took longer than {HOLD_SECONDS:g} s: is the disk slow? Try again.", retry_after=1
            ) from None


def _id(request: Message) -> str:
    id_ = request.get("id")
    if not isinstance(id_, str) or not 8 <= len(id_) <= 64:
        raise BadRequest("id is a text of 8 to 64 characters.")
    return id_
