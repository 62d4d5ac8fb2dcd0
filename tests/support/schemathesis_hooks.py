"""Hooks of schemathesis (SCHEMATHESIS_HOOKS): for calls that have to succeed, what JSON schema can't say."""

from __future__ import annotations

import itertools
import re
from typing import Any

import schemathesis

BARE_KEY = re.compile(r"[!#-~](?:[ -~]{0,200}[!-~])?").fullmatch
SHORT = 1.0  # seconds

_numbers = itertools.count()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    body = _without_whole_floats(case.body)  # integers of JSON schema, floats here
    if repr(body) != repr(case.body):
        case.body = body
    headers = case.headers
    if headers is None:
        return
    key = headers.get("Idempotency-Key", "")
    if BARE_KEY(key):
        headers["Idempotency-Key"] = f"{next(_numbers)}.{key}"  # as generated it comes again with another request: 422
    try:
        seconds = float(headers.get("Actord-Timeout", SHORT))
    except ValueError:
        return  # a bad one must be refused
    if 0 <= seconds < SHORT:
        del headers["Actord-Timeout"]  # a call that waits for nothing is a 503


def _without_whole_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_whole_floats(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_without_whole_floats(member) for member in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
