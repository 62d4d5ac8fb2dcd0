"""One shard in its worker: a store, its group committer, and the slots it owns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from actord.errors import ActorOutputGateError
from actord.shards.call import Call
from actord.shards.committer import Flusher, GroupCommitter
from actord.shards.gate import OutputGate
from actord.shards.slots import slot_range
from actord.storage.api import Store

if TYPE_CHECKING:
    from actord.shards.turns import TurnRunner


class Shard:
    """``epoch`` grows with every opening of the store, so that a fence of an earlier owner is always smaller."""

    __slots__ = ("_gate", "_runner", "committer", "epoch", "floors", "number", "slots", "store")

    def __init__(
        self,
        number: int,
        shards: int,
        store: Store,
        flusher: Flusher,
        gate: OutputGate,
        runner: TurnRunner,
        on_broken: Callable[[Shard, BaseException], None],
    ) -> None:
        self.number = number
        self.slots = slot_range(number, shards)
        self.store = store
        self.epoch = store.epoch
        self.floors: dict[int, int] = {}  # by shard: no message of it below this id comes any more (shards.inbox)
        self._gate = gate
        self._runner = runner
        self.committer = GroupCommitter(
            store, flusher, gate, on_full=self._roll_back, on_broken=lambda error: on_broken(self, error)
        )

    def _roll_back(self, held: list[Call], error: ActorOutputGateError) -> None:
        """The disk is full and a batch is gone: fail its calls, and forget what their instances knew of it."""
        activations = dict.fromkeys(call.act for call in held)  # in their order: the same run goes the same way
        for call in held:
            call.fail(error)
        self._gate.release(held)
        for act in activations:
            act.forget()
            self._runner.interrupt(act, error)
        self._gate.flush()
