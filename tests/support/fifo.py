"""A named pipe over which an actor tells a test that a line of its code is reached."""

from __future__ import annotations

import os
import select
from pathlib import Path

from tests.support.server import PATIENCE_SECONDS


class Fifo:
    """Opened for reading from the start, so that the actor's side never blocks."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        # For writing too: without a writer, poll would return at once for ever after the first one has gone.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def wait(self) -> None:
        """Return when one more byte was written."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        assert poll.poll(PATIENCE_SECONDS * 1000), f"nothing came over {self.path}"
        assert os.read(self._fd, 1)

    def close(self) -> None:
        os.close(self._fd)
