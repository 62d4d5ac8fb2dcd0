"""Slots that are held for a while and then booked, or free again by themselves.

Serve it with

    actord serve examples/booking.py
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, TypedDict

from actord import ActorError, AlarmInfo, StatefulActor
from msgspec import Meta

SLOTS = tuple(f"{hour:02}:00" for hour in range(9, 17))


class Reservation(TypedDict):
    """``until``: when the hold ends by itself; None once it is booked."""

    customer: str
    until: datetime | None


class Schedule(StatefulActor):
    """The slots of one room on one day. Its name is both, as in `room-1@2026-01-31`."""

    async def reservations(self) -> dict[str, Reservation]:
        """Every slot that is held or booked."""
        found: dict[str, Reservation] = await self.ctx.storage.get("reservations", {})
        return found

    async def free(self) -> list[str]:
        """The slots that nobody has."""
        taken = await self.reservations()
        return [slot for slot in SLOTS if slot not in taken]

    async def hold(self, slot: str, customer: str, seconds: Annotated[float, Meta(gt=0, le=900)] = 300) -> Reservation:
        """Keep a slot for a customer while they make up their mind. 409 `taken` when another has it.

        Asking again gives the same hold, no longer one.
        """
        if slot not in SLOTS:
            raise ActorError(f"there is no slot {slot!r}", code="unknown_slot", status=404)
        taken = await self._current()
        mine = taken.get(slot)
        if mine is None:
            mine = taken[slot] = Reservation(customer=customer, until=self._now() + timedelta(seconds=seconds))
            await self._keep(taken)
        elif mine["customer"] != customer:
            raise ActorError(f"{slot} is taken", code="taken", status=409, data={"until": mine["until"]})
        return mine

    async def confirm(self, slot: str, customer: str) -> Reservation:
        """Book a slot that the customer holds. 409 `not_held` when the hold is over, or never was."""
        taken = await self._current()
        mine = taken.get(slot)
        if mine is None or mine["customer"] != customer:
            raise ActorError(f"{customer} does not hold {slot}", code="not_held", status=409)
        mine["until"] = None
        await self._keep(taken)
        return mine

    async def release(self, slot: str, customer: str) -> bool:
        """Give a slot back, held or booked. False when it is not the customer's."""
        taken = await self._current()
        if slot not in taken or taken[slot]["customer"] != customer:
            return False
        del taken[slot]
        await self._keep(taken)
        return True

    async def alarm(self, info: AlarmInfo) -> None:
        """Free what is no longer held, and wait for the next hold to end."""
        await self._keep(await self._current())

    async def _current(self) -> dict[str, Reservation]:
        """The reservations without the holds that are over. The alarm may be a moment late; a decision is not."""
        now = self._now()
        taken = await self.reservations()
        return {slot: one for slot, one in taken.items() if one["until"] is None or one["until"] > now}

    async def _keep(self, taken: dict[str, Reservation]) -> None:
        """Store the reservations; the one alarm is for the hold that ends first."""
        await self.ctx.storage.put("reservations", taken)
        ends = [one["until"] for one in taken.values() if one["until"] is not None]
        if ends:
            await self.ctx.set_alarm(min(ends))
        else:
            await self.ctx.storage.delete_alarm()

    def _now(self) -> datetime:
        return datetime.now(UTC)
