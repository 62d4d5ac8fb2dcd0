"""The parts that live in folders of their own: schedules, corpus, damage.

Such a folder has a module ``proof`` with ``prove(seed: int, seconds: float, say: Callable[[str], None])``, which
returns ``(figures, wrong)``: label -> value for the table, and a sentence for each violation. Where a folder has none
the part says so in the report instead of passing.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable

from tests.proof.part import Context, Part, Result


def _exists(folder: str) -> bool:
    try:
        return importlib.util.find_spec(f"tests.{folder}.proof") is not None
    except ModuleNotFoundError:
        return False


def _part(folder: str, share: float) -> Part:
    def run(context: Context) -> Result:
        prove: Callable[..., tuple[dict[str, object], list[str]]]
        prove = importlib.import_module(f"tests.{folder}.proof").prove
        figures, wrong = prove(context.seed, context.left, context.say)
        return Result(figures, wrong)

    return Part(folder, share, run, lambda: "" if _exists(folder) else f"tests/{folder}/proof.py is not there")


PARTS = [_part("simulation", 6), _part("corpus", 2), _part("fuzz", 4), _part("damage", 4)]
