"""A method's signature, compiled once into decoders that check and convert a call's arguments in one pass.

A JSON object is matched to parameters by name, a JSON array by position, an empty body means no arguments. Annotated
parameters are converted by msgspec (dataclasses, TypedDict, Literal, datetime, Decimal, UUID, enums and so on);
parameters without annotation, or with one that msgspec does not know, take any JSON value. Limits (``msgspec.Meta``)
that it can't check are refused when the program is loaded: they would check nothing, and nobody would notice.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import inspect
import re
import types
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_type_hints

import msgspec
from actord import codec
from actord.errors import ActorArgumentError, ActordError, BadRequest
from msgspec import UNSET, Meta, UnsetType

_astuple = msgspec.structs.astuple

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
NOTHING: Arguments = ((), {})

_EXACT = (bytes, bytearray, dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID)
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `([^`]*)`$")
_MISSING_FIELD = re.compile(r"Object missing required field `([^`]*)`$")
_TOO_SHORT = re.compile(r"Expected `array` of at least length \d+, got (\d+)$")
_TOO_LONG = re.compile(r"Expected `array` of at most length (\d+)$")
_LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")


class AnnotationError(TypeError):
    """A parameter's annotation has limits that can't be checked."""


class Binder:
    """Turns the body of a call into arguments for one function."""

    __slots__ = (
        "_by_position",
        "_from_array",
        "_from_object",
        "_names",
        "_object",
        "_plain",
        "_required",
        "_variadic",
        "_varkw",
        "_varpos",
        "label",
        "signature",
    )

    def __init__(self, function: Callable[..., Any], label: str) -> None:
        self.label = label
        try:
            signature = inspect.signature(function, eval_str=True)  # readable, also where annotations are strings
        except Exception:
            signature = inspect.signature(function)
        parameters = list(signature.parameters.values())[1:]  # without self
        self.signature = signature.replace(parameters=parameters)
        hints = annotations_of(function)
        self._varpos = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self._varkw = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        self._names = tuple(p.name for p in named)
        self._required = [p.name for p in named if p.default is p.empty]
        # A signature that msgspec can describe whole: everything may be given by position or by name.
        self._plain = not (self._varpos or self._varkw) and all(p.kind is p.POSITIONAL_OR_KEYWORD for p in named)
        fields: list[Any] = []
        for p in named:
            annotation = _checked(hints.get(p.name, Any), label, p.name)
            fields.append((p.name, annotation) if p.default is p.empty else (p.name, annotation | UnsetType, UNSET))
        self._object = msgspec.defstruct(
            "Arguments", fields, forbid_unknown_fields=not self._varkw, kw_only=True, gc=False
        )
        self._from_object = msgspec.json.Decoder(self._object).decode
        if self._plain:
            self._by_position = msgspec.defstruct(
                "Arguments", fields, array_like=True, forbid_unknown_fields=True, gc=False
            )
            self._from_array = msgspec.json.Decoder(self._by_position).decode
        # What *args and **kwargs are annotated with, by the parameter's name: list[T] and dict[str, T].
        self._variadic: dict[str, Any] = {}
        for p in parameters:
            if p not in named and p.name in hints:
                each: Any = _checked(hints[p.name], label, p.name)
                several: Any = list[each] if p.kind is p.VAR_POSITIONAL else dict[str, each]
                self._variadic[p.name] = several

    def from_json(self, body: bytes) -> Arguments:
        """Arguments from a JSON body. ``ActorArgumentError`` names the parameter; ``BadRequest`` if it is no JSON."""
        if not body:
            if self._required:
                raise self._missing(self._required[0])
            return NOTHING
        try:
            if self._plain:
                # the first byte that is no white space decides: a program sends it first
                if body[0] == 0x7B:
                    return self._taken(self._from_object(body))
                if body[0] == 0x5B:
                    return self._taken(self._from_array(body))
        except msgspec.ValidationError as error:
            raise self._explain(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"The body is not valid JSON: {error}") from None
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # Also a number out of range: what it was meant for is not known here, so no parameter is named.
            raise BadRequest(f"The body is not valid JSON: {error}") from None
        return self.from_value(value, exact=())

    def from_msgpack(self, body: bytes) -> Arguments:
        """The same from a body in the codec's form, which carries every storable type."""
        return self.from_value(codec.decode(body)) if body else self.from_json(b"")

    def from_pair(self, body: bytes) -> Arguments:
        """The same from the codec's ``[positional, keywords]``, as a Python caller gives them: a list and a dict."""
        pair = codec.decode(body)
        if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not list or type(pair[1]) is not dict:
            raise BadRequest("The body must be a list of two: positional arguments in a list, the others in a dict.")
        return self.from_call(*pair)

    def from_value(self, value: Any, exact: tuple[type, ...] = _EXACT) -> Arguments:
        """The same from a decoded body: a mapping, a sequence or None. ``exact`` are the types that it has itself."""
        if isinstance(value, dict):
            return self.from_call((), value, exact)
        if isinstance(value, list | tuple):
            return self.from_call(value, {}, exact)
        if value is None:
            return self.from_json(b"")
        raise BadRequest(
            "The body must be a JSON object (keyword arguments), a JSON array (positional arguments) or empty."
        )

    def from_call(self, args: Sequence[Any], kwargs: Mapping[str, Any], exact: tuple[type, ...] = _EXACT) -> Arguments:
        """Arguments as a Python caller gives them."""
        if self._plain and exact is _EXACT and not (args and kwargs):
            try:
                if kwargs:
                    return self._taken(msgspec.convert(kwargs, self._object, builtin_types=_EXACT))
                return self._taken(msgspec.convert(args, self._by_position, builtin_types=_EXACT))
            except msgspec.ValidationError:
                pass  # explained below
        for name in kwargs:
            if not isinstance(name, str):
                raise ActorArgumentError(f"{self.label}: a keyword must be a string, not {name!r}.")
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ActorArgumentError(f"{self.label}: {error}. Its signature is {self.signature}.") from None
        given = {name: bound.arguments[name] for name in self._names if name in bound.arguments}
        try:
            converted = msgspec.convert(given, self._object, builtin_types=exact, str_keys=not exact)
        except msgspec.ValidationError as error:
            raise self._explain(error) from None
        for name in given:
            bound.arguments[name] = getattr(converted, name)
        for name, kind in self._variadic.items():
            if more := bound.arguments.get(name):
                try:
                    more = msgspec.convert(more, kind, builtin_types=exact, str_keys=not exact)
                except msgspec.ValidationError as error:
                    raise ActorArgumentError(f"{self.label}: the argument {name!r} does not fit: {error}.") from None
                bound.arguments[name] = tuple(more) if isinstance(more, list) else more
        return bound.args, bound.kwargs

    def _taken(self, struct: msgspec.Struct) -> Arguments:
        values = _astuple(struct)
        if UNSET in values:  # parameters with defaults that were not given
            by_name = dict(zip(self._names, values, strict=True))
            return (), {name: value for name, value in by_name.items() if value is not UNSET}
        return values, {}

    def _missing(self, name: str) -> ActorArgumentError:
        return ActorArgumentError(f"{self.label}: the argument {name!r} is missing. The signature is {self.signature}.")

    def _explain(self, error: Exception) -> ActordError:
        text = str(error)
        if found := _MISSING_FIELD.search(text):
            return self._missing(found[1])
        if found := _TOO_SHORT.search(text):
            return self._missing(self._names[int(found[1])])
        if found := _TOO_LONG.search(text):
            return ActorArgumentError(f"{self.label}: too many arguments, at most {found[1]}: {self.signature}.")
        if found := _UNKNOWN_FIELD.search(text):
            return ActorArgumentError(
                f"{self.label}: there is no parameter {found[1]!r}. The signature is {self.signature}."
            )
        if found := _PATH.search(text):
            what, path = text[: found.start()], found[1]
            if path.startswith("["):  # by position: say the parameter's name
                index, _, rest = path[1:].partition("]")
                known = index.isdecimal() and int(index) < len(self._names)
                path = self._names[int(index)] + rest if known else path
            name = re.split(r"[.\[]", path, maxsplit=1)[0]
            at = "" if name == path else f" (at {path})"
            return ActorArgumentError(f"{self.label}: the argument {name!r} does not fit{at}: {what}.")
        return ActorArgumentError(f"{self.label}: {text}.")


def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, resolved one by one: one that can't be (a name known to type checkers only) checks nothing."""
    function = inspect.unwrap(function)
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        with contextlib.suppress(Exception):
            hints |= get_type_hints(alone, getattr(function, "__globals__", {}), include_extras=True)
    return hints


def known(annotation: Any) -> Any:
    """The annotation, or Any when msgspec can't decode into it."""
    try:
        msgspec.json.Decoder(annotation | UnsetType)
    except (TypeError, ValueError, NameError, AttributeError):
        return Any
    return annotation


def _checked(annotation: Any, label: str, parameter: str) -> Any:
    """What ``known`` makes of it. Raises ``AnnotationError`` when limits would be lost."""
    found = known(annotation)
    if found is annotation or not _limited(annotation):
        return found
    raise AnnotationError(
        f"{label}: the limits of the parameter {parameter!r} don't fit its type, {annotation}, so nothing would check "
        "them. A union takes them at its members: Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)]."
    )


def _limited(annotation: Any) -> bool:
    return any(
        any(getattr(part, limit) is not None for limit in _LIMITS) if isinstance(part, Meta) else _limited(part)
        for part in get_args(annotation)
    )
