"""How many cases a property is tried with: half of what it asks for in every run, ten times as many with
``ACTORD_TEST_LONG=1``.

``make proof`` runs the long version; each run draws other cases.
"""

from __future__ import annotations

import os

LONG = bool(os.environ.get("ACTORD_TEST_LONG"))


def cases(count: int) -> int:
    return 10 * count if LONG else count // 2
