"""Annotations to JSON schemas, by the library that decodes with them (``msgspec``).

Schemas of one document are made at once, so that two classes of one name become two components. A place that takes a
schema is handed out before it is made, and filled in by ``resolve``.
"""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
from actord.errors import CodecError
from actord.json import dumps
from actord.shards.arguments import known

Json = dict[str, Any]

_REFERENCE = "#/components/schemas/{name}"


class Schemas:
    """The schemas of one document."""

    def __init__(self) -> None:
        self._annotations: list[Any] = []
        self._places: list[Json] = []

    def parameter(self, annotation: Any, default: Any) -> Json:
        """The schema of a parameter, with its default where that has a JSON."""
        if known(annotation) is not annotation:  # the binder takes any value then
            return _noted(annotation)
        place = self.result(annotation)
        if default is not inspect.Parameter.empty:
            try:
                text = dumps(default)
                msgspec.json.decode(text, type=annotation)
                place["default"] = msgspec.json.decode(text)
            except (CodecError, msgspec.DecodeError):
                pass  # as in `amount: int = None`: it is no value that a caller may give
        return place

    def result(self, annotation: Any) -> Json:
        """The schema of what a method returns."""
        try:
            _schemas([annotation])
        except Exception:  # whatever the library has against it, and whatever the user's own class raises
            return _noted(annotation)
        place: Json = {}
        self._annotations.append(annotation)
        self._places.append(place)
        return place

    def resolve(self) -> Json:
        """Fill in the schemas; returns the components they refer to."""
        schemas, components = _schemas(self._annotations)
        for place, schema in zip(self._places, schemas, strict=True):
            for key, value in schema.items():
                place.setdefault(key, value)
        return components


def _schemas(annotations: list[Any]) -> tuple[tuple[Json, ...], Json]:
    return msgspec.json.schema_components(annotations, schema_hook=_noted, ref_template=_REFERENCE)


def _noted(annotation: Any) -> Json:
    """Any value, and why: for classes that have no schema."""
    return {"description": f"`{inspect.formatannotation(annotation)}` has no JSON schema."}
