"""Requests to a server, for ``actord call`` and ``actord tail``: over TCP or a unix socket."""

from __future__ import annotations

import http.client
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import typer
from actord.client_address import TOKEN_VARIABLE, address, authorization
from actord.server.exits import CONFIG, UNAVAILABLE, StartError


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def post(url: str, path: str, body: bytes, timeout: float, token_file: Path | None = None) -> tuple[int, bytes]:
    """The status and the body of the answer. Raises ``StartError`` when there is none in ``timeout`` seconds."""
    headers = {"Content-Type": "application/json", "Accept": "application/json", **authorized(token_file)}
    with opened("POST", url, path, timeout, body, headers) as response:
        return response.status, response.read()


def authorized(token_file: Path | None) -> dict[str, str]:
    """The header that shows a token: that of the file, else of ``ACTORD_TOKEN``. Raises ``StartError``."""
    try:
        return authorization(None if token_file is None else _token_of(token_file))
    except ValueError as error:
        raise StartError(f"{token_file or TOKEN_VARIABLE}: {error}.", CONFIG) from None


def _token_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise StartError(f"{path} can be read by others. Keep it to yourself: chmod 600 {path}", CONFIG)
            return file.read(4096).decode("ascii", "replace").strip()
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}.", CONFIG) from None


@contextmanager
def opened(
    method: str,
    url: str,
    path: str,
    timeout: float,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """The answer, whose body is read in the block. Raises ``StartError``, also for what breaks off while it is read."""
    connection, base = _connection(url, timeout)
    try:
        connection.request(method, base + path, body, dict(headers or {}))
        yield connection.getresponse()
    except TimeoutError:
        raise StartError(f"No answer from {url} within {timeout:g} s (--timeout).", UNAVAILABLE) from None
    except (OSError, http.client.HTTPException) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise StartError(
            f"No server answers at {url}: {reason}. Start one with `actord serve`, or name its address with --url or "
            "ACTORD_URL.",
            UNAVAILABLE,
        ) from None
    finally:
        connection.close()


def _connection(url: str, timeout: float) -> tuple[http.client.HTTPConnection, str]:
    try:
        server = address(url)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url") from None
    if server.socket:
        return _UnixConnection(server.socket, timeout), ""
    kind = http.client.HTTPSConnection if server.tls else http.client.HTTPConnection
    return kind(server.host, server.port, timeout=timeout), server.base
