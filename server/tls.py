"""TLS for the listening TCP socket, by the standard library's context.

Promises:

1. TLS 1.2 or newer. What the handshake negotiates beyond that (ciphers, curves) is OpenSSL's default.
2. A handshake is part of the head's deadline, and counts as a connection while it lasts: slow ones are cut off.
3. Whoever speaks plain HTTP on this socket is told so in plain HTTP, and nothing of the request is looked at.
4. New files are used for new connections. Files that can't be used are an error in the log, and change nothing, as
   long as the front lives: one that starts needs good files.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import stat
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, NoReturn, cast

from actord.server.accepting import Acceptor
from actord.server.exits import ConfigError
from actord.settings import Server

if TYPE_CHECKING:
    from actord.server.connection import Connection
    from actord.server.httpserver import HttpServer

log = logging.getLogger("actord.tls")

HANDSHAKE = b"\x16"  # the first byte of a TLS record that begins one
SHUTDOWN_SECONDS = 2.0  # how long a client may take to answer the end of the session
PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Content-Length: 46\r\n\r\nThis port speaks TLS: ask for it with https://"
)


def context_of(server: Server) -> ssl.SSLContext | None:
    """The context that the settings ask for; None without ``tls_cert``. Raises ``ConfigError`` with what to do."""
    if not server.tls_cert:
        for option in ("tls_key", "tls_client_ca"):
            if getattr(server, option):
                raise ConfigError(f"server.{option} is set, but server.tls_cert is not: TLS needs a certificate.")
        return None
    key = server.tls_key or server.tls_cert
    _check_key_mode(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(server.tls_cert, key, password=lambda: _refuse_password(key))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"The key {key} is not that of the certificate {server.tls_cert}.") from None
        raise ConfigError(
            f"{server.tls_cert} and {key} are no certificate and key in PEM ({error.reason or error})."
        ) from None
    except OSError as error:
        raise ConfigError(f"The certificate {server.tls_cert} can't be read: {error.strerror}.") from None
    if server.tls_client_ca:
        try:
            context.load_verify_locations(server.tls_client_ca)
        except ssl.SSLError as error:
            raise ConfigError(f"{server.tls_client_ca} has no certificates in PEM ({error.reason or error}).") from None
        except OSError as error:
            raise ConfigError(f"{server.tls_client_ca} can't be read: {error.strerror}.") from None
        context.verify_mode = ssl.CERT_REQUIRED if server.tls_client == "required" else ssl.CERT_OPTIONAL
    return context


def _check_key_mode(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ConfigError(f"The key {path} can't be read: {error.strerror}.") from None
    # The group may read it: that is how certificates are shared, and how a service manager's credentials look.
    if stat.S_ISREG(mode) and mode & 0o007:
        raise ConfigError(f"The key {path} can be read by everybody. Keep it to yourself: chmod 600 {path}")


def _refuse_password(path: str) -> NoReturn:
    raise ConfigError(f"The key {path} is encrypted, and nobody is there to type its password: decrypt the file.")


class TlsAcceptor(Acceptor):
    """Takes connections of one socket, and lets those go on that have shaken hands."""

    def __init__(self, sock: socket.socket, server: HttpServer, kind: Callable[[HttpServer], Connection]) -> None:
        self._server = server
        self._kind = kind
        super().__init__(sock, lambda: cast(asyncio.Protocol, kind(server)))

    async def _open(self, made: socket.socket) -> None:
        server = self._server
        context = server.tls
        assert context is not None
        began = monotonic()
        patience = server.settings.http.head_timeout
        try:
            peer = made.getpeername()[0]
        except OSError:  # it has gone already
            made.close()
            return
        if not server.begin_handshake(peer):
            made.close()
            return
        connection: Connection | None = None

        def factory() -> asyncio.Protocol:
            nonlocal connection
            connection = self._kind(server)
            connection.begin_at(began)
            return cast(asyncio.Protocol, connection)

        try:
            async with asyncio.timeout(patience):
                first = await self._first_byte(made)
            if first != HANDSHAKE:
                _say_plain(made, first)
                return
            await self._loop.connect_accepted_socket(
                factory,
                made,
                ssl=context,
                ssl_handshake_timeout=max(0.001, patience - (monotonic() - began)),
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
            if server.draining and connection is not None:
                connection.drain()
        except (OSError, TimeoutError) as error:  # ssl.SSLError is one; what clients do is their business
            log.debug("no handshake with %s: %s", peer, error)
            made.close()
        except asyncio.CancelledError:
            made.close()
            raise
        finally:
            server.end_handshake(peer)

    async def _first_byte(self, made: socket.socket) -> bytes:
        """Wait for it, and leave it where it is."""
        made.setblocking(False)
        readable: asyncio.Future[None] = self._loop.create_future()
        fd = made.fileno()
        self._loop.add_reader(fd, _told, readable)
        try:
            await readable
        finally:
            self._loop.remove_reader(fd)
        return made.recv(1, socket.MSG_PEEK)


def _told(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


def _say_plain(made: socket.socket, first: bytes) -> None:
    with contextlib.suppress(OSError):
        if first:
            made.send(PLAIN)
            made.shutdown(socket.SHUT_WR)
            made.recv(65_536)  # bytes that are not read would have the kernel throw the answer away
    made.close()
