"""The store of one shard in one SQLite database (apsw, WAL). The contract is in ``storage.api``; how it is kept:

1. One connection, ``locking_mode=EXCLUSIVE``, and a lock file that is held from before recovery until after close.
   No other process reads or writes the database in between.
2. ``write`` is one transaction without a sync, on the caller's thread. ``sync`` is ``fdatasync`` of the log through
   a descriptor of our own; the log keeps its inode for as long as the database is open. Together they promise what
   ``synchronous=FULL`` promises, and another thread may run ``sync`` while the next batch is being written.
3. Broken is a state that every method checks first and that is never left. Disk full is not broken: SQLite has rolled
   the batch back, which is verified.
4. While the disk is full only deletions are tried; the ballast was released for them. Other writes fail at once until
   there is room for the ballast again, or so much was deleted that the batch fits into the database's free pages.

Crash story: a batch is in the log whole or not at all (its last frame commits it, each frame's checksum covers all
before it). Checkpoints sync the log before they write the database and the database before the log starts over.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

import apsw
from actord.errors import DataDirError, InvariantViolated, StoreBroken, StoreCorrupt, StoreFull
from actord.storage import alarms, events, outbox, pages, recovery, replies, schema, versions
from actord.storage.alarms import SqliteAlarms
from actord.storage.api import Batch
from actord.storage.ballast import FULL_ERRNOS, Ballast, is_full
from actord.storage.events import SqliteEvents
from actord.storage.files import FileLock, Locked, fsync_dir_of
from actord.storage.folding import SqliteFolding, Writing
from actord.storage.outbox import SqliteOutbox
from actord.storage.pages import SqlitePages
from actord.storage.pins import SqlitePins
from actord.storage.replies import SqliteReplies
from actord.storage.versions import SqliteVersions

LOCK_WAIT_SECONDS = 10.0

_WAL_HEADER_BYTES = 32
_WAL_FRAME_BYTES = schema.PAGE_BYTES + 24
# What a transaction needs besides its values: pages of the tree that are copied, in bytes.
_FREE_PAGES_MARGIN = 1024 * 1024

# One subquery each: only then does SQLite look at the ends of the indexes instead of at every actor.
_BOUNDS = "SELECT (SELECT max(id) FROM actor), (SELECT min(slot) FROM actor), (SELECT max(slot) FROM actor)"
_BEGIN = "BEGIN IMMEDIATE"
_COMMIT = "COMMIT"
_CLEAR = "DELETE FROM kv WHERE actor = ?"
_ACTOR = "INSERT INTO actor (id, slot, type, name, sum) VALUES (?, ?, ?, ?, ?)"
_EPOCH = "UPDATE meta SET value = ?, sum = ? WHERE name = 'epoch'"

_log = logging.getLogger("actord.storage")


class SqliteStore(
    SqliteAlarms, SqliteEvents, SqliteFolding, SqliteOutbox, SqlitePages, SqlitePins, SqliteReplies, SqliteVersions
):
    """A shard's store. Open it with ``open``; one thread calls everything but ``sync``."""

    @classmethod
    def open(
        cls,
        path: str,
        *,
        shard: int,
        identity: str,
        slots: range,
        checkpoint_wal: int,
        page_cache: int,
        ballast: Ballast | None = None,
        log: logging.Logger = _log,
        lock_wait: float = LOCK_WAIT_SECONDS,
    ) -> SqliteStore:
        """Lock, recover, check and open the database at ``path``; create it when it is new.

        ``checkpoint_wal`` and ``page_cache`` in bytes, ``lock_wait`` in seconds. Raises ``DataDirError`` (held by
        another process, newer format, a setting that did not take), ``StoreCorrupt`` or ``StoreBroken``.
        """
        path = os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))
        try:
            lock = FileLock(path + ".lock", wait=lock_wait)
        except Locked as error:
            raise DataDirError(
                f"{path} is held by another process ({error.content or 'unknown'}) after {lock_wait:g} s of waiting."
            ) from None
        except OSError as error:
            raise DataDirError(f"{path}.lock can't be locked: {error}") from error

        def attempt() -> SqliteStore:
            return cls(
                path,
                lock,
                shard=shard,
                identity=identity,
                slots=slots,
                checkpoint_wal=checkpoint_wal,
                page_cache=page_cache,
                ballast=ballast,
                log=log,
            )

        try:
            try:
                return attempt()
            except StoreCorrupt as error:
                # SQLite says the same of a read that fails with EIO: only what fails twice is damage.
                log.warning("%s Reading it once more.", error.detail)
                return attempt()
        except OSError as error:
            lock.release()
            raise StoreBroken(f"{path} can't be opened: {error}", applied="unknown") from error
        except BaseException:
            lock.release()
            raise

    def __init__(
        self,
        path: str,
        lock: FileLock,
        *,
        shard: int,
        identity: str,
        slots: range,
        checkpoint_wal: int,
        page_cache: int,
        ballast: Ballast | None,
        log: logging.Logger,
    ) -> None:
        # for life
        self.path = path
        self.shard = shard
        self.identity = identity
        self.checkpoint_wal = checkpoint_wal
        self._slots = slots
        self._lock = lock
        self._ballast = ballast
        self._log = log
        # state
        self._broken = None
        self._damaged_alarms = set()
        self._damaged_messages = set()
        self._messages = 0
        self._pins = {}
        self._deferred = False
        self.full = False
        self._checkpoint_wanted = False  # once after the disk became full, so that the log can start over
        self._wal_frames = 0
        # counters
        self.checkpoints = 0
        self.full_events = 0

        self._conn = self._connect(page_cache)
        try:
            self._wal_path = recovery.wal_path(path)
            self._wal_fd = os.open(self._wal_path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except BaseException:
            self._conn.close()
            raise
        try:
            self._take_over()
        except BaseException:
            self._let_go(keep_lock=True)
            raise

    # -- opening

    def _connect(self, page_cache: int) -> apsw.Connection:
        path = self.path
        holder = f"pid {os.getpid()}, data directory {self.identity}"
        known = bool(self._lock.read())
        marker = recovery.prepare(path, shard=self.shard, identity=self.identity, existed=known, log=self._log)
        try:
            self._lock.write(holder)
            conn = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
        except (apsw.Error, OSError) as error:
            raise StoreBroken(f"{path} can't be opened: {error}", applied="unknown") from error
        try:
            schema.configure(conn, page_cache=page_cache)
            self.commit_seq = schema.check_meta(conn, shard=self.shard, identity=self.identity)
            if marker is not None:
                recovery.check_marker(
                    path, marker, shard=self.shard, identity=self.identity, commit_seq=self.commit_seq
                )
            self._upgraded = schema.is_older(conn)
            if self._upgraded:
                recovery.remove_marker(path)  # this is the first write
                schema.upgrade(conn)
            schema.check_tables(conn)
            last_id: Any
            first_slot: Any
            last_slot: Any
            last_id, first_slot, last_slot = conn.execute(_BOUNDS).fetchall()[0]
        except (apsw.IOError, apsw.CantOpenError, apsw.NoMemError) as error:
            # Not what the file holds is wrong, but that it can't be had now: a successor tries again.
            conn.close()
            raise StoreBroken(f"{path} can't be opened: {error}", applied="unknown") from error
        except apsw.Error as error:
            conn.close()
            raise StoreCorrupt(f"{path} can't be read: {error}. Restore it from a backup.") from error
        except BaseException:
            conn.close()
            raise
        self._last_actor_id: int = last_id or 0
        if first_slot is not None and not (first_slot in self._slots and last_slot in self._slots):
            conn.close()
            raise StoreCorrupt(f"{path} holds actors of slots {first_slot} to {last_slot}, outside of {self._slots}.")
        return conn

    def _take_over(self) -> None:
        """The last steps before the first write may come."""
        try:
            recovery.remove_marker(self.path)
            fsync_dir_of(self.path)  # the log's name must be on the disk before its contents can count
            if self._upgraded:
                os.fdatasync(self._wal_fd)  # from now on at most one commit is not synced (storage.wal)
            if self._ballast is not None and not self._ballast.hold():
                self._enter_full("at start")
        except OSError as error:
            raise StoreBroken(f"{self.path} can't be opened: {error}", applied="unknown") from error
        self._conn.set_wal_hook(self._on_commit)
        self._cursor = self._conn.cursor()
        self._load_redo()
        self._load_replies()
        self.epoch = schema.last_epoch(self._conn) + 1  # stored with the first batch
        self._epoch_written = False

    def _on_commit(self, _conn: apsw.Connection, _name: str, frames: int) -> int:
        self._wal_frames = frames
        return apsw.SQLITE_OK

    @property
    def wal_bytes(self) -> int:
        """The part of the log that is in use, in bytes."""
        frames = self._wal_frames
        return _WAL_HEADER_BYTES + frames * _WAL_FRAME_BYTES if frames else 0

    # -- writing

    def next_actor_id(self) -> int:
        if self._broken is not None:
            raise self._refuse()
        self._last_actor_id += 1
        return self._last_actor_id

    def write(self, batch: Batch) -> None:
        if self._broken is not None:
            raise self._refuse()
        seq = self.commit_seq
        if batch.seq != seq + 1:
            raise InvariantViolated(f"batch {batch.seq} after {seq} in {self.path}")
        keys = self._keys_of(batch)
        actors = []
        for id_, slot, type_, name in batch.actors:
            if slot not in self._slots:
                raise InvariantViolated(f"actor {type_}/{name!r} of slot {slot} in {self.path} of {self._slots}")
            actors.append((id_, slot, type_, name, schema.actor_sum(id_, slot, type_, name)))
        alarm_puts, alarm_deletes = alarms.rows_of(batch.alarms) if batch.alarms else ([], [])
        page_puts = pages.rows_of(batch.pages) if batch.pages else []
        if self.full:
            assert keys.fold is not None
            needed = keys.fold.bytes + sum(len(put[1]) for put in page_puts)
            needed += events.bytes_of(batch) + replies.bytes_of(batch) + outbox.bytes_of(batch)
            self._leave_full(needed if self._grows(batch) else None)
        try:
            self._apply(batch, keys, actors, page_puts, alarm_puts, alarm_deletes)
        except apsw.Error as error:
            self._roll_back(error, seq)
            if self._ballast is None or self.full:
                raise self._full_error() from error
            self._enter_full(f"at commit {batch.seq}")
            if self._grows(batch):
                raise self._full_error() from error
            keys = self._keys_of(batch)  # a fold, now that the disk is full
            try:
                self._apply(batch, keys, actors, page_puts, alarm_puts, alarm_deletes)
            except apsw.Error as again:
                self._roll_back(again, seq)
                raise self._full_error() from again
        self.commit_seq = batch.seq
        self._keys_written(batch, keys)
        if batch.replies or batch.expired_replies:
            self._replies_written()

    @staticmethod
    def _grows(batch: Batch) -> bool:
        """Does it write anything but deletions?"""
        changes: list[dict[Any, Any]] = [*batch.kv.values(), batch.alarms, batch.outbox]
        return bool(
            any(value is not None for items in changes for value in items.values())
            or batch.actors
            or batch.pages
            or batch.events
            or batch.replies
            or batch.inbox
        )

    def _apply(
        self,
        batch: Batch,
        keys: Writing,
        actors: list[tuple[int, int, str, str, int]],
        page_puts: list[pages.Row],
        alarm_puts: list[alarms.Row],
        alarm_deletes: list[tuple[int]],
    ) -> None:
        execute = self._cursor.execute
        executemany = self._cursor.executemany
        execute(_BEGIN)
        if not self._epoch_written:
            execute(_EPOCH, (self.epoch, schema.meta_sum("epoch", self.epoch)))
        if actors:
            executemany(_ACTOR, actors)
        if batch.cleared:
            executemany(_CLEAR, [(actor,) for actor in sorted(batch.cleared)])
        if batch.cleared or batch.page_counts:
            executemany(pages.DELETE, pages.ranges_of(batch.cleared, batch.page_counts))
        if page_puts:
            executemany(pages.PUT, page_puts)
        if alarm_deletes:
            executemany(alarms.DELETE, alarm_deletes)
        if alarm_puts:
            executemany(alarms.PUT, alarm_puts)
        if batch.event_logs:
            events.apply(executemany, batch)
        if batch.replies or batch.expired_replies:
            self._apply_replies(batch)
        if batch.outbox or batch.inbox:
            outbox.apply(executemany, batch)
        if batch.versions:
            versions.apply(executemany, batch.versions)
        self._write_keys(keys)
        execute(_COMMIT)
        self._epoch_written = True

    def _roll_back(self, error: apsw.Error, seq: int) -> None:
        """After a failed transaction: return if the disk was full and nothing was applied, else break and raise."""
        self._oldest_reply = 0
        self._keys_failed()
        full = is_full(self._conn, error)
        try:
            if self._conn.in_transaction:
                self._cursor.execute("ROLLBACK")
            found = schema.newest_commit(self._conn, self._folded) if full else None
        except apsw.Error as second:
            raise self._break(f"rolling back after {error}", second) from second
        if not full:
            raise self._break(f"writing commit {seq + 1}", error) from error
        if found != seq:
            raise self._break(f"after a full disk the database stands at {found} instead of {seq}", error) from error

    # -- disk full

    def _full_error(self) -> StoreFull:
        return StoreFull("The disk is full; nothing of this commit was applied.", retry_after=5)

    def _enter_full(self, when: str) -> None:
        released = self._ballast is not None and self._ballast.release()
        self.full = True
        self.full_events += 1
        self._checkpoint_wanted = True
        self._log.error(
            "the disk is full (%s, %s): writes are refused until there is room%s",
            self.path,
            when,
            "; the ballast was released" if released else "",
        )

    def _leave_full(self, needed: int | None) -> None:
        """Is there room again? Else let deletions (``needed`` is None) through, and refuse what can't fit."""
        ballast = self._ballast
        assert ballast is not None
        try:
            if ballast.has_room() and ballast.hold():
                self.full = False
                self._log.warning("there is room on the disk again: %s takes writes", self.path)
                return
            if needed is None:
                return
            free = int(self._cursor.execute("PRAGMA freelist_count").get) * schema.PAGE_BYTES
        except (apsw.Error, OSError) as error:
            raise self._break("looking for room", error) from error
        if free < _FREE_PAGES_MARGIN + 2 * needed:
            raise self._full_error()

    # -- durability

    def sync(self) -> None:
        """May run in a thread of its own. Never while ``close`` or ``abandon`` does."""
        if self._broken is not None:
            raise self._refuse()
        try:
            os.fdatasync(self._wal_fd)
        except OSError as error:
            raise self.sync_failed(error) from error

    @property
    def sync_fd(self) -> int:
        return self._wal_fd

    def sync_failed(self, error: OSError) -> StoreBroken:
        return self._break("syncing the log", error)

    def maintain(self) -> None:
        if self._broken is not None:
            raise self._refuse()
        if self._checkpoint_wanted or self.wal_bytes >= self.checkpoint_wal:
            if self._pins and self._pinned():
                return
            # A log that has grown under a pin gives its room back.
            self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE if self._deferred else apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._deferred = False

    def _checkpoint(self, mode: int) -> bool:
        """Copy the log into the database, so that the next write starts the log over. False when the disk is full."""
        self._checkpoint_wanted = False
        try:
            self._check_wal_inode()
            try:
                frames, done = self._conn.wal_checkpoint(mode=mode)
            except apsw.Error as error:
                # Nothing is lost by a checkpoint that stops half way: the log still holds every page.
                if not is_full(self._conn, error):
                    raise
                if self._ballast is None or self.full:
                    return False
                self._enter_full("at a checkpoint")
                try:
                    frames, done = self._conn.wal_checkpoint(mode=mode)
                except apsw.Error as again:
                    if not is_full(self._conn, again):
                        raise
                    return False
        except (apsw.Error, OSError) as error:
            raise self._break("the checkpoint", error) from error
        if frames != done:
            raise InvariantViolated(f"a checkpoint of {self.path} stopped at frame {done} of {frames}: who reads it?")
        self._wal_frames = 0
        self._checkpoint_wanted = False
        self.checkpoints += 1
        return True

    def _check_wal_inode(self) -> None:
        ours = os.fstat(self._wal_fd)
        theirs = os.stat(self._wal_path)
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
            raise OSError(f"{self._wal_path} was replaced while the store had it open")

    # -- the end

    def close(self) -> None:
        """A clean stop. Raises ``StoreBroken`` when it is none; the files and the lock are let go in any case."""
        if self._broken is not None:
            raise self._refuse()
        try:
            self.sync()
            self._fold_alone()
            emptied = self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._let_go(keep_lock=True)
            if emptied:
                # On a full disk the log stays, and so does the next start's recovery: no marker.
                self._write_marker()
        finally:
            self._let_go()
            self._broken = self._broken or "it was closed"

    def _write_marker(self) -> None:
        marker = recovery.Marker(identity=self.identity, shard=self.shard, commit_seq=self.commit_seq)
        try:
            recovery.write_marker(self.path, marker)
        except OSError as error:
            if error.errno not in FULL_ERRNOS:
                raise self._break("leaving the clean-stop marker", error) from error
            self._log.warning("no room for the clean-stop marker of %s: the next start recovers", self.path)

    def abandon(self) -> None:
        self._broken = self._broken or "it was abandoned"
        self._let_go()

    def _let_go(self, *, keep_lock: bool = False) -> None:
        with contextlib.suppress(apsw.Error):
            self._conn.close(True)
        if self._wal_fd >= 0:
            os.close(self._wal_fd)
            self._wal_fd = -1
        if not keep_lock:
            self._lock.release()
