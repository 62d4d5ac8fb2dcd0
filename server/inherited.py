"""Listening sockets that a service manager has opened for us: socket activation, ``sd_listen_fds(3)``.

1. They are taken only when they are meant for this process (``LISTEN_PID``), and then they are all that it listens on:
   host, port and uds of the settings say nothing any more.
2. The variables leave the environment and the descriptors are closed in children, except those that hand them on.
3. What is no listening stream socket of TCP or a unix socket is refused with words: it can't be served.
4. The manager keeps its own copy: while the server is away, clients wait in the queue of the socket instead of being
   refused, and the files of unix sockets are the manager's to remove.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import NamedTuple

from actord.server.exits import CONFIG, StartError

FIRST_FD = 3
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class Inherited(NamedTuple):
    """``name`` is the socket unit's ``FileDescriptorName=``, by default the unit's own name."""

    name: str
    sock: socket.socket

    @property
    def host(self) -> str:
        """The address, or nothing for a unix socket."""
        return "" if self.sock.family == socket.AF_UNIX else str(self.sock.getsockname()[0])

    def url(self, scheme: str = "http") -> str:
        address = self.sock.getsockname()
        if self.sock.family == socket.AF_UNIX:
            path = address if isinstance(address, str) else "@" + os.fsdecode(address[1:])
            return f"unix:{path}"
        return tcp_url(scheme, *address[:2])


def tcp_url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def take(environ: MutableMapping[str, str]) -> list[Inherited]:
    """The sockets that were handed to this process, in their order; none when there is no service manager.

    Raises ``StartError`` for what can't be served. Call it once: the variables are gone afterwards.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    environ.pop("LISTEN_PIDFDID", None)
    if pid != str(os.getpid()):
        return []
    if not count.isdigit():
        raise StartError(f"LISTEN_FDS is {count!r}, which is no number of sockets.", CONFIG)
    found = []
    for index in range(int(count)):
        name = names[index] if index < len(names) else ""
        found.append(Inherited(name or "unknown", _listening(FIRST_FD + index, name)))
    return found


def _listening(fd: int, name: str) -> socket.socket:
    what = f"The descriptor {fd} ({name or 'without a name'}) that the service manager handed over"
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise StartError(f"{what} is no socket: {error.strerror}.", CONFIG) from None
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM:
        raise StartError(f"{what} is no stream socket: write ListenStream= into the socket unit.", CONFIG)
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise StartError(f"{what} does not listen: write Accept=no into the socket unit.", CONFIG)
    sock.setblocking(False)
    return sock
