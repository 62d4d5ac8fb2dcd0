"""Listening sockets that several fronts share: each takes one connection at a time, so that all get some.

The event loop's own server takes every connection that waits as soon as it is woken: of 64 that came at once, one of
two fronts got all. Here a front takes one, goes through its loop, and takes the next, while the others do the same: who
has much to do takes less. A socket for each front (SO_REUSEPORT) would spread by chance instead, leave the connections
of a front that died waiting for its successor, and could not be had from a service manager or for a unix socket.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

log = logging.getLogger("actord.front")

# What ends the connection that was about to be taken, and not more than that.
_GONE = (errno.ECONNABORTED, errno.EPROTO, errno.EPERM)
# Out of descriptors or memory: connections wait in the kernel meanwhile.
PAUSE_SECONDS = 0.1


class Acceptor:
    """Takes connections of one socket. ``close`` ends that, not what was taken."""

    def __init__(self, sock: socket.socket, factory: Callable[[], asyncio.Protocol]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._factory = factory
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _accept(self) -> None:
        try:
            made, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError):
            return  # another front was quicker
        except OSError as error:
            if error.errno not in _GONE:
                log.error("connections can't be taken: %s", error.strerror)
                self._loop.remove_reader(self._socket.fileno())
                self._loop.call_later(PAUSE_SECONDS, self._again)
            return
        task = self._loop.create_task(self._open(made))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _again(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    async def _open(self, made: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, made)
        except OSError:  # it has gone already
            made.close()
