"""The curl lines that a server prints: sample values that fit, and words that a shell takes as they are."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from actord.server.curl import curl_lines, sample


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("int", 1),
        ("float", 1.5),
        ("int | float", 1),
        ("bool", True),
        ("str", "text"),
        ("str | None", "text"),
        ("list[int]", []),
        ("typing.List[int]", []),
        ("dict[str, int]", {}),
        ("Optional[int]", 1),
        ("typing.Optional[int]", 1),
        ("Literal['red', 'green']", "red"),
        ("typing.Literal[3, 4]", 3),
        ("Annotated[int, Meta(ge=3)]", 1),
        ("datetime.datetime", "2026-01-31T12:00:00Z"),
        ("date", "2026-01-31"),
        ("Decimal", "1.50"),
        ("Order", {}),
        ("", "text"),
        ("Any", "text"),
        (None, "text"),
        ("'int'", 1),
    ],
)
def test_samples_fit_their_annotations(annotation: str | None, value: Any) -> None:
    assert sample(annotation) == value
    assert type(sample(annotation)) is type(value)


def program(*parameters: tuple[str, str, bool], routes: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    described = [{"name": n, "annotation": a, "required": r} for n, a, r in parameters]
    method = {"name": "debit", "signature": "", "parameters": described, "doc": ""}
    types = [{"type": "Account", "binding": "ACCOUNT", "methods": [method]}]
    return {"name": "x", "front_door": True, "routes": routes or [], "types": types}


def test_required_parameters_are_in_the_body() -> None:
    lines = list(curl_lines(program(("amount", "int", True), ("note", "str", False)), "http://127.0.0.1:8000"))
    assert lines == ["""curl --json '{"amount": 1}' http://127.0.0.1:8000/actors/Account/alice/debit"""]


def test_a_method_without_parameters_is_a_bare_post() -> None:
    assert list(curl_lines(program(), "http://h:1/")) == ["curl -X POST http://h:1/actors/Account/alice/debit"]


def test_a_socket_file_is_named_to_curl() -> None:
    (line,) = curl_lines(program(), "unix:/run/a b/s")
    assert shlex.split(line) == [
        *("curl", "--unix-socket", "/run/a b/s", "-X", "POST", "http://localhost/actors/Account/alice/debit")
    ]


def test_routes_of_the_front_door_come_first() -> None:
    routes = [
        {"method": "GET", "path": "/accounts/{id}/balance", "body": None},
        {"method": "POST", "path": "/say", "body": {"text": "it's"}},
        {"method": "PUT", "path": "/say", "body": '{"a": 1}'},
        {"method": "DELETE", "path": "/say", "body": None},
    ]
    lines = [shlex.split(line) for line in curl_lines(program(routes=routes), "http://h")]
    assert lines[0] == ["curl", "http://h/accounts/alice/balance"]
    assert lines[1][:2] == ["curl", "--json"]
    assert json.loads(lines[1][2]) == {"text": "it's"}
    assert lines[2] == ["curl", "-X", "PUT", "--json", '{"a": 1}', "http://h/say"]
    assert lines[3] == ["curl", "-X", "DELETE", "http://h/say"]
