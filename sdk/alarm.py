"""What an alarm handler is told about the run that it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class AlarmInfo:
    """The argument of ``async def alarm(self, info)``.

    ``scheduled_time``: when the alarm was set to fire (aware, UTC, whole milliseconds); retries don't move it.
    ``retry_count``: runs of this alarm that have failed before this one. A run that a crash cut short is not counted,
    though it is repeated as well.
    """

    scheduled_time: datetime
    retry_count: int = 0

    @property
    def is_retry(self) -> bool:
        """True when an earlier run of this alarm has failed."""
        return self.retry_count > 0
