"""What the pages show works: sessions run, programs load, snippets hold, links lead somewhere."""

from __future__ import annotations

import doctest
import re
import shutil
import sys
from pathlib import Path

import pytest
from actord.server.config import resolve
from actord.settings import App
from actord.shards.registry import load_program

from tests.docs import pages, sessions
from tests.docs.pages import PAGES, ROOT, Block

LANGUAGES = {"console", "sh", "python", "toml", "text", "json"}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


WITH_SESSIONS = [page for page in PAGES if pages.blocks(page, "console")]


@pytest.mark.parametrize("page", WITH_SESSIONS, ids=name)
def test_a_session_on_a_page_says_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    if "openssl " in page.read_text() and shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    session = sessions.Session(page, tmp_path)
    try:
        session.run()
    finally:
        session.close()


@pytest.mark.parametrize("expected", ["a\nb", "a\n...", "a...\nb", "...\nb\n...", "a\nb\n..."])
def test_an_output_fits_what_a_page_shows_of_it(expected: str) -> None:
    assert sessions.fits(expected, "a\nb\n")


@pytest.mark.parametrize("expected", ["a", "a\n...\nc", "a\nb\nc", "...b", ""])
def test_another_output_does_not_fit(expected: str) -> None:
    assert not sessions.fits(expected, "a\nb\n")


def test_a_session_that_says_something_else_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo 1\n2\n```\n")
    session = sessions.Session.__new__(sessions.Session)
    session.page, session.home, session.cwd, session.port, session.server = page, tmp_path, tmp_path, 0, None
    block = Block(page, 1, "console", "$ echo 1\n2\n", "", "")
    [(command, expected)] = sessions.commands(block)
    with pytest.raises(AssertionError, match="echo 1"):
        session._compare(Block(ROOT / "README.md", 1, "", "", "", ""), command, expected, session._output(command))


@pytest.mark.parametrize("block", pages.all_blocks(), ids=str)
def test_every_block_has_a_language_and_a_known_directive(block: Block) -> None:
    assert block.language in LANGUAGES
    assert block.directive in ("", "file", "part of", "holds", "by hand")


@pytest.mark.parametrize("block", [b for b in pages.all_blocks() if b.directive == "part of"], ids=str)
def test_a_part_of_a_file_stands_in_that_file(block: Block) -> None:
    assert block.text in (ROOT / block.value).read_text()


SNIPPETS = [b for b in pages.all_blocks("python") if b.directive == ""]


@pytest.mark.parametrize("block", SNIPPETS, ids=str)
def test_a_snippet_gives_what_it_shows(block: Block) -> None:
    assert ">>> " in block.text, "a program needs a directive that says which file it is"
    globals_: dict[str, object] = {}
    test = doctest.DocTestParser().get_doctest(block.text, globals_, str(block), str(block.page), block.line)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("block", [b for b in pages.all_blocks("python") if b.directive == "holds"], ids=str)
def test_what_is_said_to_hold_after_a_block_holds(block: Block) -> None:
    globals_: dict[str, object] = {}
    exec(compile(block.text, str(block), "exec"), globals_)
    assert eval(block.value, globals_)


PROGRAMS = sorted(
    {
        (b.page, b.value)
        for b in pages.all_blocks("python")
        if b.directive == "file" and not b.value.rpartition("/")[2].startswith(("test_", "client_"))
    }
)


@pytest.mark.parametrize(("page", "file"), PROGRAMS, ids=lambda value: getattr(value, "name", value))
def test_a_program_loads_as_a_worker_loads_it(
    page: Path, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    program = tmp_path / "documented_program.py"
    program.write_text("".join(b.text for b in pages.blocks(page) if (b.directive, b.value) == ("file", file)))
    loaded = load_program(App(root=str(tmp_path), main=program.name))
    assert loaded.types or loaded.front_door


@pytest.mark.parametrize("block", pages.all_blocks("toml"), ids=str)
def test_a_configuration_is_read_by_the_real_loader(block: Block, tmp_path: Path) -> None:
    for file in {"app.py", *re.findall(r'^main = "(.*\.py)"$', block.text, re.MULTILINE)}:
        (tmp_path / file).touch()
    main = "" if "\nmain = " in f"\n{block.text}" else 'main = "app.py"\n'
    (tmp_path / "actord.toml").write_text(main + block.text)
    assert resolve(str(tmp_path), environ={}).app.main


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in pages.links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} in {name(page)}"
        if anchor:
            assert anchor in pages.anchors(target), f"{link} in {name(page)}"


def test_every_page_is_on_the_map() -> None:
    linked = {(ROOT / "docs" / link.partition("#")[0]).resolve() for link in pages.links(ROOT / "docs" / "index.md")}
    assert {page for page in PAGES if page.parent.name == "docs" and page.name != "index.md"} <= linked
