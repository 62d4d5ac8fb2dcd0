"""All parts of the proof, and how one of them is run."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

from tests.proof import elsewhere, faults
from tests.proof.part import Context, Part, Result

PARTS: list[Part] = [*faults.PARTS, *elsewhere.PARTS]


def run_part(name: str, seed: int, seconds: float) -> Result:
    """Its result; a part that breaks is a violation of its own. Runs in a process that other parts do not hold up."""
    logging.getLogger("actord").addHandler(logging.NullHandler())  # what damaged states of a disk let the store say
    part = next(part for part in PARTS if part.name == name)
    begun = time.monotonic()
    if reason := part.unavailable():
        result = Result(skipped=reason)
    else:
        with tempfile.TemporaryDirectory(prefix=f"proof-{part.name}-") as folder:
            context = Context(part.name, Path(folder), seed, begun + seconds)
            try:
                result = part.run(context)
            except Exception as error:
                context.say(f"broke: {error!r}")
                result = Result(wrong=[f"the part itself broke: {error!r}"])
    result.seconds = time.monotonic() - begun
    return result
