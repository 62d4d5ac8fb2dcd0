"""Everything that a server listens on: opened once, before its children, and kept until it drains.

1. What the service manager has opened is all that clients reach; else it is what the settings say.
2. Scrapers have an address of their own, if the settings give them one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import MutableMapping

from actord.server import inherited, sockets, system
from actord.server.exits import CONFIG, StartError
from actord.settings import Server, Settings

log = logging.getLogger("actord.supervisor")


class Listeners:
    """``clients`` and ``scrapers`` are the sockets, ``urls`` where clients find the first of them. What has to be
    closed or removed at the end is put into ``cleanup``. ``handed``: the service manager has opened them.

    ``settings`` are corrected where the manager has decided. Raises ``StartError``.
    """

    def __init__(
        self, settings: Settings, cleanup: contextlib.ExitStack, environ: MutableMapping[str, str] = os.environ
    ) -> None:
        self._given: tuple[str, int] | None = None
        self._cleanup = cleanup
        self.clients: list[socket.socket] = []
        self.scrapers: list[socket.socket] = []
        self.urls: list[str] = []
        handed = inherited.take(environ)
        self.handed = bool(handed)
        if handed:
            self._take_over(handed, _scheme(settings.server))
            self.correct(settings)
        else:
            self._open_tcp(settings.server)
            self._open_uds(settings.server)
        if not self.clients:
            raise StartError("Nothing to listen on: give server.host or server.uds a value.", CONFIG)
        self._open_for_scrapers(settings.metrics.listen)

    def correct(self, settings: Settings) -> Settings:
        """Settings that were read, with the addresses that clients really find."""
        if self._given is not None:
            settings.server.host, settings.server.port = self._given
            settings.server.uds = ""
        return settings

    def close_clients(self) -> None:
        """Else the kernel lets in who comes now, and nobody answers."""
        for sock in self.clients:
            sock.close()

    def _take_over(self, handed: list[inherited.Inherited], scheme: str) -> None:
        self._given = "", 0
        for one in handed:
            self.clients.append(self._cleanup.enter_context(one.sock))
            self.urls.append(one.url(scheme))
            if one.host and not self._given[0]:
                self._given = one.sock.getsockname()[:2]
        log.info(
            "the service manager has opened %s: host, port and uds of the settings are not used", " ".join(self.urls)
        )

    def _open_tcp(self, server: Server) -> None:
        if server.host:
            sock = self._cleanup.enter_context(sockets.open_tcp(server.host, server.port))
            host, port = sock.getsockname()[:2]
            self.urls.append(inherited.tcp_url(_scheme(server), host, port))
            self.clients.append(sock)

    def _open_uds(self, server: Server) -> None:
        if server.uds:
            path = os.path.abspath(server.uds)
            # In this order at the end: close, then remove the file that nobody listens on any more.
            sock = sockets.open_uds(path)
            self._cleanup.callback(sockets.remove_uds, path)
            self.clients.append(self._cleanup.enter_context(sock))
            self.urls.append(f"unix:{path}")

    def _open_for_scrapers(self, listen: str) -> None:
        if listen:
            host, _, port = listen.rpartition(":")
            sock = self._cleanup.enter_context(sockets.open_tcp(host.strip("[]"), int(port), option="metrics.listen"))
            log.info("metrics on http://%s:%d%s", host, sock.getsockname()[1], system.METRICS)
            self.scrapers.append(sock)


def _scheme(server: Server) -> str:
    return "https" if server.tls_cert else "http"
