"""``actord dev``: workers are replaced when the program's files change. The front stays and holds the calls.

1. A program that does not load is reported and replaces nothing: a process of its own tries it first, and the workers
   go on with what they have until the next change.
2. One that loads there and not in a worker leaves that worker down, and its calls wait, until the next change.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from actord.server.program import PROJECT_FILE
from actord.settings import App
from watchfiles import Change, DefaultFilter, awatch

if TYPE_CHECKING:
    from actord.server.supervisor import Supervisor

log = logging.getLogger("actord.dev")

RECYCLE_SECONDS = 10.0
TRIAL = (sys.executable, "-P", "-B", "-m", "actord.shards.trial")
TRIAL_SECONDS = 30.0


class ProgramFilter(DefaultFilter):
    """What belongs to the program: not its data, caches, environments or version control."""

    def __init__(self, data_dir: str) -> None:
        super().__init__(ignore_paths=[os.path.realpath(data_dir)])

    def __call__(self, change: Change, path: str) -> bool:
        return super().__call__(change, os.path.realpath(path))


def _below(root: Path, path: str) -> str:
    return path.removeprefix(f"{root}/")


async def watch_program(supervisor: Supervisor) -> None:
    """Watch the program's root for as long as the server runs."""
    root = Path(supervisor.settings.app.root)
    changed = ProgramFilter(supervisor.settings.server.data_dir)
    async for changes in awatch(root, watch_filter=changed, recursive=True):
        files = sorted({_below(root, path) for _, path in changes})
        shown = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        if files == [PROJECT_FILE]:
            log.warning("%s changed: start the server again to apply it", shown)
            continue
        log.info("%s changed: the program is loaded anew", shown)
        wrong = await refusal(supervisor.settings.app)
        if wrong:
            log.error("%s; the program from before goes on until the next change", wrong.removesuffix("."))
            continue
        await supervisor.recycle_workers(RECYCLE_SECONDS)


async def refusal(app: App) -> str:
    """Why the program can't be loaded; empty when it can."""
    trial = await asyncio.create_subprocess_exec(
        *TRIAL, msgspec.json.encode(app).decode(), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    try:
        words, _ = await asyncio.wait_for(trial.communicate(), TRIAL_SECONDS)
    except TimeoutError:
        return f"{app.main} was not loaded within {TRIAL_SECONDS:g} s"
    finally:
        with suppress(ProcessLookupError):
            trial.kill()
    if words == b"loaded":
        return ""
    return words.decode(errors="replace") or f"{app.main} ended the process that loaded it"
