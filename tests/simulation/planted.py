"""Bugs planted into the worker's core: a simulation that does not find each of them proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from actord.shards import alarms
from actord.shards.activation import Activation
from actord.shards.committer import GroupCommitter
from actord.shards.kv import KV
from actord.shards.turns import TurnRunner

Patch = Callable[[pytest.MonkeyPatch], None]


def reply_before_durable(patch: pytest.MonkeyPatch) -> None:
    """Replies leave when their batch is written, before its sync."""
    commit = GroupCommitter._commit

    def early(self: Any) -> None:
        held, self.held = self.held, []
        commit(self)
        if self.broken is None:
            self._gate.release(held)
            self._gate.flush()

    patch.setattr(GroupCommitter, "_commit", early)


def interleaved_turns(patch: pytest.MonkeyPatch) -> None:
    """A second turn of a key begins while the first waits."""

    def admit(self: Any, call: Any) -> None:
        self.waiting += 1
        call.act.busy = True
        self._make_ready(call)

    patch.setattr(TurnRunner, "admit", admit)


def lost_mailbox_entry(patch: pytest.MonkeyPatch) -> None:
    """A call is forgotten when three wait."""
    following = TurnRunner._next

    def lossy(self: Any, act: Any) -> None:
        if act.mailbox and len(act.mailbox) == 3:
            act.mailbox.popleft()
            self.waiting -= 1
        following(self, act)

    patch.setattr(TurnRunner, "_next", lossy)


def mailbox_out_of_order(patch: pytest.MonkeyPatch) -> None:
    """The newest goes first when four wait."""
    following = TurnRunner._next

    def hasty(self: Any, act: Any) -> None:
        if act.mailbox and len(act.mailbox) == 4:
            act.mailbox.appendleft(act.mailbox.pop())
        following(self, act)

    patch.setattr(TurnRunner, "_next", hasty)


def eviction_of_a_held_instance(patch: pytest.MonkeyPatch) -> None:
    """An instance leaves memory while a write of it is in the open batch."""
    patch.setattr(Activation, "evictable", property(lambda self: not self.busy))


def batch_order_swapped(patch: pytest.MonkeyPatch) -> None:
    """Of two turns of one key in one batch the first one's writes win."""
    join = KV.join

    def swapped(self: Any, turn: Any, batch: Any) -> None:
        before = dict(batch.kv.get(self.known_id(), {}))
        join(self, turn, batch)
        if before:
            batch.kv[self.actor_id].update(before)

    patch.setattr(KV, "join", swapped)


def lost_wake_up(patch: pytest.MonkeyPatch) -> None:
    """A call that becomes ready while turns are suspended does not wake the pump."""
    make_ready = TurnRunner._make_ready

    def sleepy(self: Any, call: Any) -> None:
        if self.suspended >= 2:
            self._ready.append(call)
        else:
            make_ready(self, call)

    patch.setattr(TurnRunner, "_make_ready", sleepy)


def cache_kept_after_a_rollback(patch: pytest.MonkeyPatch) -> None:
    """After a full disk an instance goes on with what was taken back."""
    patch.setattr(Activation, "forget", lambda self: None)


def writes_of_a_failed_turn_kept(patch: pytest.MonkeyPatch) -> None:
    """A turn that throws joins the batch with what it wrote."""
    fail = TurnRunner._fail

    def keeping(self: Any, call: Any, error: BaseException) -> None:
        if call.writes and not call.over:
            call.act.join(call, call.act.shard.committer.batch)
        fail(self, call, error)

    patch.setattr(TurnRunner, "_fail", keeping)


def alarm_not_noticed(patch: pytest.MonkeyPatch) -> None:
    """An alarm that is set is found only by the next worker."""
    patch.setattr(alarms._Queue, "notice", lambda self, position: None)


def alarm_early(patch: pytest.MonkeyPatch) -> None:
    """Alarms fire half a second before they are due."""
    wall_ms = alarms.clock.wall_ms

    class Clock:
        def __getattr__(self, name: str) -> Any:
            return getattr(alarms_clock, name)

        @staticmethod
        def wall_ms() -> int:
            return wall_ms() + 500

    alarms_clock = alarms.clock
    patch.setattr(alarms, "clock", Clock())


def second_answer(patch: pytest.MonkeyPatch) -> None:
    """A turn that is over its time is answered, and once more when its coroutine has ended."""
    run_out = TurnRunner._run_out_of_time

    def twice(self: Any, call: Any) -> None:
        was_over = call.over
        run_out(self, call)
        if not was_over and call.sink is not None and call.task is not None and call.flags == 0:
            self._gate.release((call,))

    patch.setattr(TurnRunner, "_run_out_of_time", twice)


PLANTED: dict[str, Patch] = {
    bug.__name__.replace("_", " "): bug
    for bug in (
        reply_before_durable,
        interleaved_turns,
        lost_mailbox_entry,
        mailbox_out_of_order,
        eviction_of_a_held_instance,
        batch_order_swapped,
        lost_wake_up,
        cache_kept_after_a_rollback,
        writes_of_a_failed_turn_kept,
        alarm_not_noticed,
        alarm_early,
        second_answer,
    )
}


@contextmanager
def planted(bug: Patch) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        yield
