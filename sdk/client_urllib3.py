"""The connections of the synchronous client: a pool of urllib3, shared by all threads.

1. At most ``connections`` at a time; who comes later waits, within the time of its call.
2. A connection that ended without an answer is never used again; over TCP the server is told at once that nobody waits
   any more (``ABANDON``). One that the server closed while it was idle is noticed before it is used.
3. ``NoAnswer.sent`` is False only when no connection was made.
"""

from __future__ import annotations

import socket
from ssl import SSLCertVerificationError
from threading import BoundedSemaphore
from time import monotonic

from actord.client_address import Address
from actord.client_calls import ABANDON, GRACE_SECONDS, Answer, Attempt, NoAnswer
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

CONNECT_SECONDS = 10.0


class Transport:
    """See the promises above. ``send`` may be called by any thread."""

    def __init__(self, address: Address, connections: int) -> None:
        self._base = address.base
        self._free = BoundedSemaphore(connections)
        if address.socket:
            self._pool: HTTPConnectionPool = _UnixPool(address.socket, connections)
        else:
            kind = HTTPSConnectionPool if address.tls else HTTPConnectionPool
            self._pool = kind(
                address.host,
                address.port,
                maxsize=connections,
                socket_options=[*HTTPConnection.default_socket_options, ABANDON],
            )
        self._closed = False

    def send(self, attempt: Attempt) -> Answer:
        """Raises ``NoAnswer``."""
        if self._closed:
            raise RuntimeError("the client is closed")
        end = monotonic() + attempt.seconds
        if not self._free.acquire(timeout=attempt.seconds):
            raise NoAnswer("all connections of the client were in use", sent=False)
        try:
            left = max(0.001, end - monotonic())
            response = self._pool.urlopen(
                attempt.method,
                self._base + attempt.target,
                body=attempt.body,
                headers=attempt.headers,
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=Timeout(connect=min(left, CONNECT_SECONDS), read=left + GRACE_SECONDS),
                decode_content=False,
            )
        except (NewConnectionError, ConnectTimeoutError) as error:
            raise NoAnswer(_reason(error), sent=False) from error
        except ReadTimeoutError as error:
            raise NoAnswer(f"none within {attempt.seconds:g} s", sent=True) from error
        except (HTTPError, OSError) as error:
            raise NoAnswer(_reason(error), sent=not isinstance(_cause(error), SSLCertVerificationError)) from error
        finally:
            self._free.release()
        return Answer(response.status, response.headers, response.data, lambda: list(response.headers.iteritems()))

    def close(self) -> None:
        self._closed = True
        self._pool.close()


class _UnixConnection(HTTPConnection):
    path = ""

    def _new_conn(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(self.timeout if isinstance(self.timeout, int | float) else None)
            made.connect(self.path)
        except OSError as error:
            made.close()
            raise NewConnectionError(self, f"{self.path}: {error.strerror or error}") from error
        return made


class _UnixPool(HTTPConnectionPool):
    def __init__(self, path: str, connections: int) -> None:
        super().__init__("localhost", maxsize=connections)
        self.ConnectionCls = type("_UnixConnection", (_UnixConnection,), {"path": path})


def _cause(error: BaseException) -> BaseException:
    """The innermost cause: urllib3 wraps it several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _reason(error: Exception) -> str:
    cause = _cause(error)
    return (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).rstrip(".")
