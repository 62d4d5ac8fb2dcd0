"""A token bucket for each client, and an API that asks it before it answers.

Serve it with

    actord serve examples/rate_limiter.py
"""

from __future__ import annotations

import time
from typing import Annotated, ClassVar, TypedDict

from actord import ActorError, Env, Request, Response, StatefulActor
from msgspec import Meta


class Decision(TypedDict):
    """``retry_after``: seconds after which the same request will find enough tokens, 0 when it was allowed."""

    allowed: bool
    remaining: int
    retry_after: float


class RateLimiter(StatefulActor):
    """The bucket of one client. Its name is the client's id, or its key, or its address.

    Times are whole nanoseconds and tokens are whole numbers: nothing is rounded, so the limit is exact.
    """

    capacity: ClassVar[int] = 5
    nanoseconds_per_token: ClassVar[int] = 10_000_000_000

    async def take(self, tokens: Annotated[int, Meta(ge=1)] = 1) -> Decision:
        """Take tokens if there are enough. 400 `never` when the bucket could not hold so many."""
        if tokens > self.capacity:
            raise ActorError(f"the bucket holds at most {self.capacity} tokens", code="never")
        available, since = await self._refilled()
        if tokens > available:
            missing = (tokens - available) * self.nanoseconds_per_token
            # Nothing is written, so that a client beyond its limit costs no commit.
            return Decision(allowed=False, remaining=available, retry_after=(since + missing - self._now()) / 1e9)
        await self.ctx.storage.put("bucket", (available - tokens, since))
        return Decision(allowed=True, remaining=available - tokens, retry_after=0)

    async def remaining(self) -> int:
        """The tokens in the bucket right now."""
        available, _ = await self._refilled()
        return available

    async def _refilled(self) -> tuple[int, int]:
        """The tokens that are there by now, and since when the next one has been filling up."""
        now = self._now()
        available, since = await self.ctx.storage.get("bucket", (self.capacity, now))
        gained = max(0, now - since) // self.nanoseconds_per_token  # a clock that was set back takes nothing away
        if available + gained >= self.capacity:
            return self.capacity, now
        return available + gained, since + gained * self.nanoseconds_per_token

    def _now(self) -> int:
        """Nanoseconds since the epoch. The wall clock, because it goes on across restarts."""
        return time.time_ns()


async def fetch(request: Request, env: Env) -> Response:
    """The API that is limited, with one bucket for each client.

    GET /clients/alice/report
    """
    match request.method, request.path.strip("/").split("/"):
        case "GET", ["clients", client, "report"]:
            decision: Decision = await env.RATE_LIMITER.id_from_name(client).take()
            if decision["allowed"]:
                return Response.json({"report": "all is well", "remaining": decision["remaining"]})
            wait = int(decision["retry_after"]) + 1  # the header knows whole seconds alone
            return Response.json({"error": "too many requests"}, status=429, headers={"Retry-After": str(wait)})
    return Response.text("not found", status=404)
