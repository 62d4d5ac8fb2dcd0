"""Every example has a page and a test, and the index lists them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import pages
from tests.examples.running import EXAMPLES

DOCS = pages.ROOT / "docs" / "examples"
FILES = {path.stem: path for path in EXAMPLES.glob("*.py")}
FILES |= {path.parent.name: path for path in EXAMPLES.glob("*/main.py")}
NAMES = sorted(FILES)
LIVE = {path.parent.name: path.parent / f"{path.parent.name}.py" for path in EXAMPLES.glob("*/page.html")}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "account"])  # the README's own
def test_an_example_has_a_page_a_test_and_a_line_in_the_index(name: str) -> None:
    assert (DOCS / f"{name}.md").is_file()
    assert (pages.ROOT / "tests" / "examples" / f"test_{name}.py").is_file()
    assert f"{name}.md" in pages.links(DOCS / "index.md")


@pytest.mark.parametrize("name", sorted(LIVE))
def test_an_example_with_a_page_of_html_has_a_line_and_a_section_on_theirs(name: str) -> None:
    assert f"../../examples/{name}" in pages.links(DOCS / "live.md")
    assert "live.md" in pages.links(DOCS / "index.md")


@pytest.mark.parametrize("path", [*FILES.values(), *LIVE.values()], ids=lambda path: path.stem)
def test_an_example_says_how_it_is_served(path: Path) -> None:
    assert f"    actord serve examples/{path.relative_to(EXAMPLES)}\n" in path.read_text()


def test_the_index_names_no_example_that_is_not_there() -> None:
    assert {link.removesuffix(".md") for link in pages.links(DOCS / "index.md") if "/" not in link} <= {*NAMES, "live"}
