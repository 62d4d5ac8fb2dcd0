"""The connections of the asynchronous client: a session of aiohttp, in one event loop.

1. At most ``connections`` at a time; who comes later waits, within the time of its call.
2. A connection that ended without an answer, or whose call was cancelled, is never used again. Over TCP the server is
   told at once that nobody waits any more (``ABANDON``), and does not begin what has not begun.
3. ``NoAnswer.sent`` is False only when no connection was made.
"""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
from actord.client_address import Address
from actord.client_calls import ABANDON, GRACE_SECONDS, Answer, Attempt, NoAnswer
from yarl import URL

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 30.0  # less than the server's `http.keep_alive`: its end must not cross a call


class Transport:
    """See the promises above. It belongs to the event loop in which ``send`` is first called."""

    def __init__(self, address: Address, connections: int) -> None:
        self._address = address
        self._connections = connections
        host = f"[{address.host}]" if ":" in address.host else address.host
        self._base = f"{'https' if address.tls else 'http'}://{host}:{address.port}{address.base}"
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def send(self, attempt: Attempt) -> Answer:
        """Raises ``NoAnswer``."""
        session = self._session or self._open()
        seconds = attempt.seconds
        try:
            async with session.request(
                attempt.method,
                URL(self._base + attempt.target, encoded=True),  # as it is: nothing decoded, no dots removed
                data=attempt.body,
                headers=attempt.headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=seconds + GRACE_SECONDS, connect=seconds, sock_connect=min(seconds, CONNECT_SECONDS)
                ),
            ) as response:
                body = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NoAnswer(_reason(error), sent=False) from error
        except TimeoutError as error:
            raise NoAnswer(f"none within {seconds:g} s", sent=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(_reason(error), sent=True) from error
        return Answer(
            response.status,
            response.headers,
            body,
            lambda: [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers],
        )

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise RuntimeError("the client is closed")
        connector: aiohttp.BaseConnector
        if self._address.socket:
            connector = aiohttp.UnixConnector(
                self._address.socket, limit=self._connections, keepalive_timeout=IDLE_SECONDS
            )
        else:
            connector = aiohttp.TCPConnector(
                limit=self._connections, keepalive_timeout=IDLE_SECONDS, socket_factory=_socket
            )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        return self._session

    async def close(self) -> None:
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _socket(info: Any) -> socket.socket:
    made = socket.socket(*info[:3])
    made.setsockopt(*ABANDON)
    return made


def _reason(error: Exception) -> str:
    inner = getattr(error, "os_error", error)
    return (getattr(inner, "strerror", None) or str(inner) or type(inner).__name__).rstrip(".")
