"""The program as an OpenAPI document: valid, complete, and the same as what the binder takes."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypedDict

import openapi_spec_validator
import pytest
from actord import Request, Response, StatefulActor
from actord.settings import App
from actord.shards.openapi import document
from actord.shards.registry import ActorType, FrontDoor, Program, load_program
from msgspec import Meta

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@dataclass
class Line:
    """One line of an order."""

    item: str
    count: Annotated[int, Meta(ge=1)] = 1


class Problem(TypedDict):
    """A class of the user's that has the name of one of ours."""

    lines: list[Line]


class Foreign:
    pass


class Shop(StatefulActor):
    """Sells.

    On two lines.
    """

    async def nothing(self) -> None:
        pass

    async def bare(self, a, b=2):  # type: ignore[no-untyped-def]
        pass

    async def order(self, lines: list[Line], *, due: datetime | None = None) -> Problem:
        """Take an order.

        It is not cancelled.
        """
        return Problem(lines=lines)

    async def keyword_only(self, *, a: int) -> str:
        return ""

    async def position_only(self, a: int, /, b: int = 0) -> str:
        return ""

    async def any_number(self, *several: int, **named: str) -> list[int]:
        return []

    async def defaults(
        self,
        a: int = None,  # type: ignore[assignment]  # noqa: RUF013
        b: Decimal = Decimal("1.5"),
        c: Any = object,
        d: float = 1e999,
    ) -> None:
        pass

    async def foreign(self, thing: Foreign, either: "Nowhere" = None) -> list[Foreign]:  # type: ignore[name-defined]  # noqa: F821, UP037
        return []

    async def old(self) -> None: ...

    old.__deprecated__ = "use another"  # type: ignore[attr-defined]


class Routed(StatefulActor):
    async def fetch(self, request: Request) -> Response:
        """Answers.

        GET /items/{item}?limit=10
        POST /items {"item": "x"}
        GET /{name}
        """
        return Response()


class Open(StatefulActor):
    async def fetch(self, request: Request) -> Response:
        """Whatever is asked."""
        return Response()


class Room(StatefulActor):
    async def web_socket(self, ws: Any, request: Request) -> None:
        """Come in."""


async def door(request: Request, env: Any) -> Response:
    """The front door.

    GET /shops/{shop}/orders?open=1
    POST /shops/{shop}/orders {"lines": []}
    DELETE /shops/{shop {bad
    GET /broken/{shop
    GET /-/health/live
    POST /actors/Shop/x/order {}
    PUT /text {not json}
    """
    return Response()


def program(*classes: type[StatefulActor], front_door: FrontDoor | None = None, module: Any = None) -> Program:
    return Program("test", [ActorType(cls, cls.__name__.upper()) for cls in classes], front_door, module)


@functools.cache
def described(*classes: type[StatefulActor], **more: Any) -> Any:
    """The document as a client reads it, after a public validator has accepted it."""
    found = json.loads(document(program(*classes, **more)))
    openapi_spec_validator.validate(found)
    return found


def call(method: str) -> Any:
    return described(Shop)["paths"][f"/actors/Shop/{{name}}/{method}"]["post"]


def forms(method: str) -> Any:
    body = call(method)["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    return body["required"], {form["title"]: form for form in schema.get("anyOf", [schema])}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_has_a_valid_document(path: Path) -> None:
    loaded = load_program(App(root=str(path.parent), main=path.name))
    found = json.loads(document(loaded))
    openapi_spec_validator.validate(found)
    named = {verb["operationId"] for item in found["paths"].values() for verb in item.values() if "operationId" in verb}
    assert named >= {f"{type_.name}.{method}" for type_ in loaded.types.values() for method in type_.methods}


def test_arguments_are_an_object_or_an_array() -> None:
    required, form = forms("bare")
    assert required
    assert form["by name"] == {
        "title": "by name",
        "type": "object",
        "properties": {"a": {}, "b": {"default": 2}},
        "additionalProperties": False,
        "required": ["a"],
    }
    assert form["by position"] == {
        "title": "by position",
        "type": "array",
        "prefixItems": [{}, {"default": 2}],
        "minItems": 1,
        "items": False,
    }


def test_a_method_without_parameters_takes_no_body() -> None:
    assert "requestBody" not in call("nothing")
    assert call("nothing")["responses"]["200"]["content"] == {"application/json": {"schema": {"type": "null"}}}


def test_the_forms_follow_the_kinds_of_parameters() -> None:
    assert set(forms("keyword_only")[1]) == {"by name"}
    assert set(forms("position_only")[1]) == {"by position"}
    required, form = forms("any_number")
    assert not required
    assert form["by name"]["additionalProperties"] == {"type": "string"}
    assert form["by position"] == {"title": "by position", "type": "array", "minItems": 0, "items": {"type": "integer"}}


def test_classes_become_components_with_their_constraints() -> None:
    _, form = forms("order")
    assert form["by name"]["properties"]["lines"] == {"type": "array", "items": {"$ref": "#/components/schemas/Line"}}
    assert form["by name"]["required"] == ["lines"]
    line = described(Shop)["components"]["schemas"]["Line"]
    assert line["description"] == "One line of an order."
    assert line["properties"]["count"] == {"type": "integer", "minimum": 1, "default": 1}
    assert line["required"] == ["item"]


def test_a_class_of_the_users_keeps_its_name() -> None:
    schemas = described(Shop)["components"]["schemas"]
    assert schemas["Problem"]["description"] == "A class of the user's that has the name of one of ours."
    assert "applied" in schemas["Problem_"]["properties"]
    refused = described(Shop)["components"]["responses"]["400"]["content"]["application/problem+json"]
    assert refused["schema"] == {"$ref": "#/components/schemas/Problem_"}


def test_two_classes_of_one_name_are_two_components() -> None:
    def other() -> type[Any]:
        @dataclass
        class Line:
            weight: float

        return Line

    Line2 = other()

    class Both(StatefulActor):
        async def take(self, a: Line, b: Any) -> None: ...

    Both.take.__annotations__["b"] = Line2
    found = described(Both)
    by_position = found["paths"]["/actors/Both/{name}/take"]["post"]["requestBody"]["content"]["application/json"]
    a, b = (
        found["components"]["schemas"][place["$ref"].rpartition("/")[2]]
        for place in by_position["schema"]["anyOf"][1]["prefixItems"]
    )
    assert (set(a["properties"]), set(b["properties"])) == ({"item", "count"}, {"weight"})


def test_a_default_is_told_where_it_is_a_value_that_may_be_sent() -> None:
    _, form = forms("defaults")
    found = {name: schema.get("default", "none") for name, schema in form["by name"]["properties"].items()}
    assert found == {"a": "none", "b": "1.5", "c": "none", "d": "none"}
    assert "required" not in form["by name"]


def test_what_has_no_schema_is_any_value_with_a_note() -> None:
    _, form = forms("foreign")
    note = "`tests.shards.test_openapi.Foreign` has no JSON schema."
    assert form["by name"]["properties"]["thing"]["description"] == note
    assert form["by name"]["properties"]["either"] == {"default": None}
    result = call("foreign")["responses"]["200"]["content"]["application/json"]["schema"]
    assert result == {"type": "array", "items": {"description": note}}


def test_a_class_that_breaks_the_library_spoils_nothing_else() -> None:
    class Hostile(type):
        def __instancecheck__(cls, instance: Any) -> bool:
            raise RuntimeError("never")

        @property
        def __annotations__(cls) -> Any:
            raise RuntimeError("never")

    class Trap(metaclass=Hostile):
        pass

    class Holder(StatefulActor):
        async def take(self, trap: Any, count: int) -> Any: ...

    Holder.take.__annotations__.update({"trap": Trap, "return": Annotated[int, Meta(min_length=1)]})
    take = described(Holder)["paths"]["/actors/Holder/{name}/take"]["post"]
    by_name = take["requestBody"]["content"]["application/json"]["schema"]["anyOf"][0]
    assert by_name["properties"]["count"] == {"type": "integer"}
    assert set(take["responses"]["200"]["content"]["application/json"]["schema"]) == {"description"}


def test_docstrings_are_descriptions() -> None:
    order = call("order")
    assert (order["summary"], order["description"]) == ("Take an order.", "Take an order.\n\nIt is not cancelled.")
    assert described(Shop)["tags"][0] == {"name": "Shop", "description": "Sells.\n\nOn two lines."}
    assert call("old")["deprecated"] is True
    assert "deprecated" not in order


def test_the_document_carries_the_words_and_the_version_of_the_programs_module() -> None:
    module = ModuleType("shop", "What the shop does.")
    module.__version__ = "4.2"  # type: ignore[attr-defined]
    info = described(Shop, module=module)["info"]
    assert (info["title"], info["version"]) == ("test", "4.2")
    assert info["description"].startswith("What the shop does.\n\n")
    assert described(Shop)["info"]["version"] == "0"


def test_calls_name_their_headers_and_every_error_is_a_problem() -> None:
    found = described(Shop)
    parameters = found["components"]["parameters"]
    item = found["paths"]["/actors/Shop/{name}/order"]
    named = [parameters[one["$ref"].rpartition("/")[2]] for one in item["parameters"] + item["post"]["parameters"]]
    assert [(one["in"], one["name"]) for one in named] == [
        ("path", "name"),
        ("header", "Idempotency-Key"),
        ("header", "Actord-Timeout"),
    ]
    refused = set(item["post"]["responses"]) - {"200"}
    assert refused >= {"400", "404", "413", "415", "422", "4XX", "500", "503", "504", "507", "508", "5XX"}
    for status in refused:
        assert set(found["components"]["responses"][status]["content"]) == {"application/problem+json"}


def test_a_type_that_answers_http_is_described_by_the_routes_of_its_docstring() -> None:
    paths = described(Routed)["paths"]
    get = paths["/actors/Routed/{name}/fetch/items/{item}"]["get"]
    assert [one.get("name", "") for one in get["parameters"]] == ["", "", "item", "limit"]
    assert paths["/actors/Routed/{name}/fetch/items"]["post"]["requestBody"] == {
        "content": {"application/json": {"example": {"item": "x"}}}
    }
    assert "/actors/Routed/{name}/fetch/{name}" not in paths


def test_a_type_that_answers_http_without_routes_answers_any_path() -> None:
    item = described(Open)["paths"]["/actors/Open/{name}/fetch/{path}"]
    assert {"get", "post", "put", "patch", "delete"} <= set(item)
    assert item["get"]["description"] == "Whatever is asked."
    assert not [path for path in described(Shop)["paths"] if "fetch" in path]


def test_a_type_that_takes_sockets_has_a_path_for_them() -> None:
    get = described(Room)["paths"]["/actors/Room/{name}"]["get"]
    assert (get["operationId"], get["summary"]) == ("Room.web_socket", "Come in.")
    assert "101" in get["responses"]
    assert "/actors/Shop/{name}" not in described(Shop)["paths"]


def test_the_front_doors_routes_are_those_of_its_docstring() -> None:
    found = described(Shop, front_door=door)
    orders = found["paths"]["/shops/{shop}/orders"]
    assert set(orders) == {"get", "post"}
    assert [(one["in"], one["name"]) for one in orders["get"]["parameters"]] == [("path", "shop"), ("query", "open")]
    assert orders["post"]["requestBody"]["content"]["application/json"]["example"] == {"lines": []}
    assert found["paths"]["/text"]["put"]["requestBody"] == {"content": {"application/json": {}}}
    assert not [path for path in found["paths"] if "broken" in path or "{bad" in path]
    assert found["paths"]["/-/health/live"]["get"]["tags"] == ["system"]
    assert "/actors/Shop/x/order" not in found["paths"]


def test_the_document_is_the_same_in_every_worker() -> None:
    code = (
        "from actord.settings import App; from actord.shards.registry import load_program\n"
        "from actord.shards.openapi import document\n"
        f"import hashlib; p = load_program(App(root={str(ROOT / 'examples')!r}, main='inventory.py'))\n"
        "print(hashlib.sha256(document(p)).hexdigest())"
    )
    found = {
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_a_worker_that_is_not_asked_does_not_pay() -> None:
    code = "import sys, actord.shards.worker; print([m for m in sys.modules if 'openapi' in m])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
