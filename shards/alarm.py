"""The alarm of one instance, as its turns see it: ``set_alarm``, ``get_alarm``, ``delete_alarm``.

1. What a turn does to the alarm stays in the turn (``Call.alarm``) until it returns; then it joins the open batch
   with everything else that the turn wrote. A turn that fails leaves the alarm as it was.
2. Times are whole milliseconds of wall clock since the epoch, rounded up: an alarm is never early.
3. A time that can't be meant is refused before anything has changed.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from time import time_ns
from typing import TYPE_CHECKING, Any

from actord.errors import AlarmHandlerMissing, AlarmTimeError
from actord.limits import ALARM_EPOCH_SECONDS_MAX
from actord.shards.call import UNTOUCHED
from actord.storage.api import Alarm

if TYPE_CHECKING:
    from actord.shards.call import Call

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST_MS = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


class Done:
    """The result of what has been done already: may be awaited, or not."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


DONE = Done()


def wall_ms() -> int:
    """The wall clock in whole milliseconds since the epoch, rounded down."""
    return time_ns() // 1_000_000


def due_ms(when: object) -> int:
    """The time that ``when`` names, in milliseconds since the epoch. ``AlarmTimeError`` when it names none."""
    if isinstance(when, datetime):
        if when.utcoffset() is None:
            raise AlarmTimeError(
                f"The time of an alarm needs a time zone: {when!r} has none. Use datetime.now(UTC), or a timedelta."
            )
        micros = (when - EPOCH) // _MICROSECOND
    elif isinstance(when, timedelta):
        micros = -(-time_ns() // 1000) + when // _MICROSECOND
    elif isinstance(when, int | float) and not isinstance(when, bool):
        if isinstance(when, float) and not math.isfinite(when):
            raise AlarmTimeError(f"The time of an alarm is in seconds since the epoch; {when!r} can't be one.")
        if when > ALARM_EPOCH_SECONDS_MAX:
            raise AlarmTimeError(
                f"The time of an alarm is in seconds since the epoch; a number above {ALARM_EPOCH_SECONDS_MAX:,} looks "
                "like milliseconds: divide by 1,000."
            )
        micros = when * 1_000_000 if isinstance(when, int) else round(when * 1_000_000)
    else:
        raise AlarmTimeError(
            "The time of an alarm is an aware datetime, a timedelta from now, or seconds since the epoch, "
            f"not {type(when).__name__}."
        )
    due = max(0, -(-micros // 1000))
    if due > _LAST_MS:
        raise AlarmTimeError(f"The time of an alarm lies before the year 10000; {when!r} does not.")
    return due


def as_datetime(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


def set_alarm(turn: Call, when: object) -> Done:
    type_ = turn.act.host.type
    if not type_.has_alarm:
        raise AlarmHandlerMissing(
            f"{type_.name} has no alarm handler: an alarm would never do anything. "
            "Give the class `async def alarm(self, info)`."
        )
    due = due_ms(when)
    turn.alarm = Alarm(due, due)
    turn.more = True
    return DONE


def delete_alarm(turn: Call) -> Done:
    if seen_by(turn) is not None:
        turn.alarm = None
        turn.more = True
    return DONE


def get_alarm(turn: Call) -> datetime | None:
    """When the alarm fires next; None without one, and for one that has failed for good."""
    alarm = seen_by(turn)
    return None if alarm is None or alarm.error is not None else as_datetime(alarm.due)


def seen_by(turn: Call) -> Alarm | None:
    """The alarm with what this turn has done to it."""
    mine = turn.alarm
    return turn.act.committed_alarm() if mine is UNTOUCHED else mine
