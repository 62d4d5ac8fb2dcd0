"""Where a server is: ``http://HOST:PORT``, with a path in front of its own if need be, or ``unix:PATH``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "ACTORD_URL"


TOKEN_VARIABLE = "ACTORD_TOKEN"


class Address(NamedTuple):
    """``socket`` is the path of a unix socket, or empty. ``base`` precedes each target: empty, or ``/path``."""

    url: str
    tls: bool
    host: str
    port: int
    base: str
    socket: str


def address(url: str | None = None) -> Address:
    """The address that a URL names; without one that of ``ACTORD_URL``, or the server's default.

    Raises ``ValueError`` for anything that is neither ``http://HOST:PORT``, ``https://HOST:PORT`` nor ``unix:PATH``.
    """
    url = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("///") else path
        if path and "\0" not in path:
            return Address(url, False, "localhost", 80, "", path)
    else:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        plain = not (parts.query or parts.fragment or "@" in parts.netloc)
        if parts.scheme in ("http", "https") and parts.hostname and plain:
            tls = parts.scheme == "https"
            return Address(url, tls, parts.hostname, port or (443 if tls else 80), parts.path.rstrip("/"), "")
    raise ValueError(f"{url!r} is neither http://HOST:PORT nor unix:PATH.")


def authorization(token: str | None = None, headers: Iterable[str] = ()) -> dict[str, str]:
    """The header that shows a token: the one given, else that of ``ACTORD_TOKEN``; empty when there is none.

    ``headers``: names of those that are sent anyway; an Authorization among them wins over the variable.
    Raises ``ValueError`` for a token that is none, and for one beside such a header.
    """
    stated = any(name.lower() == "authorization" for name in headers)
    if token is None:
        token = "" if stated else os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return {}
    elif stated:
        raise ValueError("there is a token, and an Authorization header beside it: give one of them")
    if re.fullmatch(r"[A-Za-z0-9._~+/=-]+", token) is None:
        raise ValueError("a token is one word of letters, digits and ._~+/=-")  # not shown: it may be one after all
    return {"Authorization": f"Bearer {token}"}
