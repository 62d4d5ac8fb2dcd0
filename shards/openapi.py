"""The program as an OpenAPI 3.1 document: ``GET /-/openapi.json`` and ``actord openapi``.

1. It says what a call is checked against: parameters and schemas come from the annotations that the binder decodes
   with, by the same library. What that library has no schema for is ``{}`` with a note, never left out.
2. It is made when it is first asked for: neither the start of a worker nor its memory pays for it.
3. The same program gives the same document, byte for byte, in every worker.
4. Paths that the system answers itself are the system's, whatever a docstring lists.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

import actord
import msgspec
from actord.actor import StatefulActor
from actord.shards.arguments import annotations_of
from actord.shards.openapi_parts import CALL_RESPONSES, DESCRIPTION, SOCKET_RESPONSES, SYSTEM_PATHS, components
from actord.shards.openapi_schemas import Schemas

if TYPE_CHECKING:
    from actord.shards.registry import ActorType, Method, Program, Route

Json = dict[str, Any]

_VERBS = ("get", "post", "put", "patch", "delete")
_TEMPLATE = re.compile(r"\{(\w+)\}")
_NAME = {"$ref": "#/components/parameters/name"}
_CALL_HEADERS = [
    {"$ref": "#/components/parameters/Idempotency-Key"},
    {"$ref": "#/components/parameters/Actord-Timeout"},
]
_FETCH_HEADERS = _CALL_HEADERS[1:]
_ANY_ANSWER = {"default": {"description": "What the program answers; the runtime's own errors are problem documents."}}


def document(program: Program) -> bytes:
    """The whole document as JSON."""
    return msgspec.json.encode(describe(program))


def describe(program: Program) -> Json:
    """The whole document."""
    schemas = Schemas()
    paths: Json = {}
    types = sorted((t for t in program.types.values() if t.exposed), key=lambda type_: type_.name)
    for type_ in types:
        for method in type_.methods.values():
            paths[f"/actors/{type_.name}/{{name}}/{quote(method.name)}"] = {
                "parameters": [_NAME],
                "post": _call(type_, method, schemas),
            }
        if type_.cls.fetch is not StatefulActor.fetch:
            _add_fetch(paths, type_)
        handler = getattr(type_.cls, "web_socket", None)
        if handler is not getattr(StatefulActor, "web_socket", None):
            paths[f"/actors/{type_.name}/{{name}}"] = {"parameters": [_NAME], "get": _socket(type_, handler.__doc__)}
    for route in program.routes():
        if not route.path.startswith(("/-/", "/actors/")):
            _add_route(paths, route, "", [], {"tags": ["front door"]})
    module = program.module
    about = inspect.getdoc(module) if module is not None else None
    found = schemas.resolve()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": program.name,
            "version": str(getattr(module, "__version__", "0")),
            "description": f"{about}\n\n{DESCRIPTION}" if about else DESCRIPTION,
        },
        "servers": [{"url": "/"}],
        "tags": list(_tags(types, program)),
        "paths": paths | SYSTEM_PATHS,
        "components": components(found),
    }


def _tags(types: Iterable[ActorType], program: Program) -> Iterator[Json]:
    for type_ in types:
        yield _with_words({"name": type_.name}, type_.cls.__dict__.get("__doc__"), summary=False)
    if program.front_door is not None:
        yield _with_words({"name": "front door"}, program.front_door.__doc__, summary=False)
    yield {"name": "system", "description": f"Answered by actord {actord.__version__} itself."}


def _with_words(part: Json, doc: str | None, *, summary: bool = True) -> Json:
    """``part`` with a docstring: its first paragraph as the summary, all of it as the description."""
    text = inspect.cleandoc(doc) if doc else ""
    if text and summary:
        part["summary"] = " ".join(text.partition("\n\n")[0].split())
    if text:
        part["description"] = text
    return part


# -- calls


def _call(type_: ActorType, method: Method, schemas: Schemas) -> Json:
    annotations = annotations_of(method.function)
    operation: Json = {"tags": [type_.name], "operationId": f"{type_.name}.{method.name}", "parameters": _CALL_HEADERS}
    _with_words(operation, method.function.__doc__)
    if getattr(method.function, "__deprecated__", None) is not None:
        operation["deprecated"] = True
    body = _body(method.binder.signature, annotations, schemas)
    if body is not None:
        operation["requestBody"] = body
    result = schemas.result(annotations["return"]) if "return" in annotations else {}
    operation["responses"] = {
        "200": {
            "description": "What the method returned; its writes are on the disk.",
            "headers": {"Idempotent-Replayed": {"$ref": "#/components/headers/Idempotent-Replayed"}},
            "content": {"application/json": {"schema": result}},
        },
        **CALL_RESPONSES,
    }
    return operation


def _body(signature: inspect.Signature, annotations: dict[str, Any], schemas: Schemas) -> Json | None:
    """The arguments by name and by position, where the signature allows it; None when there are none."""
    parameters = list(signature.parameters.values())
    if not parameters:
        return None
    properties: Json = {}
    positions: list[Json] = []
    needed: list[str] = []
    at_least = 0
    by_name = by_position = True
    more_names: Any = False
    more_positions: Any = False
    for p in parameters:
        schema = schemas.parameter(annotations.get(p.name, Any), p.default)
        required = p.default is p.empty
        if p.kind is p.VAR_POSITIONAL:
            more_positions = schema
        elif p.kind is p.VAR_KEYWORD:
            more_names = schema
        else:
            if p.kind is p.POSITIONAL_ONLY:
                by_name = by_name and not required
            else:
                properties[p.name] = schema
                needed += [p.name] * required
            if p.kind is p.KEYWORD_ONLY:
                by_position = by_position and not required
            else:
                positions.append(schema)
                at_least += required
    forms: list[Json] = []
    if by_name:
        forms.append(
            {"title": "by name", "type": "object", "properties": properties, "additionalProperties": more_names}
        )
        if needed:
            forms[-1]["required"] = needed
    if by_position:
        forms.append({"title": "by position", "type": "array", "minItems": at_least, "items": more_positions})
        if positions:
            forms[-1]["prefixItems"] = positions
    if not (needed or at_least):
        forms.append({"title": "no arguments", "type": "null"})
    schema = forms[0] if len(forms) == 1 else {"anyOf": forms}
    return {"required": bool(needed or at_least), "content": {"application/json": {"schema": schema}}}


# -- sockets, fetch and the front door


def _socket(type_: ActorType, doc: str | None) -> Json:
    operation: Json = {"tags": [type_.name], "operationId": f"{type_.name}.web_socket", "responses": SOCKET_RESPONSES}
    return _with_words(operation, doc or "A WebSocket: `Upgrade: websocket` is needed.")


def _add_fetch(paths: Json, type_: ActorType) -> None:
    """The routes that the docstring of ``fetch`` lists; when it lists none, any path with any verb."""
    prefix = f"/actors/{type_.name}/{{name}}/fetch"
    routes = type_.routes()
    for route in routes:
        _add_route(paths, route, prefix, [_NAME, *_FETCH_HEADERS], {"tags": [type_.name]})
    if not routes:
        parameters = [_NAME, {"$ref": "#/components/parameters/path"}, *_FETCH_HEADERS]
        item: Json = {"parameters": parameters}
        paths[f"{prefix}/{{path}}"] = item
        for verb in _VERBS:
            operation = {"tags": [type_.name], "operationId": f"{type_.name}.fetch.{verb}", "responses": _ANY_ANSWER}
            item[verb] = _with_words(operation, type_.cls.fetch.__doc__)


def _add_route(paths: Json, route: Route, prefix: str, common: list[Json], operation: Json) -> None:
    """One line ``POST /path/{name}?query {"a": 1}`` of a docstring. What is no path template is left out."""
    path, _, query = route.path.partition("?")
    names = _TEMPLATE.findall(path)
    if set("{}") & set(_TEMPLATE.sub("", path)) or len(set(names)) < len(names) or "#" in path:
        return
    if "name" in names and prefix:
        return
    item = paths.setdefault(prefix + path, {})
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]
    given = dict(parse_qsl(query, keep_blank_values=True))
    parameters += [
        {"name": name, "in": "query", "schema": {"type": "string"}, "example": value} for name, value in given.items()
    ]
    if common or parameters:
        operation["parameters"] = [*common, *parameters]
    if route.body:
        try:
            content = {"application/json": {"example": msgspec.json.decode(route.body)}}
        except msgspec.DecodeError:
            content = {"application/json": {}}
        operation["requestBody"] = {"content": content}
    item.setdefault(route.method.lower(), operation | {"responses": _ANY_ANSWER})
