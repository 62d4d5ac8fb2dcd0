"""A network of its own for a benchmark: the loopback interface and nothing else, so that no peer can reach a site.

Linux gives a process a new network namespace (``unshare``), as root, or inside a user namespace where those are
allowed. The benchmark then starts anew in it, with all that it starts.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence

ENTER = 'ip link set lo up && exec "$@"'


def is_loopback_only() -> bool:
    """Whether there is no other interface than the loopback."""
    return all(name == "lo" for _, name in socket.if_nameindex())


def enter(command: Sequence[str]) -> None:
    """Replace this process by ``command`` in a network of its own; returns where that can't be had."""
    way = isolation()
    if way:
        os.execvp(way[0], [*way, *command])


def isolation() -> list[str] | None:
    """The words to put before a command so that it runs in a network of its own; None: not possible here."""
    spaces = ["--net"] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps", "--net"]
    way = ["unshare", *spaces, "sh", "-c", ENTER, "sh"]
    try:
        tried = subprocess.run([*way, "true"], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if tried.returncode else way
