"""Exit codes by sysexits.h, and the error that carries one to the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from actord.errors import DataDirError, DataDirLocked, StorageError

OK = 0
FAILED = 1
USAGE = 2
UNAVAILABLE = 69  # the server can't be reached
TEMPORARY = 75  # somebody else holds it now: a port, a data directory
CONFIG = 78  # it can't work as configured


class StartError(Exception):
    """The command can't go on. ``str()`` is a message for a person that says what to do; ``exit`` the exit code."""

    def __init__(self, message: str, exit: int = CONFIG) -> None:
        super().__init__(message)
        self.exit = exit


class ConfigError(StartError):
    """The configuration is wrong; the message names where and which key."""


@contextmanager
def refusals() -> Iterator[None]:
    """What the store's modules refuse, and files that can't be read or written, as one line and an exit code."""
    try:
        yield
    except DataDirLocked as error:
        raise StartError(error.detail, TEMPORARY) from None
    except DataDirError as error:
        raise StartError(error.detail, CONFIG) from None
    except StorageError as error:
        raise StartError(error.detail, FAILED) from None
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise StartError(f"It failed: {error.strerror or error}{where}.", FAILED) from None
