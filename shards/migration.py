"""``actord migrate``: run the upgrades of all actors of a stopped data directory, by their own turns.

The parts of a worker are put together as in a server, with all shards in one process and nobody to call it: alarms
don't fire, and messages that an upgrade sends are stored and stay. What fails is reported, and its data are as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import msgspec
import uvloop
from actord.errors import ActordError, DataDirError
from actord.settings import Settings
from actord.shards.admin import ReplyOfTurn
from actord.shards.call import NO_DEADLINE, Call
from actord.shards.registry import ActorType, Method, Program
from actord.shards.slots import slot_range
from actord.shards.worker import Worker
from actord.storage import datadir
from actord.storage.sqlite import SqliteStore

AT_ONCE = 256  # actors, of one shard
FAILURES_TOLD = 20

Progress = Callable[[str, float], None]  # what is being done, and the part of all that is done, 0 to 1


class Failure(msgspec.Struct, frozen=True):
    type: str
    name: str
    why: str


class Outcome(msgspec.Struct):
    """What was done. ``upgraded`` and ``failed``: actors by type; ``failures``: the first ones, with their reasons."""

    upgraded: dict[str, int] = {}
    failed: dict[str, int] = {}
    failures: list[Failure] = []
    seconds: float = 0.0


def migrate(settings: Settings, program: Program, *, check: bool, progress: Progress) -> Outcome:
    """Upgrade every actor whose data are older than its class, or (``check``) those of a copy that is removed then.

    Raises ``DataDirLocked`` while a server uses the directory, ``DataDirError`` when it can't be used, and
    ``StoreCorrupt`` for a shard that is damaged.
    """
    real = os.path.realpath(settings.server.data_dir)
    manifest = datadir.read_manifest(real)
    began = monotonic()
    with _held(real), _copied(real, manifest, progress) if check else contextlib.nullcontext(real) as path:
        outcome = uvloop.run(_Migration(settings, program, path, manifest, progress).run())
    outcome.seconds = monotonic() - began
    return outcome


@contextlib.contextmanager
def _held(real: str) -> Iterator[None]:
    lock = datadir.lock_of(real)
    try:
        if os.path.lexists(os.path.join(real, datadir.RESHARD_NAME)):
            raise DataDirError(f"{real} is on its way to another number of shards: run `actord reshard` first.")
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _copied(real: str, manifest: datadir.Manifest, progress: Progress) -> Iterator[str]:
    """A copy of the directory beside it, for as long as the ``with`` block lasts."""
    files = [
        path + end
        for number in range(manifest.shards)
        for path in [datadir.shard_paths(real, number)[0]]
        for end in ("", "-wal", ".clean")
        if os.path.exists(path + end)
    ]
    needed = sum(os.path.getsize(file) for file in files)
    state = os.statvfs(os.path.dirname(real))
    room = state.f_bavail * state.f_frsize
    if room < needed:
        raise DataDirError(
            f"{os.path.dirname(real)} has {room >> 20:,} MiB of room, and the copy needs {needed >> 20:,} MiB."
        )
    with tempfile.TemporaryDirectory(prefix=".actord-migrate-", dir=os.path.dirname(real)) as folder:
        os.makedirs(os.path.join(folder, "shards"))
        for number, file in enumerate(files):
            progress("copying the data", number / len(files))
            shutil.copyfile(file, os.path.join(folder, "shards", os.path.basename(file)))
        yield folder


class _Migration:
    def __init__(
        self, settings: Settings, program: Program, path: str, manifest: datadir.Manifest, progress: Progress
    ) -> None:
        self._settings = settings
        self._program = program
        self._path = path
        self._manifest = manifest
        self._progress = progress
        self._outcome = Outcome()

    async def run(self) -> Outcome:
        count = self._manifest.shards
        stores = {}
        try:
            for number in range(count):
                stores[number] = self._open(number)
            everything = [{"path": "", "shards": list(range(count))}]
            boot = {"index": 0, "shards": count, "links": everything, "data_dir": self._path}
            self._worker = Worker(boot, self._settings, self._program, stores, [])
            types = [type_ for type_ in self._program.types.values() if type_.version > 1]
            for place, type_ in enumerate(types):
                for number, store in stores.items():
                    done = (place + number / count) / len(types)
                    self._progress(f"{type_.name}, shard {number + 1} of {count}", done)
                    await self._bring_up(type_, store)
        finally:
            for store in stores.values():
                with contextlib.suppress(ActordError):
                    store.close()
        return self._outcome

    def _open(self, number: int) -> SqliteStore:
        return SqliteStore.open(
            datadir.shard_paths(self._path, number)[0],
            shard=number,
            identity=self._manifest.identity,
            slots=slot_range(number, self._manifest.shards),
            checkpoint_wal=self._settings.storage.checkpoint_wal,
            page_cache=self._settings.storage.page_cache,
        )

    async def _bring_up(self, type_: ActorType, store: SqliteStore) -> None:
        outcome = self._outcome
        after = 0
        while found := store.older_actors(type_.name, type_.version, after=after, limit=AT_ONCE):
            after = found[-1][0]
            names = [name for _, name in found]
            for name, why in zip(names, await asyncio.gather(*map(self._one(type_), names)), strict=True):
                if why is None:
                    outcome.upgraded[type_.name] = outcome.upgraded.get(type_.name, 0) + 1
                    continue
                outcome.failed[type_.name] = outcome.failed.get(type_.name, 0) + 1
                if len(outcome.failures) < FAILURES_TOLD:
                    outcome.failures.append(Failure(type_.name, name, why))
            self._worker.evictor.let_go()

    def _one(self, type_: ActorType) -> Callable[[str], Any]:
        dispatcher, runner = self._worker.dispatcher, self._worker.runner
        nothing = Method(type_.name, "upgrade", lambda _: None, type_.init_timeout)

        async def bring_up(name: str) -> str | None:
            """A turn that does nothing: its instance is upgraded first. Returns why that failed."""
            reply = ReplyOfTurn()
            act = dispatcher.activation(type_.name, name)
            runner.admit(Call(reply, 0, bytearray(1), act, nothing, (), {}, 0, NO_DEADLINE, monotonic()))
            call = await reply.future
            return None if call.status < 400 else str(msgspec.json.decode(call.body)["detail"])

        return bring_up
