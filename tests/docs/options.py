"""The tables of options on docs/configuration.md, out of configs/default.toml and the types of the settings.

python -m tests.docs.options         prints them
python -m tests.docs.options write   puts them between the page's marks
"""

from __future__ import annotations

import re
import sys
import types
from typing import Any, Literal, get_args, get_origin

import msgspec
from actord.server.config import SECTIONS
from actord.settings import Settings

from tests.docs.pages import ROOT, planned

PAGE = ROOT / "docs" / "configuration.md"
BEGIN, END = "<!-- options: out of configs/default.toml by tests/docs/options.py -->", "<!-- end of options -->"


def tables() -> str:
    """The Markdown of all sections."""
    manual = (ROOT / "configs" / "default.toml").read_text()
    parts = []
    for section, (attribute, keys) in SECTIONS.items():
        parts.append(f"### `[{section}]`\n\n| option | default | range | meaning |\n|---|---|---|---|")
        defaults = getattr(Settings(), attribute)
        body = manual.split(f"\n[{section}]\n", 1)[1]
        for key, kind in keys.items():
            if planned(key):
                continue
            comment = re.search(rf"((?:^# .*\n)+)^{key} = (.*)$", body, re.MULTILINE)
            assert comment is not None, f"{section}.{key} is not in configs/default.toml"
            words = " ".join(line.removeprefix("# ") for line in comment[1].splitlines()).replace("|", "\\|")
            assert msgspec.toml.decode(f"x = {comment[2]}")["x"] == getattr(defaults, key)
            parts.append(f"| `{key}` | `{comment[2]}` | {allowed(kind)} | {words} |")
        parts.append("")
    return "\n".join(parts)


def allowed(kind: Any) -> str:
    """The values that an option can have, in words."""
    if get_origin(kind) is Literal:
        return ", ".join(f'`"{value}"`' for value in get_args(kind))
    if kind is bool:
        return "`true`, `false`"
    if kind is str:
        return "text"
    assert not isinstance(kind, types.UnionType)
    meta = kind.__metadata__[0]
    low = f"{meta.ge:,} to " if meta.ge is not None else f"more than {meta.gt:g}, up to "
    return f"{low}{meta.le:,}"


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        page = PAGE.read_text()
        before, rest = page.split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{tables()}{END}{rest.split(END)[1]}")
    else:
        print(tables())
