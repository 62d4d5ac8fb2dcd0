"""The site of the pages: its navigation, the page of limits, the reference; and what its hooks promise.

`make docs` builds it, strictly, and `.ci/run` does that; here is what needs no build.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import actord
import pytest
import yaml
from actord import client, client_stubs, limits
from actord.server.config import SECTIONS
from actord.settings import Settings

from tests.docs import pages
from tests.docs.pages import ROOT

DOCS = ROOT / "docs"
# Options with numbers that bound nothing.
NO_LIMITS = {
    "server.port",
    "server.fronts",
    "server.workers",
    "storage.shards",
    "sockets.compress_over",
    "log.slow_call",
    "tracing.sample",
}
UNITS = {"": 1, "KiB": 1024, "MiB": 1024 * 1024, "GiB": 1024**3}


def leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [leaf for entry in (nav if isinstance(nav, list) else nav.values()) for leaf in leaves(entry)]


# -- navigation


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    listed = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted({*listed})
    existing = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert set(listed) - {"readme.md", "architecture.md", "changelog.md"} == existing


def test_the_site_is_built_before_a_change_lands() -> None:
    assert "make docs" in (ROOT / ".ci" / "run").read_text().splitlines()
    assert "--strict" in re.search(r"^docs:.*\n(?:\t.*\n)+", (ROOT / "Makefile").read_text(), re.MULTILINE)[0]  # type: ignore[index]


def test_the_site_fetches_nothing() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert config["theme"]["font"] is False
    assert not [value for value in config.get("extra_css", []) + config.get("extra_javascript", []) if "//" in value]


# -- limits


def limit_rows() -> list[list[str]]:
    return pages.rows((DOCS / "limits.md").read_text())


def number(text: str) -> float:
    found = re.match(r"(?:1 to )?([\d,.]+)(?: ([KMG]iB)\b)?", text)
    assert found is not None, text
    return float(found[1].replace(",", "")) * UNITS[found[2] or ""]


def test_every_limit_is_on_the_page_with_its_value() -> None:
    listed = {row[1].strip("`"): number(row[2]) for row in limit_rows()}
    assert len(listed) == len(limit_rows())
    constants = {
        name: value
        for name, value in vars(limits).items()
        if name.isupper() and isinstance(value, int) and name not in ("KIB", "MIB")
    }
    options = {}
    for section, (attribute, keys) in SECTIONS.items():
        values = getattr(Settings(), attribute)
        for key in keys:
            value, name = getattr(values, key), f"{section}.{key}"
            if isinstance(value, int | float) and not isinstance(value, bool) and name not in NO_LIMITS:
                options[name] = value
    assert {*listed} == {*constants, *options}
    assert listed == {name: pytest.approx(value) for name, value in (constants | options).items()}


def test_the_limits_outside_of_the_tables_are_those_of_the_code() -> None:
    from actord.codec import DEPTH_MAX
    from actord.server.sockets import UNIX_PATH_BYTES
    from actord.server.tokens import TOKENS_MAX
    from actord.shards import sql_rules
    from actord.slots import SLOTS

    text = " ".join(pages.prose(DOCS / "limits.md").split())
    assert f"nested {DEPTH_MAX} deep" in text
    assert f"at most {UNIX_PATH_BYTES} bytes" in text
    assert f"at most {TOKENS_MAX:,} tokens" in text
    assert f"at most {sql_rules.LIMITS[sql_rules.apsw.SQLITE_LIMIT_COLUMN]} columns" in text
    assert f"at most {SLOTS:,} shards" in text


# -- the reference


def test_every_public_name_is_in_the_reference() -> None:
    named = re.findall(r"^<!-- api: ([\w.]+) -->$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert len(named) == len({*named})
    last = {name.rpartition(".")[2] for name in named}
    assert last >= {*actord.__all__, *client.__all__} - {"__version__"}
    for name in named:
        home, _, attribute = name.rpartition(".")
        module = actord if home == "actord" else importlib.import_module(home)
        assert getattr(module, attribute).__doc__, f"{name} has no docstring"


@pytest.mark.parametrize("name", sorted({*actord.__all__, *client.__all__} - {"__version__"}))
def test_a_public_name_stands_in_the_words_of_the_reference_too(name: str) -> None:
    assert f"`{name}`" in pages.prose(DOCS / "api.md"), "GitHub does not show the comments"


def test_what_the_clients_hand_out_is_in_the_reference() -> None:
    text = (DOCS / "api.md").read_text()
    for name in ("ActorStub", "AsyncActorStub"):
        assert getattr(client, name) is getattr(client_stubs, name)
        assert f"<!-- api: actord.client_stubs.{name} -->" in text


# -- the hooks


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    pytest.importorskip("pymdownx", reason="the extra `docs` is not installed")
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["site_hooks"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.html").write_text(text)
    return folder


def test_links_of_a_built_site_that_lead_somewhere_are_fine(hooks: ModuleType, tmp_path: Path) -> None:
    site = built(
        tmp_path,
        a='<h1 id="top"><a href="b.html#x">',
        b='<p id="x"><a href="#x"><a href="a.html"><a href="http://e.x/">',
    )
    assert hooks.check(site) == []


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ('<a href="gone.html">', "not there"),
        ('<a href="a.html#gone">', "no such anchor"),
        ('<a href="#gone">', "no such anchor"),
        ('<script src="https://cdn.example/x.js">', "fetches"),
        ('<link rel="stylesheet" href="https://fonts.example/x.css">', "fetches"),
        ('<img src="gone.png">', "not there"),
    ],
)
def test_a_link_of_a_built_site_that_leads_nowhere_is_told(
    hooks: ModuleType, tmp_path: Path, html: str, said: str
) -> None:
    [line] = hooks.check(built(tmp_path, a=html))
    assert said in line


def test_links_that_leave_docs_lead_to_pages_of_the_site(hooks: ModuleType) -> None:
    def changed(page: str, link: str) -> str:
        return hooks._LINK.sub(lambda match: hooks._link(page, match), f"[x]({link})")

    assert changed("service.md", "../configs/actord.service") == "[x](source/configs/actord.service.md)"
    assert changed("examples/cart.md", "../../examples/cart.py") == "[x](../source/examples/cart.py.md)"
    assert changed("index.md", "../ARCHITECTURE.md#layers") == "[x](architecture.md#layers)"
    assert changed("when-not-to-use.md", "../README.md#status") == "[x](readme.md#status)"
    assert changed("examples/cart.md", "../guarantees.md#x") == "[x](../guarantees.md#x)"
    assert changed("index.md", "https://example.org") == "[x](https://example.org)"
