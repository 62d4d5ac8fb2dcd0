"""What a part of the proof is: a name, a share of the time, and a function from a context to figures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

# The parts of a lane run one after the other, the lanes beside each other, since much of it is waiting: power cuts and
# what else computes; servers under load whose calls fail or whose processes die; schedules and resources. "alone": when
# all others have ended, for what measures time.
Lane = Literal["disks", "servers", "beside", "alone"]


@dataclass
class Context:
    """``folder`` is the part's own and goes away with it; ``until`` is on the monotonic clock."""

    name: str
    folder: Path
    seed: int
    until: float

    @property
    def left(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def go_on(self) -> bool:
        return self.left > 0

    def fresh(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir()
        return path

    def say(self, words: str) -> None:
        print(f"  {self.name} [{self.left:5.0f} s left] {words}", flush=True)


@dataclass
class Result:
    """``figures``: label -> value, for the table. ``wrong``: one sentence for each violation."""

    figures: dict[str, object] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Part:
    """``share``: of its lane's time, beside those of the lane's other parts."""

    name: str
    share: float
    run: Callable[[Context], Result]
    unavailable: Callable[[], str] = lambda: ""
    lane: Lane = "disks"
