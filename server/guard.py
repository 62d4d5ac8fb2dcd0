"""The supervisor's part in access control: where the tokens are, whether they changed, and what may listen where.

1. Once there was a token file, requests need tokens until the server ends: a file that vanishes or can't be understood
   changes nothing, and is an error in the log. At a start such a file is refused.
2. Workers learn nothing of it: neither where the file is, nor the service manager's credentials.
3. An address that other machines reach is listened on only while requests need tokens, or all clients certificates.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from actord.server import tokens
from actord.server.exits import CONFIG, ConfigError, StartError
from actord.server.sockets import is_loopback
from actord.settings import Settings

CREDENTIALS = "CREDENTIALS_DIRECTORY"
_FOR_FRONTS = ("token_file", "anonymous", "tls_cert", "tls_key", "tls_client_ca")

log = logging.getLogger("actord.access")


class Guard:
    """The tokens of a server. ``message`` is what fronts are told of them; None while nobody needs a token."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] | None = None) -> None:
        server = settings.server
        self.path, self._credential, self._stated = _place(settings, os.environ if environ is None else environ)
        self._anonymous = server.anonymous.split()
        self._tls = bool(server.tls_cert)
        self._certificates = bool(server.tls_client_ca) and server.tls_client == "required"
        self._seen: tuple[int, ...] | None = None
        self.message: dict[str, Any] | None = None

    def load(self) -> None:
        """The first look. Raises ``ConfigError``."""
        self._seen = self._look()
        found = self._read()
        if found is None and self._stated:
            raise ConfigError(
                f"There is no token file {self.path}. Make one with `actord token new --scope '*'`, or leave "
                "server.token_file out."
            )
        if found is not None or self._anonymous:
            self.message = self._told(found or tokens.TokenFile())

    def changed(self) -> bool:
        """Whether the file is another one than at the last look."""
        return self._look() != self._seen

    def reload(self) -> bool:
        """Look again: whether there is anything new to tell. Trouble is logged, and changes nothing."""
        self._seen = self._look()
        try:
            found = self._read()
        except ConfigError as error:
            log.error("%s The tokens stay as they were.", error)
            return False
        if found is None:
            if self.message is not None and self.message["tokens"]:
                log.error("The token file %s is gone. The tokens stay as they were until the server ends.", self.path)
            return False
        message = self._told(found)
        if message == self.message:
            return False
        if self.message is None:
            log.warning("there is a token file now: requests need a token from here on", extra={"file": self.path})
        log.info("tokens are read: %d", len(found.tokens), extra={"file": self.path})
        self.message = message
        return True

    def check_public(self, listeners: Sequence[socket.socket]) -> None:
        """Raises ``StartError`` if other machines could reach us without a token."""
        for sock in listeners:
            if sock.family == socket.AF_UNIX:
                continue
            host = sock.getsockname()[0]
            if ipaddress.ip_address(host).is_loopback:
                continue
            self._refuse_public(host)
            if not self._tls:
                log.warning("%s is reachable from other machines, without TLS: tokens travel as they are", host)

    def check_host(self, host: str) -> None:
        """The same before anything is made, for the address that the settings name."""
        if host and not is_loopback(host):
            self._refuse_public(host)

    def _refuse_public(self, host: str) -> None:
        asks = self.message is not None and (self.message["tokens"] or self._anonymous)
        if not (asks or self._certificates):
            raise StartError(
                f"The address {host} is reachable from other machines, and there is no token that they would need. "
                f"Make one with `actord token new --scope '*'` (its file: {self.path}), or listen on 127.0.0.1 or "
                "on a unix socket (--uds).",
                CONFIG,
            )

    def _told(self, found: tokens.TokenFile) -> dict[str, Any]:
        return {"tokens": msgspec.to_builtins(found.tokens), "anonymous": self._anonymous}

    def _read(self) -> tokens.TokenFile | None:
        try:
            return tokens.read(self.path, credential=self._credential)
        except FileNotFoundError:
            return None

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def token_path(settings: Settings, environ: Mapping[str, str] | None = None) -> str:
    """Where the tokens of a server are."""
    return _place(settings, os.environ if environ is None else environ)[0]


def _place(settings: Settings, environ: Mapping[str, str]) -> tuple[str, bool, bool]:
    """The path, whether it is a service manager's credential, and whether the file has to be there."""
    stated = settings.server.token_file
    folder = environ.get(CREDENTIALS)
    if stated:
        within = folder is not None and os.path.dirname(os.path.realpath(stated)) == os.path.realpath(folder)
        return stated, within, True
    if folder:
        path = os.path.join(folder, tokens.CREDENTIAL)
        if os.path.exists(path):
            return path, True, True
    return os.path.join(settings.server.data_dir, tokens.DEFAULT_NAME), False, False


def without_secrets(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as workers get them."""
    server = {key: value for key, value in settings["server"].items() if key not in _FOR_FRONTS}
    return {**settings, "server": server}


def environment_without_secrets() -> dict[str, str]:
    """The environment as workers get it."""
    hidden = {CREDENTIALS, *(f"ACTORD_SERVER_{key.upper()}" for key in _FOR_FRONTS)}
    return {key: value for key, value in os.environ.items() if key not in hidden}
