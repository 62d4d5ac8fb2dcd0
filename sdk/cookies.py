"""Cookies, as requests carry and responses set them."""

from __future__ import annotations

import http.cookies
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal

SameSite = Literal["lax", "strict", "none"]


def parse_cookies(header: str) -> dict[str, str]:
    """The cookies of a ``Cookie`` header by name, as browsers send them: what is no pair is left out, the last wins."""
    cookies: dict[str, str] = {}
    for part in header.split(";"):
        name, equals, value = part.partition("=")
        name, value = name.strip(), value.strip()
        if equals and name:
            cookies[name] = http.cookies._unquote(value)
    return cookies


def cookie_header(
    name: str,
    value: str,
    *,
    max_age: int | None,
    expires: datetime | None,
    path: str | None,
    domain: str | None,
    secure: bool,
    httponly: bool,
    samesite: SameSite | None,
) -> str:
    """The value of a ``Set-Cookie`` header. Raises ``ValueError`` for what can't be in one."""
    try:
        cookie: http.cookies.SimpleCookie = http.cookies.SimpleCookie()
        cookie[name] = value
    except http.cookies.CookieError as error:
        raise ValueError(f"no cookie: {error}") from None
    morsel = cookie[name]
    if max_age is not None:
        morsel["max-age"] = str(max_age)
    if expires is not None:
        morsel["expires"] = format_datetime(expires.astimezone(UTC), usegmt=True)
    if path is not None:
        morsel["path"] = path
    if domain is not None:
        morsel["domain"] = domain
    morsel["secure"] = secure
    morsel["httponly"] = httponly
    if samesite is not None:
        if samesite not in ("lax", "strict", "none"):
            raise ValueError(f'samesite is "lax", "strict" or "none", not {samesite!r}')
        morsel["samesite"] = samesite
    return morsel.OutputString()
