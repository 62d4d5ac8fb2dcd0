"""The system's own paths that the front answers without a worker: all but the program's description."""

from __future__ import annotations

import orjson

LIVE, READY, VERSION = "/-/health/live", "/-/health/ready", "/-/version"

# Only while the program has no front door: a program's own routes win.
ALIASES = {"/health": READY, "/health/live": LIVE, "/health/ready": READY}


def answer(target: str, *, ready: bool, version: str) -> tuple[int, bytes] | None:
    """Status and JSON body for GET on a system path or an alias of one; None when there is no such path."""
    path = target.partition("?")[0]
    path = ALIASES.get(path, path)
    if path == LIVE:
        return 200, b'{"status":"live"}'
    if path == READY:
        return (200, b'{"status":"ready"}') if ready else (503, b'{"status":"not ready"}')
    if path == VERSION:
        return 200, orjson.dumps({"name": "actord", "version": version})
    return None
