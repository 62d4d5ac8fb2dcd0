"""The server's part in the trash: once an hour, what has been in it for longer than ``storage.trash_age`` goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from actord.storage import trash

log = logging.getLogger("actord.supervisor")

EVERY_SECONDS = 3600.0


class TrashKeeper:
    """Works until the event loop ends. ``age`` says the seconds for which things are kept, 0 for ever."""

    def __init__(self, data_dir: str, age: Callable[[], float]) -> None:
        self._data_dir = data_dir
        self._age = age

    def sweep(self) -> None:
        age = self._age()
        if age and (count := trash.expire(self._data_dir, age)):
            log.info("%d removed actors were in the trash for long enough, and are gone for good", count)
        asyncio.get_running_loop().call_later(EVERY_SECONDS, self.sweep)
