"""Group commit: the writes of many turns, one transaction, one fsync.

1. A turn's writes enter exactly one batch, in the order in which turns ended.
2. A batch closes when the flush of its predecessor has returned, or at once when nothing is in flight. No timer.
3. Rows are written on the loop thread (microseconds, no sync); the flusher then syncs the log; only after that are
   the batch's replies released. Off the loop, the next batch is written and handed to the flusher before they are
   sent. Where the flusher has the sync run here (``here``), replies leave before the next batch.
4. A full disk rolls a whole batch back, for certain: its calls are answered `applied: no`, and the shard goes on.
5. After any other failure the committer is broken for good: everything held is answered `applied: unknown`, nothing
   more is served, and the process exits (a failed fsync must not be tried again: the kernel may have dropped the
   pages and marked them clean).
6. All that follows from a batch (effects, replies, whoever attends it) is told before anything of the next one is, also
   when the next one could not be written, or when somebody who is told asks for it at once.

Crash story: before the fsync returned no reply has left, so nobody was promised anything; after it, recovery finds the
batch in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from actord.errors import ActorOutputGateError, StoreFull
from actord.shards.call import Call
from actord.shards.gate import OutputGate
from actord.storage.api import Alarm, Batch, Store

if TYPE_CHECKING:
    from actord.shards.meter import Meter

_NOBODY: Sequence[Callable[[bool], None]] = ()


class Flusher(Protocol):
    """Runs a store's sync and calls ``done(error or None)``: later, or, while ``here``, before ``submit`` returns."""

    @property
    def here(self) -> bool: ...

    def submit(self, store: Store, done: Callable[[BaseException | None], None]) -> None: ...


class GroupCommitter:
    """The open batch of one shard, the one in flight, and the calls that each of them holds."""

    __slots__ = (
        "_alarms",
        "_attended",
        "_flusher",
        "_gate",
        "_in_flight",
        "_on_broken",
        "_on_full",
        "_paused",
        "_pausing",
        "_store",
        "_submitted",
        "_submitting",
        "attending",
        "batch",
        "broken",
        "durable_seq",
        "held",
        "meter",
        "on_alarms",
    )

    def __init__(
        self,
        store: Store,
        flusher: Flusher,
        gate: OutputGate,
        *,
        on_full: Callable[[list[Call], ActorOutputGateError], None],
        on_broken: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._flusher = flusher
        self._gate = gate
        self._on_full = on_full
        self._on_broken = on_broken
        self.durable_seq = store.commit_seq
        self.batch = Batch(store.commit_seq + 1)  # the open one; its number is the next commit_seq
        self.held: list[Call] = []  # waits for the open batch
        self._in_flight: list[Call] | None = None  # waits for the one being flushed
        self.attending: list[Callable[[bool], None]] = []  # wants to hear of the open batch
        self._attended: Sequence[Callable[[bool], None]] = _NOBODY  # of the one being flushed
        self._alarms: dict[int, Alarm | None] = {}  # those of the one being flushed
        # Told the alarms of each commit that is durable, and None when a commit was taken back.
        self.on_alarms: Callable[[dict[int, Alarm | None] | None], None] | None = None
        self.broken: BaseException | None = None
        self.meter: Meter | None = None
        self._submitted = 0.0  # when the sync in flight was asked for
        self._submitting = False
        self._paused = False
        self._pausing: Callable[[], None] | None = None  # wants to hear when nothing is in flight

    def hold(self, call: Call, seq: int) -> None:
        """Keep a finished call's reply until commit ``seq``, open or in flight, is durable."""
        if seq == self.batch.seq:
            self.held.append(call)
        else:
            assert self._in_flight is not None
            self._in_flight.append(call)

    def attend(self, done: Callable[[bool], None]) -> None:
        """Have the open batch committed although no reply waits for it: it closes when it is kicked, or with the next.

        ``done`` is told on the loop thread, behind the batch's replies, that it is durable (True), or that it was taken
        back because the disk is full (False). It is not called when the committer breaks.
        """
        self.attending.append(done)

    def kick(self) -> None:
        """Close the open batch if somebody waits for it and nothing is in flight."""
        while self._in_flight is None and (self.held or self.attending) and self.broken is None:
            if not self._close():
                return

    def commit_now(self) -> None:
        """Close the open batch although nobody waits for it, unless one is in flight: then it goes with the next."""
        if self._in_flight is None and self.broken is None and self._close():
            self.kick()

    def pause(self, then: Callable[[], None]) -> None:
        """From the moment at which nothing is in flight, when ``then`` is called, write no batch until ``resume``.

        Turns run meanwhile; what they wrote waits in the open batch. One at a time.
        """
        if self._in_flight is None:
            self._paused, self._in_flight = True, []  # as if a flush were under way
            then()
        else:
            self._pausing = then

    def resume(self) -> None:
        """End a pause, or the wait for it."""
        self._pausing = None
        if self._paused:
            self._paused, self._in_flight = False, None
            self.kick()

    @property
    def idle(self) -> bool:
        return self._in_flight is None and not self.held and not self.attending

    def _close(self) -> bool:
        """Commit, and tell of it when that failed: False."""
        failed = self._commit()
        if failed is not None:
            failed()
        return failed is None

    def _commit(self) -> Callable[[], None] | None:
        """Write the open batch and ask for its sync. When it could not be written: returns what tells of that."""
        # Not the list itself when it is empty: it fills for the next batch while this one is in flight.
        batch, held, attended = self.batch, self.held, self.attending or _NOBODY
        self.held = []
        if attended:
            self.attending = []
        began = monotonic()
        try:
            self._store.write(batch)
        except StoreFull as full:
            self.batch = Batch(batch.seq)  # the number was not used
            return partial(self._taken_back, held, attended, full)
        except BaseException as error:
            self._in_flight = held
            return partial(self.break_off, error)
        self.batch = Batch(batch.seq + 1)
        self._in_flight = held
        self._attended = attended
        self._alarms = batch.alarms
        self._submitted = now = monotonic()
        if self.meter is not None:
            self.meter.batch_write.take(now - began)
        self._submitting = True
        self._flusher.submit(self._store, self._flushed)
        self._submitting = False
        return None

    def _taken_back(self, held: list[Call], attended: Sequence[Callable[[bool], None]], full: StoreFull) -> None:
        error = ActorOutputGateError(
            f"The disk is full: nothing of this call was kept. {full.detail}", disk_full=True, retry_after=5
        )
        self._on_full(held, error)
        if self.on_alarms is not None:
            self.on_alarms(None)
        for done in attended:
            done(False)

    def _flushed(self, error: BaseException | None) -> None:
        if self.broken is not None:
            return
        if error is not None:
            self.break_off(error)
            return
        done, alarms, attended = self._in_flight, self._alarms, self._attended
        assert done is not None
        self.durable_seq = self._store.commit_seq
        if self.meter is not None:
            self.meter.durable(self._submitted, done)
        # As if a flush were under way, until all is told: who is told of a commit may ask for the next one.
        telling: list[Call] = []
        self._in_flight = telling
        try:
            self._store.maintain()
        except BaseException as failure:
            self._gate.release(done)  # durable: their promise is kept
            self.break_off(failure)
            return
        failed, pausing = None, self._pausing
        if pausing is not None:
            self._pausing, self._paused = None, True
        elif (self.held or self.attending) and not self._flusher.here:
            failed = self._commit()
        self._gate.release(done)
        self._gate.flush()
        if pausing is not None:
            pausing()
        for tell in attended:
            tell(True)
        if alarms and self.on_alarms is not None:
            self.on_alarms(alarms)
        if failed is not None:
            failed()
        if self._in_flight is telling and not self._paused:
            self._in_flight = None
            if not self._submitting:  # else whoever committed this batch looks for the next one
                self.kick()

    def break_off(self, error: BaseException) -> None:
        """Never leave this state: answer everything held, and tell the worker to exit."""
        if self.broken is not None:
            return
        self.broken = error
        self.durable_seq = -1  # whatever ends from now on is held for ever: the process exits
        held = (self._in_flight or []) + self.held
        self._in_flight, self.held = [], []
        self.attending = []
        unknown = ActorOutputGateError(
            f"The commit failed ({error}); whether the writes were kept is unknown. The worker restarts.",
            applied="unknown",
        )
        for call in held:
            call.fail(unknown)
        self._gate.release(held)
        self._gate.flush()
        self._on_broken(error)
