"""``actord dev``: workers are replaced when the program's files change. The front stays and holds the calls."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from actord.server.program import PROJECT_FILE
from watchfiles import Change, DefaultFilter, awatch

if TYPE_CHECKING:
    from actord.server.supervisor import Supervisor

log = logging.getLogger("actord.dev")

RECYCLE_SECONDS = 10.0


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
        await supervisor.recycle_workers(RECYCLE_SECONDS)
