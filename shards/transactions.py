"""``async with storage.transaction() as txn``: a savepoint over keys, SQL, alarm and sends of a turn.

1. When the block raises, exactly what was written in it is undone, and the exception goes on. Otherwise it stays with
   the turn, and commits or fails with it.
2. Blocks nest. While one is open, only the code inside of it may use storage: a task of the same turn that is not
   inside would have its writes undone by somebody else's exception, so it is refused (``RuntimeError``).
3. In a turn that is over a block does nothing any more.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any

from actord.shards.call import Call

if TYPE_CHECKING:
    from actord.shards.kv import KV
    from actord.shards.sql import Mark

# The innermost block that the running code is inside of.
_inside: ContextVar[Transaction | None] = ContextVar("inside_transaction", default=None)

_METHODS = frozenset(
    {
        "get",
        "get_many",
        "put",
        "put_many",
        "delete",
        "delete_many",
        "delete_all",
        "list",
        "set_alarm",
        "get_alarm",
        "delete_alarm",
        "sql",
        "transaction",
    }
)


class Transaction:
    """Implements ``actord.context.Transaction``. It may be entered once."""

    __slots__ = ("_alarm", "_cleared", "_effects", "_kv", "_mark", "_outer", "_rolled_back", "_turn", "_writes")

    def __init__(self, kv: KV) -> None:
        self._kv = kv
        self._turn: Call | None = None
        self._rolled_back = False

    async def __aenter__(self) -> Transaction:
        if self._turn is not None:
            raise RuntimeError("a transaction can be entered once: call storage.transaction() for each block")
        turn = self._kv.turn()
        self._outer = turn.block
        self._writes = None if turn.writes is None else dict(turn.writes)
        self._cleared = turn.cleared
        self._alarm = turn.alarm
        self._effects = len(turn.effects or ())
        self._mark: Mark = self._kv.mark(turn)
        self._turn = turn
        turn.block = self
        _inside.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        turn = self._turn
        assert turn is not None
        _inside.set(self._outer)
        if turn.over:
            return
        if turn.block is not self:
            turn.aborted = "transactions were left in another order than the reverse of entering them"
            raise RuntimeError(turn.aborted)
        turn.block = self._outer
        if self._rolled_back:
            return
        if kind is None:
            self._kv.release(turn, self._mark)
        else:
            self._undo(turn)

    def rollback(self) -> None:
        """Undo what the block did so far. It can't be used any more."""
        turn = self._kv.turn()
        if turn is not self._turn or turn.block is not self:
            raise RuntimeError("rollback is for the innermost open transaction")
        if not self._rolled_back:
            self._rolled_back = True
            self._undo(turn)

    def _undo(self, turn: Call) -> None:
        turn.writes = self._writes
        turn.cleared = self._cleared
        turn.alarm = self._alarm
        if turn.effects is not None:
            turn.effects[self._effects :] = [one for one in turn.effects[self._effects :] if not one.is_write]
        self._kv.undo_to(turn, self._mark)

    def check(self) -> None:
        """Is the running code inside of this block, which is the innermost one of its turn?"""
        if _inside.get() is not self:
            raise RuntimeError("another task of this turn has a transaction open: storage is its own until it ends")
        if self._rolled_back:
            raise RuntimeError("the transaction was rolled back: leave its block before using storage again")

    def __getattr__(self, name: str) -> Any:
        if name not in _METHODS:
            raise AttributeError(name)
        return getattr(self._kv, name)
