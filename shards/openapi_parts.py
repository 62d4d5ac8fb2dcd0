"""What is the same in every OpenAPI document: errors, headers, the system's own paths, and the words about them."""

from __future__ import annotations

from typing import Any

from actord.limits import KEY_CHARS, NAME_BYTES

Json = dict[str, Any]

DESCRIPTION = """\
Calls go to one instance of an actor type, by its name. An instance runs one call at a time, and answers when the writes
of the call are on the disk.

Arguments are a JSON object (by name), a JSON array (by position), or no body at all. With
`Content-Type: application/msgpack` body and answer are in the codec of actord instead, which carries every type that
can be stored.

An error is a problem document (RFC 9457). Its `applied` says whether the writes of the call were kept, and `retryable`
whether the same call may be sent again as it is. A method may also refuse with a status of its own, from 400 to 599,
and a `code`."""

_REFUSED = {
    "400": "The request or its arguments can't be read, or do not fit the method.",
    "404": "The server's program has no such type or method any more.",
    "413": "The body is too large.",
    "415": "The body is neither JSON nor the codec's MessagePack.",
    "422": "The Idempotency-Key was used for another request.",
    "4XX": "The method refused, with a status and a `code` of its own; or the server did.",
    "500": "The method raised an exception, or its writes could not be made durable: see `applied`.",
    "503": "The owner of the name is away, or has too many calls waiting.",
    "504": "The call ran over its time; its writes were discarded.",
    "507": "The disk is full; nothing was written.",
    "508": "The calls form a cycle.",
    "5XX": "The method refused, with a status and a `code` of its own.",
}
_KEY = f'^([!#-~]([ -~]{{0,{KEY_CHARS - 2}}}[!-~])?|"([ !#-\\[\\]-~]|\\\\["\\\\]){{1,{KEY_CHARS}}}")$'
_LATER = {"503", "507"}
CALL_RESPONSES: Json = {status: {"$ref": f"#/components/responses/{status}"} for status in _REFUSED}
SOCKET_RESPONSES: Json = {
    "101": {"description": "The socket is open; what it carries is the actor's own."},
    **{status: CALL_RESPONSES[status] for status in ("400", "404", "4XX", "503", "5XX")},
}

_PROBLEM: Json = {
    "title": "Problem",
    "description": "A problem document (RFC 9457).",
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "`urn:actord:error:` and the name."},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What happened, and what to do where that is known."},
        "name": {"type": "string", "description": "The error's class."},
        "retryable": {"type": "boolean", "description": "The same call may be sent again as it is."},
        "applied": {"enum": ["no", "yes", "unknown"], "description": "Whether the writes of the call were kept."},
        "retry_after": {"type": "number", "description": "Seconds after which another try makes sense."},
        "code": {"type": "string", "description": "A word for programs: the method refused."},
        "data": {"description": "What the method gave with it."},
        "error_type": {"type": "string", "description": "The class of the exception that the method raised."},
    },
    "required": ["type", "title", "status", "detail", "name", "retryable", "applied"],
}


def components(schemas: Json) -> Json:
    """The components of a document whose program has these schemas: theirs keep their names."""
    problem = "Problem"
    while problem in schemas:
        problem += "_"
    content = {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{problem}"}}}
    responses: Json = {status: {"description": words, "content": content} for status, words in _REFUSED.items()}
    for status in _LATER:
        responses[status]["headers"] = {
            "Retry-After": {
                "description": "Seconds, where they are known.",
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return {
        "schemas": {**schemas, problem: _PROBLEM},
        "responses": responses,
        "headers": {
            "Idempotent-Replayed": {
                "description": "`true`: this is the answer of an earlier call with the same key; nothing ran.",
                "schema": {"const": "true"},
            }
        },
        "parameters": {
            "name": {
                "name": "name",
                "in": "path",
                "required": True,
                "description": f"The instance: any text of 1 to {NAME_BYTES} bytes of UTF-8, percent-encoded.",
                "schema": {"type": "string", "minLength": 1, "maxLength": NAME_BYTES, "pattern": "^[^\\u0000]+$"},
            },
            "path": {
                "name": "path",
                "in": "path",
                "required": True,
                "description": "What the actor's `fetch` sees behind its `/`; slashes and a query may be in it.",
                "schema": {"type": "string"},
            },
            "Idempotency-Key": {
                "name": "Idempotency-Key",
                "in": "header",
                "description": (
                    f"A name for this call, of 1 to {KEY_CHARS} characters, bare or in double quotes. The same key and "
                    "the same request take effect once and get one answer."
                ),
                "schema": {"type": "string", "pattern": _KEY},
                "example": "8e03978e-40d5-43dd",
            },
            "Actord-Timeout": {
                "name": "Actord-Timeout",
                "in": "header",
                "description": "Seconds that the caller waits, the wait in queues included.",
                "schema": {"type": "string", "pattern": "^[0-9]{1,9}(\\.[0-9]{1,9})?$"},
                "example": "2.5",
            },
        },
    }


def _system(description: str, properties: Json, **more: Json) -> Json:
    answer = {"type": "object", "properties": properties, "required": list(properties)}
    ok = {"description": "The answer.", "content": {"application/json": {"schema": answer}}}
    return {"get": {"tags": ["system"], "summary": description, "responses": {"200": ok, **more}}}


SYSTEM_PATHS: Json = {
    "/-/health/live": _system("Whether the server's front answers.", {"status": {"const": "live"}}),
    "/-/health/ready": _system(
        "Whether all workers answer.",
        {"status": {"const": "ready"}},
        **{
            "503": {
                "description": "Not all of them do.",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": {"status": {"const": "not ready"}},
                            "required": ["status"],
                        }
                    }
                },
            }
        },
    ),
    "/-/version": _system(
        "Name and version of the server.", {"name": {"type": "string"}, "version": {"type": "string"}}
    ),
    "/-/map": _system(
        "Which worker holds which slots.",
        {
            "epoch": {"type": "string"},
            "hash": {"type": "object"},
            "shards": {"type": "integer"},
            "workers": {"type": "array", "items": {"type": "object"}},
            "ticket": {"type": ["string", "null"]},
        },
    ),
    "/-/openapi.json": _system(
        "This document.", {"openapi": {"type": "string"}}, **{"503": {"$ref": "#/components/responses/503"}}
    ),
}
