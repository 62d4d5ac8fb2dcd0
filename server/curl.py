"""Ready curl lines for a program: one for each method of each actor type, and one for each route of its front door."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

SAMPLE_NAME = "alice"

# The first pattern that fits the beginning of an annotation gives the sample.
_SAMPLES: tuple[tuple[str, Any], ...] = (
    (r"(builtins\.)?int\b", 1),
    (r"(builtins\.)?float\b|(numbers\.)?Number\b", 1.5),
    (r"(builtins\.)?bool\b", True),
    (r"(builtins\.)?str\b", "text"),
    (r"(builtins\.)?bytes\b", ""),
    (r"(decimal\.)?Decimal\b", "1.50"),
    (r"(datetime\.)?datetime\b", "2026-01-31T12:00:00Z"),
    (r"(datetime\.)?date\b", "2026-01-31"),
    (r"(datetime\.)?time\b", "12:00:00"),
    (r"(datetime\.)?timedelta\b", "PT1H"),
    (r"(uuid\.)?UUID\b", "8c2f3f0e-6b0b-4d55-9f0a-2f3c2f3f0e6b"),
    (r"(typing\.)?(list|List|tuple|Tuple|set|Set|frozenset|Sequence|Iterable)\b", []),
    (r"(typing\.)?(dict|Dict|Mapping)\b", {}),
    (r"None\b", None),
)


def curl_lines(program: Mapping[str, Any], url: str) -> Iterator[str]:
    """The lines for a server at ``url``: ``http://...`` or ``unix:PATH``. ``program``: see ``Program.describe``."""
    prefix, base = _base(url)
    for route in program.get("routes") or ():
        path = re.sub(r"\{[^}]*\}", SAMPLE_NAME, route["path"])
        yield _line(prefix, route["method"], base + path, route.get("body"), has_body=route.get("body") is not None)
    for type_ in program.get("types") or ():
        if not type_.get("exposed", True):
            continue
        for method in type_["methods"]:
            parameters = method["parameters"]
            chosen = [parameter for parameter in parameters if parameter["required"]] or parameters[:1]
            body = {parameter["name"]: sample(parameter.get("annotation")) for parameter in chosen}
            target = f"{base}/actors/{quote(type_['type'])}/{SAMPLE_NAME}/{quote(method['name'])}"
            yield _line(prefix, "POST", target, body, has_body=bool(body))


def sample(annotation: str | None) -> Any:
    """A JSON value that fits an annotation given as text; None where nothing better is known."""
    text = (annotation or "").strip().strip("'\"")
    literal = re.match(r"(?:typing\.)?Literal\[(.*?)[,\]]", text)
    if literal:
        return _json_or_text(literal[1].strip().replace("'", '"'))
    wrapped = re.match(r"(?:typing\.)?(?:Optional|Union|Annotated)\[(.*)\]$", text)
    if wrapped:
        return sample(wrapped[1])
    for pattern, value in _SAMPLES:
        if re.match(pattern, text):
            return value
    return "text" if not text or text.endswith("Any") else {}


def _base(url: str) -> tuple[list[str], str]:
    if url.startswith("unix:"):
        return ["curl", "--unix-socket", url.removeprefix("unix:")], "http://localhost"
    return ["curl"], url.rstrip("/")


def _line(prefix: list[str], method: str, url: str, body: Any, *, has_body: bool) -> str:
    words = list(prefix)
    if method != ("POST" if has_body else "GET"):
        words += ["-X", method]
    if has_body:
        words += ["--json", body if isinstance(body, str) else json.dumps(body)]
    return shlex.join([*words, url])


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
