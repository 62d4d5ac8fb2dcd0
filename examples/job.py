"""A job that is tried until it works, ever more rarely, and says so when it gives up: here, the delivery of an event.

Serve it with

    actord serve examples/job.py
"""

from __future__ import annotations

import asyncio
import json
import random
import urllib.request
from datetime import UTC, datetime, timedelta
from http.client import HTTPException, InvalidURL
from typing import Annotated, Any, ClassVar, Literal, TypedDict
from urllib.error import HTTPError
from urllib.parse import quote

from actord import ActorError, AlarmInfo, Request, Response, StatefulActor
from msgspec import Meta

DELIVERY_SECONDS = 10  # how long the receiver may take


class Status(TypedDict):
    """``error``: why the last attempt failed. ``next_attempt``: None when there will be none."""

    state: Literal["waiting", "done", "failed"]
    attempts: int
    error: str | None
    next_attempt: datetime | None


class Job(StatefulActor):
    """The delivery of one event to one URL. Its name is the job's id, which the receiver gets as `Idempotency-Key`."""

    max_attempts: ClassVar[int] = 8
    first_delay: ClassVar[float] = 1.0  # seconds, as the next one
    longest_delay: ClassVar[float] = 600.0

    async def submit(self, url: Annotated[str, Meta(pattern=r"^https?://")], event: dict[str, Any]) -> Status:
        """Deliver an event as soon as possible. A job that is there already stays as it is."""
        if await self.ctx.storage.get("order") is None:
            await self.ctx.storage.put("order", {"url": url, "event": event})
            await self._schedule(Status(state="waiting", attempts=0, error=None, next_attempt=self._now()))
        return await self.status()

    async def status(self) -> Status:
        """How far the job is. 404 `unknown_job` before it was submitted."""
        status: Status | None = await self.ctx.storage.get("status")
        if status is None:
            raise ActorError(f"there is no job {self.ctx.id!r}", code="unknown_job", status=404)
        return status

    async def retry(self) -> Status:
        """Give a job that has failed all of its attempts again. 409 `not_failed` for another."""
        status = await self.status()
        if status["state"] != "failed":
            raise ActorError(f"the job is {status['state']}", code="not_failed", status=409)
        await self._schedule(Status(state="waiting", attempts=0, error=status["error"], next_attempt=self._now()))
        return await self.status()

    async def alarm(self, info: AlarmInfo) -> None:
        """One attempt. A crash in the middle of it repeats it: the receiver may see the event twice."""
        status = await self.status()
        status["attempts"] += 1
        try:
            await asyncio.to_thread(self._deliver, **await self.ctx.storage.get("order"))
        except (OSError, HTTPException, ValueError) as error:
            status["error"] = f"{type(error).__name__}: {error}"
            if status["attempts"] >= self.max_attempts or _is_final(error):
                status |= {"state": "failed", "next_attempt": None}
            else:
                status["next_attempt"] = self._now() + self._delay(status["attempts"])
        else:
            status |= {"state": "done", "error": None, "next_attempt": None}
        await self._schedule(status)

    async def _schedule(self, status: Status) -> None:
        """Store how far the job is, together with the alarm for its next attempt."""
        await self.ctx.storage.put("status", status)
        if status["next_attempt"] is not None:
            await self.ctx.set_alarm(status["next_attempt"])

    def _delay(self, attempts: int) -> timedelta:
        """Twice as long after each attempt, and up to a quarter more, so that jobs do not come back together."""
        seconds = min(self.first_delay * 2.0 ** (attempts - 1), self.longest_delay)
        return timedelta(seconds=seconds * random.uniform(1, 1.25))

    def _deliver(self, url: str, event: dict[str, Any]) -> None:
        """Runs in a thread, because it blocks. Raises when the receiver did not take the event."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": quote(self.ctx.id)}
        request = urllib.request.Request(url, json.dumps(event).encode(), headers)
        with urllib.request.urlopen(request, timeout=DELIVERY_SECONDS):
            pass

    def _now(self) -> datetime:
        return datetime.now(UTC)


def _is_final(error: Exception) -> bool:
    """Whether trying again is no use: no URL, or a 4xx other than those that mean "later"."""
    if isinstance(error, HTTPError):
        return 400 <= error.code < 500 and error.code not in (408, 429)
    return isinstance(error, ValueError | InvalidURL)


class Inbox(StatefulActor):
    """A receiver to try it with. Events may come more than once; it keeps each of them once."""

    async def fetch(self, request: Request) -> Response:
        """Takes an event: any POST with an `Idempotency-Key`."""
        key = request.headers.get("Idempotency-Key")
        if request.method != "POST" or not key:
            return Response.text("POST an event with an Idempotency-Key", status=400)
        if await self.ctx.storage.get(f"event:{key}") is None:
            await self.ctx.storage.put(f"event:{key}", await request.json())
        return Response(status=204)

    async def events(self) -> dict[str, Any]:
        """The events by their keys, at most 100."""
        found = await self.ctx.storage.list(prefix="event:", limit=100)
        return {key.removeprefix("event:"): event for key, event in found.items()}
