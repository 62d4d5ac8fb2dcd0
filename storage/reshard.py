"""Dealing the names of a stopped data directory to another number of shards, so that more workers can share them.

1. A server never sees half of it: while it is under way the directory can't be opened (``reshard.json`` says so), until
   it has been carried out to its end or cancelled.
2. Killed at any point, by a power cut too, it goes on where it was when it is started again. New databases are built
   beside the old ones, each whole or not at all; nothing of the old ones changes before all new ones are complete and
   synced. From then on there is only forward: the folders are exchanged by renaming, then the manifest is written.
3. Every row is checked as it is copied. Damage ends it with the old data as they were.
4. Actors, values, SQL databases, alarms, events with their numbers, replies to idempotency keys and messages under way
   are the same afterwards; fences go on growing. See ``storage.reshard_rows``.

Crash story: ``reshard.json`` appears before the first new file and says "copying", then "ready"; it goes last.

    shards/           the old databases until the exchange, then the new ones
    reshard/          new databases: NNNN.db.part while one is being built, NNNN.db when it is complete
    shards.old/       the old ones between the exchange and the end
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Literal

import apsw
import msgspec
from actord.errors import DataDirError, StoreBroken, StoreCorrupt
from actord.storage import datadir, recovery, redo, schema
from actord.storage.api import Message
from actord.storage.files import DIR_MODE, FileLock, fsync_path, remove_file, replace_file
from actord.storage.reshard_rows import NewShard, Source, open_old, was_received
from actord.storage.sqlite import SqliteStore

TABLES = ("actor", "kv", "page", "alarm", "event", "event_log", "reply", "outbox", "version")

Progress = Callable[[str, float], None]  # what is being done, and the part of all that is done, 0 to 1


class Journal(msgspec.Struct, frozen=True):
    """``reshard.json``: what is under way."""

    before: int  # shards
    after: int
    state: Literal["copying", "ready"]


class Done(msgspec.Struct, frozen=True):
    """What was done. ``rows``: copied now; less than all when an earlier run had copied some."""

    before: int
    after: int
    actors: int
    rows: int


def reshard(
    path: str,
    shards: int,
    *,
    slot_of: Callable[[str, str], int],
    slot_range: Callable[[int, int], range],
    progress: Progress = lambda what, part: None,
) -> Done:
    """Deal the data directory at ``path`` to ``shards`` shards, 1 to 1,024, or end what was begun.

    Raises ``DataDirLocked`` while a server uses it; ``DataDirError`` when it can't be done: no data directory, no room
    (about the size of the data is needed), another number of shards than that of a run that was interrupted;
    ``StoreCorrupt`` for damage.
    """
    if not 1 <= shards <= datadir.SHARDS_MAX:
        raise DataDirError(f"A data directory has 1 to {datadir.SHARDS_MAX} shards, not {shards}.")
    with _taken(path) as (real, manifest):
        journal = read_journal(real)
        if journal is not None and journal.after != shards:
            raise DataDirError(
                f"{path} is on its way from {journal.before} to {journal.after} shards. Go on with "
                f"`--shards {journal.after}` first, or give it up with `--cancel`."
            )
        if journal is None:
            if manifest.shards == shards:
                fsync_path(real)  # a run that could not sync its last step is ended by this one
                return Done(shards, shards, 0, 0)
            _clear(real)  # or what somebody left there would count as complete
            _write_journal(real, journal := Journal(manifest.shards, shards, "copying"))
        actors = rows = 0
        if journal.state == "copying":
            actors, rows = _Copy(real, manifest, journal, slot_of, slot_range, progress).run()
            _write_journal(real, journal := msgspec.structs.replace(journal, state="ready"))
        progress("exchanging the folders", 1.0)
        _exchange(real, manifest, journal)
        return Done(journal.before, journal.after, actors, rows)


def cancel(path: str) -> bool:
    """Give up what was interrupted while the old data were still in place. False when there is nothing to give up.

    Raises ``DataDirError`` when all new databases are complete: then it has to be ended.
    """
    with _taken(path) as (real, _):
        journal = read_journal(real)
        if journal is None:
            _clear(real)
            fsync_path(real)  # see reshard
            return False
        if journal.state == "ready":
            raise DataDirError(
                f"{path} has its {journal.after} new shards already: run `actord reshard --shards {journal.after}` to "
                "put them into their place."
            )
        _clear(real)
        remove_file(_journal_path(real))
        return True


def read_journal(real: str) -> Journal | None:
    """What is under way in the data directory. Raises ``DataDirError`` when that can't be read."""
    try:
        with open(_journal_path(real), "rb") as file:
            return msgspec.json.decode(file.read(), type=Journal)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise DataDirError(f"{_journal_path(real)} can't be read: {error}.") from None


def _write_journal(real: str, journal: Journal) -> None:
    replace_file(_journal_path(real), msgspec.json.encode(journal))


def _journal_path(real: str) -> str:
    return os.path.join(real, datadir.RESHARD_NAME)


def _staging(real: str) -> str:
    return os.path.join(real, "reshard")


def _clear(real: str) -> None:
    """Remove new databases that nothing will come of, for good, and a journal that was being written."""
    if os.path.lexists(_staging(real)):
        shutil.rmtree(_staging(real))
        fsync_path(real)
    remove_file(_journal_path(real) + ".tmp")


@contextlib.contextmanager
def _taken(path: str) -> Iterator[tuple[str, datadir.Manifest]]:
    """The directory with its lock, and its manifest."""
    real = os.path.realpath(path)
    datadir.refuse_backup(real)
    manifest = datadir.read_manifest(real)
    lock: FileLock = datadir.lock_of(real)
    try:
        yield real, manifest
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StoreCorrupt(f"{path} is damaged: {error}. See what `actord doctor` says.") from error
    except (OSError, apsw.Error, StoreBroken) as error:  # full, or failing
        what = str(error).rstrip(".")
        raise DataDirError(f"{path}: {what}. What was done so far is kept; run it again to go on.") from error
    finally:
        lock.release()


def _exchange(real: str, manifest: datadir.Manifest, journal: Journal) -> None:
    """From complete new databases to the end. Each step is skipped when it was done before."""
    place, old, new = os.path.join(real, "shards"), os.path.join(real, "shards.old"), _staging(real)
    if os.path.lexists(new):
        if os.path.lexists(place):
            os.rename(place, old)
            fsync_path(real)
        os.rename(new, place)
        fsync_path(real)
    if manifest.shards != journal.after:
        datadir.write_manifest(real, msgspec.structs.replace(manifest, shards=journal.after))
    if os.path.lexists(old):
        shutil.rmtree(old)
        fsync_path(real)
    remove_file(_journal_path(real))


class _Copy:
    """From all old databases to all new ones."""

    def __init__(
        self,
        real: str,
        manifest: datadir.Manifest,
        journal: Journal,
        slot_of: Callable[[str, str], int],
        slot_range: Callable[[int, int], range],
        progress: Progress,
    ) -> None:
        self._real = real
        self._identity = manifest.identity
        self._before = journal.before
        self._after = journal.after
        self._slot_of = slot_of
        self._slot_range = slot_range
        self._progress = progress
        self._old: list[apsw.Connection] = []

    def run(self) -> tuple[int, int]:
        """The numbers of actors, and of rows that were copied."""
        paths = [datadir.shard_paths(self._real, number)[0] for number in range(self._before)]
        for number, path in enumerate(paths):
            self._progress(f"checking shard {number}", 0.0)
            self._close_cleanly(number, path)
        self._check_room(paths)
        staging = _staging(self._real)
        os.makedirs(staging, DIR_MODE, exist_ok=True)
        fsync_path(self._real)
        with ExitStack() as stack:
            for path in paths:
                conn = open_old(path)
                stack.callback(conn.close)
                self._old.append(conn)
                if redo.behind(redo.main(conn), path).slots:
                    raise _no_room(path)
            counts = {table: sum(_count(conn, table) for conn in self._old) for table in TABLES}
            total = max(1, sum(counts.values()))
            copied = 0
            for number in range(self._after):
                target = os.path.join(staging, f"{number:04d}.db")
                if not os.path.lexists(target):
                    copied += self._build(number, target, copied, total)
            fsync_path(staging)
        return counts["actor"], copied

    def _close_cleanly(self, number: int, path: str) -> None:
        """Recover the shard if it has to be, and leave everything in its database file, which alone is read."""
        SqliteStore.open(
            path,
            shard=number,
            identity=self._identity,
            slots=self._slot_range(number, self._before),
            checkpoint_wal=1 << 26,
            page_cache=1 << 24,
        ).close()
        if not os.path.lexists(recovery.marker_path(path)):  # on a full disk commits stay in the log
            raise _no_room(path)

    def _check_room(self, paths: list[str]) -> None:
        state = os.statvfs(self._real)
        room, needed = state.f_bavail * state.f_frsize, sum(os.path.getsize(path) for path in paths)
        if room < needed:
            raise DataDirError(
                f"{self._real} has {room >> 20:,} MiB of room; the new shards need about {needed >> 20:,} MiB beside "
                "the old ones. Make room and run it again."
            )

    def _build(self, number: int, target: str, copied: int, total: int) -> int:
        part = target + ".part"
        for leftover in (part, part + "-wal", part + "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)
        slots = self._slot_range(number, self._after)
        sources = []
        for old, conn in enumerate(self._old):
            common = self._slot_range(old, self._before)
            common = range(max(common.start, slots.start), min(common.stop, slots.stop))
            if common:
                sources.append(Source(old, conn, common))
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        conn = apsw.Connection(part)
        commit = max(_meta(source.conn, "commit_seq") for source in sources)
        try:
            schema.create(conn, shard=number, identity=self._identity)
            for pragma in ("journal_mode = OFF", "synchronous = OFF"):  # it counts when it was synced as a whole
                conn.execute(f"PRAGMA {pragma}").fetchall()
            new = NewShard(conn, sources, self._received)
            new.copy(
                lambda rows: self._progress(f"shard {number + 1} of {self._after}", min(1.0, (copied + rows) / total))
            )
            epoch = max(schema.last_epoch(source.conn) for source in sources)
            schema.set_meta(conn, {"commit_seq": commit, "epoch": epoch})
            conn.execute("PRAGMA journal_mode = WAL").fetchall()
        finally:
            conn.close()
        fsync_path(part)
        recovery.write_marker(target, recovery.Marker(identity=self._identity, shard=number, commit_seq=commit))
        os.rename(part, target)
        return new.rows

    def _received(self, message: Message, sender: int) -> bool:
        """Whether a message of the old shard ``sender`` has taken effect. One to its own shard is removed by that."""
        slot = self._slot_of(message.type, message.name)
        old = next(number for number in range(self._before) if slot in self._slot_range(number, self._before))
        return old != sender and was_received(self._old[old], sender, message.id)


def _no_room(path: str) -> DataDirError:
    return DataDirError(f"{path} has no room to take in its newest commits: make room, and run it again.")


def _count(conn: apsw.Connection, table: str) -> int:
    found: Any = conn.execute(f"SELECT count(*) FROM {table}").get
    return int(found)


def _meta(conn: apsw.Connection, name: str) -> int:
    found: Any = conn.execute("SELECT value FROM meta WHERE name = ?", (name,)).get
    return int(found)
