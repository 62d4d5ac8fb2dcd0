"""``ctx.storage``: the keys and values of one instance.

1. Reads look into the turn's own writes, then the cache of what earlier turns wrote or read, then the store.
2. A turn's writes stay in the turn until it returns; then they enter the open batch and the cache together. A turn
   that raises, times out or is fenced off leaves nothing, because nothing outside of it was touched.
3. Values are kept encoded, so what ``get`` returns is always the caller's own copy.
4. The cache holds every write that the store has not seen yet, whatever its size; beyond that it is bounded.
5. Only the turn that runs may use it; everybody else gets ``TurnEnded``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from actord.codec import decode, encode
from actord.errors import CodecError, StoreCorrupt, TurnEnded
from actord.limits import LIST_DEFAULT, LIST_MAX, STORAGE_KEY_BYTES, STORAGE_RESERVED_PREFIX, VALUE_BYTES
from actord.shards import alarm
from actord.shards.alarm import Done
from actord.shards.call import Call, current_turn
from actord.shards.sql import SqlStorage
from actord.shards.transactions import Transaction

if TYPE_CHECKING:
    from datetime import datetime

    from actord.context import When
    from actord.shards.activation import Activation
    from actord.shards.sql import Mark
    from actord.storage.api import Batch

# What the first touch of an instance loads at once: most actors fit whole, and are never read from disk again.
FIRST_LOAD_ROWS = 64
FIRST_LOAD_BYTES = 64 * 1024

_ABSENT: Any = object()


class KV:
    """Implements ``actord.context.Storage``; see there for what each method promises."""

    __slots__ = ("_act", "_cache", "_complete", "_loaded", "_size", "actor_id", "used_sql")

    def __init__(self, act: Activation) -> None:
        self._act = act
        self._loaded = False
        self._cache: dict[str, bytes | None] = {}  # None: known to be absent
        self._complete = False  # the cache holds every key there is
        self._size = 0
        self.actor_id: int | None = None
        self.used_sql: SqlStorage | None = None  # from the first use of ``sql`` on

    @property
    def cached_bytes(self) -> int:
        """Keys and encoded values in the cache, about."""
        return self._size

    # -- the user's side

    async def get(self, key: str, default: Any = None) -> Any:
        turn = self.turn()
        if type(key) is not str or key not in _known_keys:
            _checked(key)
        if self._complete and turn.writes is None and not turn.cleared:
            raw = self._cache.get(key)
        else:
            raw = self._read(turn, key)
        return default if raw is None else decode(raw)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        turn = self.turn()
        found = ((key, self._read(turn, _checked(key))) for key in _several(keys))
        return {key: decode(raw) for key, raw in found if raw is not None}

    async def put(self, key: str, value: Any) -> None:
        turn = self.turn()
        if type(key) is not str or key not in _known_keys:
            _checked(key)
        raw = encode(value)
        if len(raw) > VALUE_BYTES:
            raise _too_large(key, raw)
        if turn.writes is None:
            turn.writes = {key: raw}
        else:
            turn.writes[key] = raw

    async def put_many(self, values: Mapping[str, Any]) -> None:
        turn = self.turn()
        encoded: dict[str, bytes | None] = {_checked(key): _encoded(key, value) for key, value in dict(values).items()}
        if encoded:
            turn.writes = encoded if turn.writes is None else turn.writes | encoded

    async def delete(self, key: str) -> bool:
        return self._delete(self.turn(), _checked(key))

    async def delete_many(self, keys: Iterable[str]) -> int:
        turn = self.turn()
        return sum(self._delete(turn, key) for key in [_checked(key) for key in _several(keys)])

    async def delete_all(self) -> None:
        turn = self.turn()
        if self.used_sql is not None:
            self.used_sql.clear(turn)
        turn.cleared = True
        turn.writes = {}

    async def list(
        self,
        *,
        prefix: str = "",
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        limit: int = LIST_DEFAULT,
    ) -> dict[str, Any]:
        turn = self.turn()
        if type(limit) is not int or not 1 <= limit <= LIST_MAX:
            raise ValueError(f"limit must be an integer of 1 to {LIST_MAX}, not {limit!r}")
        if start is not None and start_after is not None:
            raise ValueError("give start or start_after, not both")
        for name, bound in (("prefix", prefix), ("start", start), ("start_after", start_after), ("end", end)):
            if bound is not None:
                _check_bound(name, bound)
        low, after, high = start, False, end
        if start_after is not None:
            low, after = start_after, True
        if prefix:
            if low is None or low < prefix:
                low, after = prefix, False
            above = _after_prefix(prefix)
            high = above if high is None or (above is not None and above < high) else high
        return {key: decode(raw) for key, raw in self._range(turn, low, after, high, reverse, limit)}

    @property
    def sql(self) -> SqlStorage:
        found = self.used_sql
        if found is None:
            self.turn()
            found = self.used_sql = SqlStorage(self._act)
        return found

    def transaction(self) -> Transaction:
        return Transaction(self)

    def set_alarm(self, when: When) -> Done:
        return alarm.set_alarm(self.turn(), when)

    async def get_alarm(self) -> datetime | None:
        return alarm.get_alarm(self.turn())

    def delete_alarm(self) -> Done:
        return alarm.delete_alarm(self.turn())

    # -- the turn's side

    def turn(self) -> Call:
        """The turn that runs, if it is one of this actor's; ``TurnEnded`` otherwise."""
        turn = current_turn.get()
        if turn is None or turn.over or turn.act is not self._act:
            raise TurnEnded(
                "Storage can be used only by the turn that runs: not from a task that outlives it, nor after its end."
            )
        if turn.block is not None:
            turn.block.check()
        return turn

    def mark(self, turn: Call) -> Mark:
        return None if self.used_sql is None else self.used_sql.mark(turn)

    def release(self, turn: Call, mark: Mark) -> None:
        if self.used_sql is not None:
            self.used_sql.release(turn, mark)

    def undo_to(self, turn: Call, mark: Mark) -> None:
        if self.used_sql is not None:
            self.used_sql.undo_to(turn, mark)

    def _read(self, turn: Call, key: str) -> bytes | None:
        writes = turn.writes
        if writes is not None and key in writes:
            return writes[key]
        if turn.cleared:
            return None
        return self._committed(key)

    def _delete(self, turn: Call, key: str) -> bool:
        was_there = self._read(turn, key) is not None
        if was_there:
            if turn.writes is None:
                turn.writes = {}
            turn.writes[key] = None
        return was_there

    def _committed(self, key: str) -> bytes | None:
        """The value as the turns before this one left it."""
        if not self._loaded:
            self._load()
        raw = self._cache.get(key, _ABSENT)
        if raw is not _ABSENT:
            return raw  # type: ignore[no-any-return]
        if self._complete:
            return None
        assert self.actor_id is not None
        found = self._act.store.read(self.actor_id, key)
        self._remember(key, found)
        return found

    def _load(self) -> None:
        act = self._act
        self.actor_id = act.store.find_actor(act.slot, act.host.type.name, act.name)
        if self.actor_id is None:
            self._loaded = self._complete = True
            return
        self._loaded = True
        try:
            rows, self._complete = act.store.scan(self.actor_id, limit=FIRST_LOAD_ROWS, limit_bytes=FIRST_LOAD_BYTES)
        except StoreCorrupt:
            return  # one damaged value must not lock the others in: each key is read, and refused, on its own
        for key, raw in rows:
            self._remember(key, raw)

    def _remember(self, key: str, raw: bytes | None) -> None:
        self._cache[key] = raw
        self._size += len(key) + (64 if raw is None else len(raw) + 64)

    def _range(
        self, turn: Call, low: str | None, after: bool, high: str | None, reverse: bool, limit: int
    ) -> Iterable[tuple[str, bytes]]:
        """The rows of a range as this turn sees them: the store's, overlaid by the cache, overlaid by its writes."""
        if not self._loaded and not turn.cleared:
            self._load()

        def inside(key: str) -> bool:
            return (low is None or key > low or (key == low and not after)) and (high is None or key < high)

        over: dict[str, bytes | None] = {}
        if not turn.cleared:
            over = {key: raw for key, raw in self._cache.items() if inside(key)}
        if turn.writes:
            over.update((key, raw) for key, raw in turn.writes.items() if inside(key))
        merged = over
        if not (turn.cleared or self._complete):
            assert self.actor_id is not None
            # each overlaid key may hide one of the store's rows
            rows, _ = self._act.store.scan(
                self.actor_id,
                start=low,
                start_after=after,
                end=high,
                reverse=reverse,
                limit=limit + len(over),
            )
            merged = {**dict(rows), **over}
            if len(rows) == limit + len(over):  # the store has more: keys beyond its last row can't be placed yet
                last = rows[-1][0]
                merged = {k: v for k, v in merged.items() if (k >= last if reverse else k <= last)}
        present = sorted(((k, v) for k, v in merged.items() if v is not None), reverse=reverse)
        return present[:limit]

    def raws(self, turn: Call) -> dict[str, bytes]:
        """All that the turn sees, encoded."""
        return dict(self._range(turn, None, False, None, False, 1 << 40))

    # -- the commit's side

    def join(self, turn: Call, batch: Batch) -> None:
        """Move a finished turn's writes into the open batch and the cache. Called only for turns that wrote."""
        writes = turn.writes or {}
        if not self._loaded:
            self._load()
        if self.actor_id is None and not _any_value(writes):
            return  # nothing there, nothing to delete
        actor_id = self.ensure_id(batch)
        if turn.cleared:
            self._cache.clear()
            self._size = 0
            self._complete = True
            batch.cleared.add(actor_id)
            batch.kv.pop(actor_id, None)
            batch.pages.pop(actor_id, None)
            batch.page_counts.pop(actor_id, None)
        cache = self._cache
        for key, raw in writes.items():
            cache[key] = raw
            self._size += len(key) + (64 if raw is None else len(raw) + 64)
        open_writes = batch.kv.get(actor_id)
        if open_writes is None:
            if writes:
                batch.kv[actor_id] = writes
        else:
            open_writes.update(writes)
        self._act.seq = batch.seq

    def ensure_id(self, batch: Batch) -> int:
        """The actor's id in the store, taken with this batch when it has none yet."""
        if not self._loaded:
            self._load()
        if self.actor_id is None:
            act = self._act
            self.actor_id = act.store.next_actor_id()
            batch.actors.append((self.actor_id, act.slot, act.host.type.name, act.name))
            if act.host.type.version > 1:
                batch.versions[self.actor_id] = act.host.type.version
        return self.actor_id

    def raw(self, turn: Call, key: str) -> bytes | None:
        """What the turn sees under a key, encoded."""
        return self._read(turn, key)

    def known_id(self) -> int | None:
        """The actor's id in the store, None when it has none yet."""
        if not self._loaded:
            self._load()
        return self.actor_id

    def trim(self, limit: int) -> None:
        """Forget what the store can give back, when the cache is over ``limit`` bytes; nothing may be unwritten."""
        if self._size <= limit:
            return
        self._size = sum(len(key) + 64 + len(raw or b"") for key, raw in self._cache.items())
        if self._size > limit:
            self.forget()

    def detach(self) -> None:
        """The activation leaves memory: no cycle may keep it there, and whoever still holds ``ctx`` is refused."""
        self.forget()
        if self.used_sql is not None:
            self.used_sql.detach()
            self.used_sql = None
        self._act = None  # type: ignore[assignment]

    def forget(self) -> None:
        """Drop the cache: the next access loads anew."""
        self._loaded = False
        self._complete = False
        self._cache = {}
        self._size = 0
        self.actor_id = None


def check_key(key: str) -> None:
    """Raises ``ValueError`` or ``TypeError`` when it can't be a storage key."""
    _checked(key)


_known_keys: set[str] = set()  # a program has few short keys, and uses them again and again


def _checked(key: str) -> str:
    if type(key) is not str:
        raise TypeError(f"a storage key must be a str, not {type(key).__name__}")
    size = len(key) if key.isascii() else _utf8_size(key)
    if not 1 <= size <= STORAGE_KEY_BYTES:
        raise ValueError(f"a storage key must have 1 to {STORAGE_KEY_BYTES} bytes of UTF-8; this one has {size}")
    if key.startswith(STORAGE_RESERVED_PREFIX):
        raise ValueError(f"storage keys that begin with {STORAGE_RESERVED_PREFIX!r} are reserved")
    if size <= 64 and len(_known_keys) < 4096:
        _known_keys.add(key)
    return key


def _any_value(writes: dict[str, bytes | None]) -> bool:
    return any(raw is not None for raw in writes.values())


def _utf8_size(key: str) -> int:
    try:
        return len(key.encode())
    except UnicodeEncodeError:
        raise ValueError("a storage key must be valid Unicode; this one holds a lone surrogate") from None


def _check_bound(name: str, bound: str) -> None:
    if type(bound) is not str:
        raise TypeError(f"{name} must be a str, not {type(bound).__name__}")
    try:
        bound.isascii() or bound.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be valid Unicode; it holds a lone surrogate") from None


def _encoded(key: str, value: Any) -> bytes:
    raw = encode(value)
    if len(raw) > VALUE_BYTES:
        raise _too_large(key, raw)
    return raw


def _too_large(key: str, raw: bytes) -> CodecError:
    return CodecError(f"The value for {key!r} has {len(raw)} bytes encoded; the limit is {VALUE_BYTES}.")


def _several(keys: Iterable[str]) -> Iterable[str]:
    if isinstance(keys, str):
        raise TypeError("give several keys, not one str")
    return keys


def _after_prefix(prefix: str) -> str | None:
    """The least string above every string with this prefix, in UTF-8 order; None when there is none."""
    for i in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[i])
        if point < 0x10FFFF:
            following = 0xE000 if point == 0xD7FF else point + 1
            return prefix[:i] + chr(following)
    return None
