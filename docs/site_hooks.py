"""What the site adds to the pages, and checks of what was built. MkDocs calls these functions: ``hooks`` in mkdocs.yml.

1. A link that leaves docs/ works on GitHub and on the site: README.md, ARCHITECTURE.md and CHANGELOG.md become pages of
   the site, another file of the repository becomes a page with its text below ``source/``, a folder a list.
   A link whose text is a page's file name gets that page's title instead.
2. Directives of ``tests/docs`` (``<!-- file: app.py -->``) are taken out. ``<!-- api: actord.Storage -->`` becomes the
   reference of that object, out of its docstrings; on GitHub it stays unseen.
3. mkdocstrings finds the package, whose folders lie flat here, in a folder of links, as ``make lint`` does.
4. The build fails when a page of the site links to a page or an anchor that is not there, or would fetch anything.
"""

from __future__ import annotations

import functools
import logging
import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx import slugs

ROOT = Path(__file__).resolve().parent.parent
# Pages of the repository's root that are pages of the site too.
PAGES = {"README.md": "readme.md", "ARCHITECTURE.md": "architecture.md", "CHANGELOG.md": "changelog.md"}
LANGUAGES = {".py": "python", ".toml": "toml", ".html": "html", ".json": "json", ".yml": "yaml", ".md": "markdown"}

_DIRECTIVE = re.compile(r"^<!-- (?:file|part of|holds|by hand): .*? -->\n", re.MULTILINE)
_API = re.compile(r"^<!-- api: ([\w.]+) -->$", re.MULTILINE)
_IMAGE_OF_DOCS = re.compile(r"!\[([^\]]*)\]\(docs/")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^# (.*)$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_log = logging.getLogger("mkdocs.hooks.site")
_farm = ""


@event_priority(100)  # before mkdocstrings reads its part
def on_config(config: MkDocsConfig) -> None:
    global _farm
    if not _farm:
        _farm = tempfile.mkdtemp(prefix="actord-site-")
        package = Path(_farm, "actord")
        package.mkdir()
        for entry in (ROOT / "sdk").iterdir():
            (package / entry.name).symlink_to(entry)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [_farm]
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugs.slugify(case="lower")  # GitHub's rule


def on_shutdown() -> None:
    shutil.rmtree(_farm, ignore_errors=True)


def on_files(files: Files, config: MkDocsConfig) -> None:
    for name, uri in PAGES.items():
        text = _IMAGE_OF_DOCS.sub(r"![\1](", (ROOT / name).read_text())
        files.append(File.generated(config, uri, content=_without_fences(text, _from_root)))
    wanted = {target for page in files.documentation_pages() for target in _leaving(page)}
    while wanted:
        target = wanted.pop()
        uri = _source_uri(target)
        if files.get_file_from_path(uri) is not None:
            continue
        text, more = _source(target)
        wanted |= more
        files.append(File.generated(config, uri, content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    markdown = _DIRECTIVE.sub("", markdown)
    markdown = _API.sub(r"::: \1", markdown)
    if not page.file.src_uri.startswith("source/"):
        markdown = _without_fences(markdown, functools.partial(_link, page.file.src_uri))
    return _without_fences(markdown, functools.partial(_title, files, page.file))


def on_post_build(config: MkDocsConfig) -> None:
    wrong = check(Path(config.site_dir))
    for line in wrong:
        _log.warning(line)
    if wrong:
        raise PluginError(f"{len(wrong)} links of the site lead nowhere, or fetch something")


# -- links that leave docs/


def _without_fences(markdown: str, change: Callable[[re.Match[str]], str]) -> str:
    """The text with its links changed, those in code aside."""
    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(change, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(change, markdown[end:])])


def _outside(page: str, link: str) -> str | None:
    """The path in the repository that a link on a page of docs/ names, when it is outside of docs/."""
    path = urlsplit(link).path
    if "://" in link or not path:
        return None
    target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), path))
    return None if target.startswith("docs/") else target


def _leaving(page: File) -> set[str]:
    found = {_outside(page.src_uri, link) for _, link in _LINK.findall(_FENCE.sub("", page.content_string))}
    return {target for target in found if target is not None and target not in PAGES}


def _source_uri(target: str) -> str:
    return f"source/{target}/index.md" if (ROOT / target).is_dir() else f"source/{target}.md"


def _source(target: str) -> tuple[str, set[str]]:
    """The page of a file or a folder, and the files that it needs."""
    path = ROOT / target
    if path.is_dir():
        inside = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(("_", ".")))
        lines = [f"* [{name}]({name}{'/index' if (path / name).is_dir() else ''}.md)" for name in inside]
        return f"# {target}\n\n" + "\n".join(lines) + "\n", {f"{target}/{name}" for name in inside}
    return f"# {target}\n\n``````{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}``````\n", set()


def _link(page: str, match: re.Match[str]) -> str:
    target = _outside(page, match[2])
    if target is None:
        return match[0]
    uri = PAGES.get(target) or _source_uri(target)
    anchor = urlsplit(match[2]).fragment if target in PAGES else ""
    return f"[{match[1]}]({posixpath.relpath(uri, posixpath.dirname(page) or '.')}{'#' + anchor if anchor else ''})"


def _title(files: Files, page: File, match: re.Match[str]) -> str:
    """A link to a page by its file's name, with the title of that page."""
    uri = posixpath.normpath(posixpath.join(posixpath.dirname(page.src_uri), urlsplit(match[2]).path))
    target = files.get_file_from_path(uri) if match[1].endswith(".md") else None
    heading = _HEADING.search(target.content_string) if target is not None else None
    return f"[{heading[1]}]({match[2]})" if heading is not None else match[0]


def _from_root(match: re.Match[str]) -> str:
    """A link of a page that lies in the repository's root, as it is from docs/."""
    link = match[2]
    if "://" in link or link.startswith("#"):
        return match[0]
    return f"[{match[1]}]({link.removeprefix('docs/') if link.startswith('docs/') else f'../{link}'})"


# -- what was built


class _Html(HTMLParser):
    """The ids, the links and whatever else is fetched of one page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        have = dict(attributes)
        self.ids.update(value for key in ("id", "name") if (value := have.get(key)))
        if tag == "a" and have.get("href"):
            self.links.append(have["href"] or "")
        elif tag == "link" and have.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.append(have.get("href") or "")
        elif have.get("src"):
            self.fetched.append(have["src"] or "")


def check(site: Path) -> list[str]:
    """Every link of a built site that leads nowhere, and everything that its pages would fetch from elsewhere."""
    pages: dict[Path, _Html] = {}
    for file in site.rglob("*.html"):
        parser = pages[file] = _Html()
        parser.feed(file.read_text())
    wrong = []
    for file, parser in pages.items():
        if file.name == "404.html":  # its links count from the server's root
            continue
        name = file.relative_to(site)
        for url in [*parser.links, *parser.fetched]:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                if url in parser.fetched:
                    wrong.append(f"{name} fetches {url}")
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                wrong.append(f"{name} links to {url}, which is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                wrong.append(f"{name} links to {url}: no such anchor")
    return wrong
