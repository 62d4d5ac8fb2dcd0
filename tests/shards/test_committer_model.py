"""The committer against its promises, on random disks: syncs in the loop, off it, and changing between the two with a
batch in flight; full disks and broken ones; pauses; and whoever is told something asks for another commit at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, cast

import pytest
from actord.errors import ActordError, StoreBroken
from actord.shards.call import EFFECTS, NO_DEADLINE, REFUSAL, Call, Sink
from actord.shards.committer import GroupCommitter
from actord.shards.gate import OutputGate
from actord.storage.flush import outcome_of_sync

from tests.support.memory_store import MemoryStore, broken, full


class Disk:
    """A flusher whose syncs run in ``submit``, or later: each time as the dice say."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.here = False
        self.waiting: tuple[Any, Callable[[BaseException | None], None]] | None = None

    def submit(self, store: Any, done: Callable[[BaseException | None], None]) -> None:
        assert self.waiting is None, "one sync of a shard at a time"
        self.waiting = store, done
        here, self.here = self.here, self.dice.random() < 0.5
        if here:
            self.sync()

    def sync(self) -> None:
        assert self.waiting is not None
        (store, done), self.waiting = self.waiting, None
        done(outcome_of_sync(store))


class Held(Call):
    """A call whose turn has ended, with a write in batch ``seq``, or having seen one."""

    def __init__(self, bench: Bench, seq: int) -> None:
        super().__init__(bench.sink, 0, None, cast(Any, None), REFUSAL, (), {}, EFFECTS, NO_DEADLINE, 0.0)
        self.bench = bench
        self.seq = seq
        self.number = bench.number()
        self.failed: ActordError | None = None

    def fail(self, error: ActordError) -> None:
        assert self.failed is None
        self.failed = error

    def leave(self) -> None:
        if self.failed is None:
            self.bench.told("effect", self.seq)
            self.bench.perhaps_change_something()


class Out(Sink):
    def __init__(self) -> None:
        self.put_calls: list[Held] = []
        self.left: list[Held] = []

    def put(self, call: Call) -> None:
        self.put_calls.append(cast(Held, call))

    def flush(self) -> None:
        self.left += self.put_calls
        self.put_calls = []


class Bench:
    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.store = MemoryStore()
        self.store.actors[0, "T", "a"] = 1
        self.disk = Disk(self.dice)
        self.sink = Out()
        self.all: list[Held] = []
        self.attended: dict[int, int] = {}  # by number: the batch
        self.newest = 0.0  # the batch of what was told last
        self.numbers = 0
        self.paused = self.pausing = False
        self.committer = GroupCommitter(
            cast(Any, self.store),
            self.disk,
            OutputGate(),
            on_full=self.on_full,
            on_broken=self.on_broken,
        )
        self.gate = self.committer._gate
        self.committer.on_alarms = self.on_alarms

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    # -- what may happen at any moment

    def step(self) -> None:
        dice = self.dice
        what = dice.random()
        if what < 0.5:
            self.end_turn()
        elif what < 0.75:
            self.committer.kick()  # the runner settles
            self.gate.flush()
        elif what < 0.8:
            self.committer.commit_now()
        elif what < 0.85:
            self.attend()
            self.committer.kick()
        elif what < 0.9:
            if self.paused or self.pausing:
                self.resume()
            else:
                self.pausing = True
                self.committer.pause(self.on_paused)
        elif self.disk.waiting is not None:
            self.disk.sync()
        if dice.random() < 0.05:
            self.store.fail_write.append(full())

    def end_turn(self) -> None:
        committer = self.committer
        seq = committer.batch.seq
        if committer._in_flight is not None and not self.paused and self.dice.random() < 0.3:
            seq -= 1  # it saw what is in flight
        if self.dice.random() < 0.3:
            committer.batch.alarms[1] = None
        call = Held(self, seq)
        self.all.append(call)
        committer.hold(call, seq)

    def attend(self) -> None:
        number, seq = self.number(), self.committer.batch.seq
        self.attended[number] = seq

        def told(durable: bool) -> None:
            assert self.attended.pop(number) == seq, "told once"
            if durable:
                self.told("attended", seq)
            self.perhaps_change_something()

        self.committer.attend(told)

    def perhaps_change_something(self) -> None:
        """Whoever is told something may do this."""
        what = self.dice.random()
        if what < 0.2:
            self.attend()
        if what < 0.1 or 0.2 < what < 0.25:
            self.committer.kick()
        elif 0.25 < what < 0.3 and self.paused:
            self.resume()

    def resume(self) -> None:
        self.paused = self.pausing = False
        self.committer.resume()

    # -- what must hold

    def told(self, what: str, seq: float) -> None:
        assert self.store.durable_seq >= int(seq), f"{what} of batch {seq} before it is durable"
        assert seq >= self.newest, f"{what} of batch {seq} behind one of {self.newest}"
        self.newest = seq

    def on_paused(self) -> None:
        assert self.disk.waiting is None
        self.paused, self.pausing = True, False

    def on_broken(self, error: BaseException) -> None:
        assert isinstance(error, StoreBroken), error

    def on_alarms(self, alarms: Any) -> None:
        self.perhaps_change_something()

    def on_full(self, held: list[Call], error: Any) -> None:
        self.told("the failure of the batch behind", self.committer.batch.seq - 0.5)
        for call in held:
            call.fail(error)
        self.gate.release(held)
        self.gate.flush()

    def check(self) -> None:
        assert [call.number for call in self.sink.left] == list(dict.fromkeys(c.number for c in self.sink.left))
        for call in self.sink.left:
            assert call.failed is not None or self.store.durable_seq >= call.seq

    def finish(self) -> None:
        self.store.fail_write.clear()
        self.resume()
        for _ in range(100):
            if self.disk.waiting is not None:
                self.disk.sync()
            self.committer.kick()
        assert self.committer.idle
        self.gate.flush()
        self.check()
        assert sorted(call.number for call in self.sink.left) == [call.number for call in self.all]
        assert not self.attended


@pytest.mark.parametrize("seed", range(20))
def test_every_reply_leaves_once_and_what_is_told_is_durable_and_in_the_order_of_the_commits(seed: int) -> None:
    for number in range(20):
        bench = Bench(seed * 1000 + number)
        for _ in range(60):
            bench.step()
            bench.check()
        bench.finish()


@pytest.mark.parametrize("where", ["fail_write", "fail_sync", "fail_maintain"])
def test_after_a_failure_what_is_durable_is_answered_so_and_all_else_as_unknown(where: str) -> None:
    for seed in range(100):
        bench = Bench(seed)
        for _ in range(30):
            bench.step()
        bench.store.fail_write.clear()
        getattr(bench.store, where).append(broken())
        bench.resume()
        while bench.committer.broken is None:
            bench.step()
            bench.check()
        bench.gate.flush()
        bench.check()
        assert len(bench.sink.left) == len(bench.all), "nobody waits"
        for call in bench.sink.left:
            if call.failed is None or call.failed.applied == "unknown":
                assert (call.failed is None) == (call.seq <= bench.store.durable_seq)
