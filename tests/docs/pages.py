"""The project's pages as data: fenced blocks with the directives above them, headings, links.

A directive is an HTML comment on the line right above a block; readers don't see it.

    <!-- file: app.py -->              the block is (a further part of) a file that the page's sessions use
    <!-- part of: examples/a.py -->    the block stands in that file of the project, word for word
    <!-- holds: expression -->         the expression is true after the block was executed
    <!-- by hand: why -->              the block can't be run by a test; every command in it is still checked
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What README says is planned may stand in the code already, half built, without being documented.
_PLANNED = {"alarm": "alarms", "sql": "SQL", "transaction": "transaction", "socket": "WebSockets"}

_FENCE = re.compile(r"^(?:<!-- ([a-z ]+): (.*?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """``directive`` is its name or empty, ``value`` what stands behind the colon."""

    page: Path
    line: int
    language: str
    text: str
    directive: str
    value: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page, in order; with ``languages`` only those."""
    text = page.read_text()
    found = [
        Block(page, text.count("\n", 0, match.start()) + 1, match[3], match[4], match[1] or "", match[2] or "")
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def all_blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page, *languages)]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """What ``#...`` links to a page can name, by GitHub's rule."""
    titles = (re.sub(r"[`*]", "", title).strip().lower() for title in _HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def section(page: Path, title: str) -> str:
    """The text below a heading, down to the next one of its level or above."""
    match = re.search(rf"^(#+) {re.escape(title)}$\n(.*?)(?=^#{{1,6}} |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    assert match is not None, f"{page.name} has no section {title!r}"
    level = len(match[1])
    rest = page.read_text()[match.start(2) :]
    end = re.search(rf"^#{{1,{level}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def planned(name: str) -> bool:
    """Whether a name of the code belongs to a feature that README's status calls planned."""
    status = section(ROOT / "README.md", "Status").partition("**not in this version**")[2]
    return any(part in name.lower() and word in status for part, word in _PLANNED.items())


def rows(text: str) -> list[list[str]]:
    """The body rows of the Markdown tables in a text, cell by cell."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    ruled = [i for i, row in enumerate(cells) if all(set(cell) <= set(":- ") for cell in row)]
    heads = {i - 1 for i in ruled}
    return [row for i, row in enumerate(cells) if i not in heads and i not in ruled]


def code_words(text: str) -> set[str]:
    """Everything between single backticks."""
    return set(re.findall(r"`([^`\n]+)`", text))
