"""Idempotency keys: a call that carries one takes effect once, and everybody who makes it again gets its reply.

1. The reply of a keyed call is stored in the commit of its turn. So it is there exactly if the turn's writes are, and a
   turn that fails (``ActorError`` included) stores nothing: nothing was applied, and its key may be used again.
2. Keys belong to one instance. The same key with another request (method, body format or body bytes: compared by their
   digest) is refused with ``IdempotencyKeyReused``; nothing runs.
3. A call that comes again while the first one runs waits behind it in the mailbox like any other, and finds its reply
   when its own turn would begin: in the open batch, or in the store. The output gate holds it until that is durable.
4. A reply counts for ``ttl_ms``, and only the newest ``limit`` of an instance are kept. One that is older is never
   given out, also when its row is still there.
5. An instance that has kept no reply costs a lookup in memory for each keyed call; the keys that it has are read once
   for an activation. Calls without a key pay nothing.
6. A call that its caller's link had to send again may have been applied by a worker that is gone: until the stored
   replies were looked at, no refusal of it says ``applied: no``.

Crash story: nothing here is state; what a commit holds is found again by the next activation.
"""

from __future__ import annotations

import logging
import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from actord.errors import BadRequest, CodecError, IdempotencyKeyReused, StoreBroken, StoreCorrupt
from actord.limits import KEY_CHARS, VALUE_BYTES
from actord.shards import alarm as clock
from actord.shards.call import Call, Once
from actord.shards.wire import MSGPACK, PAIR
from actord.storage.api import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actord.shards.activation import Activation
    from actord.shards.shard import Shard
    from actord.storage.api import Batch

log = logging.getLogger("actord.idempotency")

REPLAYED = b"Idempotent-Replayed: true\r\n"
_JSON_HEAD = b"Content-Type: application/json\r\n"
_EVICTED_AT_ONCE = 16  # replies beyond the limit that one turn takes with it, when the limit was lowered
SWEPT_ROWS = 256
REST_SWEEPS = 600  # calls of ``sweep`` between two passes over a store


_LEGAL = re.compile(f"[\\x20-\\x7e]{{1,{KEY_CHARS}}}").fullmatch


def check_key(key: str) -> None:
    """``BadRequest`` unless it is a legal idempotency key."""
    if type(key) is not str or not _LEGAL(key):
        raise BadRequest(f"An idempotency key is 1 to {KEY_CHARS} printable ASCII characters, not {key!r:.300}.")


class Rules(NamedTuple):
    ttl_ms: int
    limit: int  # of one instance


class Key(Once):
    """The idempotency key of one call."""

    __slots__ = ("_digest", "_key", "_rules", "unsure")

    def __init__(self, key: str, method: bytes, flags: int, body: bytes, rules: Rules, *, again: bool) -> None:
        self._key = key
        self._digest = blake2b(b"%b\0%d\0%b" % (method, flags & (MSGPACK | PAIR), body), digest_size=16).digest()
        self._rules = rules
        self.unsure = again  # an earlier run of this very request may have been applied

    def answered(self, call: Call) -> bool:
        act = call.act
        keys = act.keys
        if keys is None:
            keys = _load(act)
        if self._key not in keys:
            self.unsure = False
            return False
        actor = act.kv.known_id()
        assert actor is not None
        found = act.shard.committer.batch.replies.get((actor, self._key))
        if found is None:
            found = act.store.read_reply(actor, self._key)
        self.unsure = False
        if found is None or clock.wall_ms() - found.at >= self._rules.ttl_ms:
            return False
        if found.digest != self._digest:
            raise IdempotencyKeyReused(
                "This idempotency key was used for another request of this actor: another method, or a body that is "
                "not the same bytes. Use a new key for a new request."
            )
        call.status, call.body, call.head = found.status, found.body, (found.head or _JSON_HEAD) + REPLAYED
        return True

    def check(self, call: Call) -> None:
        if len(call.body) > VALUE_BYTES:
            raise CodecError(
                f"a reply of {len(call.body)} bytes: a call with an idempotency key may return {VALUE_BYTES} at most, "
                "because the reply is stored. Return less, or call without a key"
            )
        if call.act.keys is None:
            _load(call.act)

    def join(self, call: Call, batch: Batch) -> None:
        act = call.act
        actor = act.kv.ensure_id(batch)
        keys = act.keys
        assert keys is not None
        now = batch.replies_at
        if not now:  # one look at the clock for all of a batch
            now = batch.replies_at = clock.wall_ms()
            batch.replies_before = now - self._rules.ttl_ms
        batch.replies[actor, self._key] = Reply(now, self._digest, call.status, call.head, call.body)
        keys.pop(self._key, None)  # one that had expired: now it is the youngest
        keys[self._key] = None
        act.seq = batch.seq
        excess = len(keys) - self._rules.limit
        if excess > 0:
            for _ in range(min(excess, _EVICTED_AT_ONCE)):
                oldest = next(iter(keys))
                del keys[oldest]
                batch.replies[actor, oldest] = None


def _load(act: Activation) -> dict[str, None]:
    actor = act.kv.known_id()
    act.keys = keys = {} if actor is None else dict.fromkeys(act.store.reply_keys(actor))
    return keys


class Sweeper:
    """Deletes expired replies of shards that get no more of them. Slow: a page of rows of each shard at a time."""

    def __init__(self, shards: Iterable[Shard], rules: Rules) -> None:
        self._rules = rules
        self._places: list[list[Any]] = [[shard, 0, 0] for shard in shards]  # shard, id to go on behind, rest

    def sweep(self) -> None:
        """One page of each shard. Called about once a second, on the loop thread."""
        before = clock.wall_ms() - self._rules.ttl_ms
        for place in self._places:
            shard, after, rest = place
            if rest:
                place[2] = rest - 1
                continue
            committer = shard.committer
            if committer.broken is not None:
                continue
            try:
                expired, place[1] = shard.store.expired_replies(before=before, after=after, limit=SWEPT_ROWS)
            except StoreBroken as error:
                committer.break_off(error)
                continue
            except StoreCorrupt as error:
                log.critical("expired replies are not deleted: %s", error.detail)
                place[1], place[2] = 0, REST_SWEEPS
                continue
            if expired:
                committer.batch.expired_replies += expired
                committer.commit_now()
            if not place[1]:
                place[2] = REST_SWEEPS
