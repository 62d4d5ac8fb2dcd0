"""What a server says when it is ready: words for a person, or one record for a collector; and its address as data."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from actord.server.curl import curl_lines
from actord.settings import Settings

log = logging.getLogger("actord.supervisor")


def announce(settings: Settings, program: Mapping[str, Any], urls: Sequence[str], data_dir: str, workers: int) -> None:
    """Say that the server is ready.

    Standard output gets the address, one line for each, unless it is a terminal: `URL=$(actord serve ... | head -1)`
    and tests read it there. Standard error gets the words.
    """
    name = program.get("name") or settings.app.name or settings.app.main
    if settings.log.format == "json":
        fields = {"program": name, "urls": list(urls), "data_dir": data_dir, "workers": workers}
        log.info("listening", extra=fields)
    else:
        sys.stderr.write(words(name, program, urls, data_dir, workers))
        sys.stderr.flush()
    if not _is_terminal(1):
        with contextlib.suppress(OSError):
            os.write(1, "".join(f"{url}\n" for url in urls).encode())


def report(settings: Settings, message: str) -> None:
    """Say why the server did not start."""
    if settings.log.format == "json":
        log.error("%s", message)
    else:
        print(f"actord: {message}", file=sys.stderr, flush=True)


def words(name: str, program: Mapping[str, Any], urls: Sequence[str], data_dir: str, workers: int) -> str:
    """The text for people: where it listens, where the data is, and a curl line for each route."""
    count = "1 worker" if workers == 1 else f"{workers} workers"
    lines = [f"actord serves {name} with {count}; data in {data_dir}"]
    lines += [f"listening on {url}" for url in urls]
    if urls:
        lines += ["", *(f"  {line}" for line in curl_lines(program, urls[0])), ""]
    return "\n".join(lines) + "\n"


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return True
