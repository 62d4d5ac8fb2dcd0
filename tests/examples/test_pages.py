"""The pages of the examples in a real browser: alone, together, and while their server dies and comes back."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.examples.running import EXAMPLES
from tests.examples.test_editor import Text, write_together
from tests.support import browser
from tests.support.browser import Browser, Page
from tests.support.server import Server

NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/page.html"))
SNIPPET = re.compile(r"^  // --- (.*?)-+\n.*?^  // -+\n", re.MULTILINE | re.DOTALL)

needs_browser = pytest.mark.skipif(bool(browser.unavailable()), reason=browser.unavailable())


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.browser() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    program = Path(__file__).with_name("all_pages.py")
    with Server(program, tmp_path_factory.mktemp("pages") / "data", settings={"server.workers": 1}) as running:
        yield running


@pytest.fixture
def pages(chromium: Browser, server: Server) -> Iterator[Any]:
    """Open a page by its path; at the end none of them has complained."""
    opened: list[Page] = []

    def open_page(path: str) -> Page:
        opened.append(chromium.open(f"http://127.0.0.1:{server.port}{path}"))
        return opened[-1]

    yield open_page
    errors = [error for page in opened for error in page.errors()]
    chromium.close_pages()
    assert errors == []


# -- without a browser


def test_the_pages_are_what_is_tested_here() -> None:
    assert NAMES == ["chat", "counter", "editor", "ticker", "tictactoe"]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_stands_alone_and_is_readable_without_sight_and_on_a_phone(name: str) -> None:
    page = (EXAMPLES / name / "page.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "no asset from elsewhere"
    assert "http://" not in page
    assert "https://" not in page
    assert '<html lang="en">' in page
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert "focus-visible" in page or not re.search("<(button|input|textarea)", page)
    assert 'role="status"' in page


def test_the_code_that_reconnects_is_the_same_in_all_pages() -> None:
    found: dict[str, set[str]] = {}
    for name in NAMES:
        for match in SNIPPET.finditer((EXAMPLES / name / "page.html").read_text()):
            found.setdefault(match[1].strip(), set()).add(match[0])
    assert {title: len(versions) for title, versions in found.items()} == {
        "a socket that comes back": 1,
        "events that come back": 1,
    }


# -- in a browser


@needs_browser
def test_a_counter_shows_one_number_to_everybody_and_loses_no_press_when_its_worker_dies(
    pages: Any, server: Server
) -> None:
    one, two = pages("/counter#shared"), pages("/counter#shared")
    one.wait_text("#total", "0")
    for _ in range(3):
        one.click("#more")
    two.click("#less")
    one.wait_text("#total", "2")
    two.wait_text("#total", "2")
    server.kill_child(server.worker_of(0))
    two.click("#more")
    one.wait_text("#total", "3")
    two.wait_text("#total", "3")
    pages("/counter#another").wait_text("#total", "0")


@needs_browser
def test_a_ticker_moves_by_itself_and_a_page_opened_later_has_its_chart_at_once(pages: Any) -> None:
    points = "document.querySelector('#line').getAttribute('points').split(' ').length"
    first = pages("/ticker#TEST")
    first.wait(f"{points} >= 3")
    second = pages("/ticker#TEST")
    second.wait(f"{points} >= 3")
    assert second.text("#price") == first.text("#price") or second.run(f"return {points}") >= 3


@needs_browser
def test_a_chat_room_has_a_history_shows_who_is_there_and_keeps_to_itself(pages: Any, server: Server) -> None:
    alice, bob = pages("/chat?name=Alice#blue"), pages("/chat?name=Bob#blue")
    other = pages("/chat?name=Eve#red")
    alice.wait_text("#people", "2 here: Alice, Bob")
    alice.type("#text", "hello <b>there</b>\n")
    bob.wait_text("#log", "hello <b>there</b>")
    server.kill_child(server.worker_of(0))
    bob.type("#text", "hi\n")
    alice.wait_text("#log", "hi")
    late = pages("/chat?name=Late#blue")
    late.wait("document.querySelectorAll('#log li').length === 2")
    assert [line.split("\n")[0] for line in late.run(_LINES)] == ["Alice", "Bob"]
    other.wait_text("#people", "1 here: Eve")
    assert other.text("#log") == ""
    late.close()
    alice.wait_text("#people", "2 here: Alice, Bob")


_LINES = "return [...document.querySelectorAll('#log li')].map(li => li.innerText)"


@needs_browser
def test_texts_written_at_once_in_three_pages_become_the_same(pages: Any, server: Server) -> None:
    writers = [pages(f"/editor?name=W{n}#together") for n in range(3)]
    for writer in writers:
        writer.wait("!document.querySelector('#text').disabled")
        writer.wait("document.querySelectorAll('#people li').length === 3")
    rng = random.Random(1)
    for writer in writers:  # each goes on by itself, while what the others write comes in
        writer.run(_WRITE, rng.randint(1, 1 << 30), 60)
    for writer in writers:
        writer.wait("document.written === 60 && document.querySelector('#state').textContent === 'Saved'")
    text = server.result("Document", "together", "read")
    assert len(text) > 20
    for writer in writers:
        writer.wait("document.querySelector('#text').value === arguments[0]", text)
    writers[0].click("#text")
    writers[1].wait("document.querySelectorAll('#mirror .caret').length === 2")
    fresh = pages("/editor#together")
    fresh.wait("document.querySelector('#text').value === arguments[0]", text)


_WRITE = """
    let [seed, left] = arguments
    const next = below => (seed = (seed * 1103515245 + 12345) % 2147483648) % below
    const area = document.querySelector("#text")
    document.written = 0
    const one = () => {
        const at = next(area.value.length + 1), end = Math.min(at + (next(4) ? 0 : next(3)), area.value.length)
        const added = ["a", "b\\n", "é", "word "][next(4)] + next(10)
        area.setRangeText(next(5) ? added : "", at, end, "end")
        area.dispatchEvent(new Event("input"))
        document.written++
        if (--left) setTimeout(one, next(12))
    }
    one()
"""


@needs_browser
def test_the_text_of_the_page_is_that_of_the_actor(pages: Any) -> None:
    page = pages("/editor#same")
    for seed in range(5):
        writers, log = write_together(seed, 3, 150)
        text = Text()
        for insert, gone in [edit for _, edit in log]:
            if insert is not None:
                text.insert(*insert)
            text.delete(gone)
        found = page.run(
            "const text = new Text(); for (const [insert, gone] of arguments[0]) { if (insert) text.insert(...insert); "
            "text.delete(gone) } return [text.toString(), text.items.map(i => [i.n, i.site, i.char, i.gone])]",
            [edit for _, edit in log],
        )
        assert found == [str(text), text.items()]
        assert str(writers[0].text) == found[0]


# -- while the server is away


@needs_browser
def test_pages_go_on_after_their_server_was_killed(pages: Any, server: Server) -> None:
    """All three at once: a start takes longer than what follows it."""
    stories = [a_game(pages), a_message(pages), a_text(pages)]
    for story in stories:
        next(story)
    server.kill()
    for story in stories:
        next(story)
    server.start()
    for story in stories:
        next(story)
    assert server.result("Document", "offline", "read") == "start middle end"


def a_game(pages: Any) -> Iterator[None]:
    """It goes on where it was; each player keeps the seat, also when the page is loaded anew."""
    x, o = pages("/tictactoe#final"), pages("/tictactoe#final")
    x.wait_text("#say", "Your turn: you are X")
    onlooker = pages("/tictactoe#final")
    _play(x, 0)
    _play(o, 4)
    onlooker.wait_text("#board button:nth-child(5)", "O")
    onlooker.wait_text("#say", "You are watching")
    yield
    x.wait_text("#state", "Connection lost")
    yield
    _play(x, 1)
    _play(o, 8)
    o.wait_text("#say", "X is to play; you are O")
    o.reload()
    o.wait_text("#board button:nth-child(9)", "O")
    _play(x, 2)
    x.wait_text("#say", "You win!")
    o.wait_text("#say", "You lose.")
    onlooker.wait_text("#say", "X wins.")
    o.click("#again")
    o.wait_text("#say", "Your turn: you are O")  # the other one begins
    assert x.text("#board") == ""
    yield


def a_message(pages: Any) -> Iterator[None]:
    """What is written meanwhile is sent when the server is back, and stands there once."""
    page = pages("/chat?name=Alice#away")
    page.wait_text("#people", "1 here")
    yield
    page.wait_text("#state", "Connection lost")
    page.type("#text", "are you there?\n")
    page.wait_text("#log .waiting", "are you there?")
    yield
    page.wait("document.querySelectorAll('#log li').length === 1 && !document.querySelector('.waiting')")
    page.reload()
    page.wait_text("#log", "are you there?")
    assert len(page.run(_LINES)) == 1
    yield


def a_text(pages: Any) -> Iterator[None]:
    """What two write meanwhile, each alone, is merged."""
    one, two = pages("/editor?name=A#offline"), pages("/editor?name=B#offline")
    one.wait("!document.querySelector('#text').disabled")
    one.type("#text", "middle")
    two.wait("document.querySelector('#text').value === 'middle'")
    yield
    for page, text, at in ((one, "start ", 0), (two, " end", 6)):
        page.wait_text("#state", "Connection lost")
        page.run(_PUT, text, at)
    yield
    for page in (one, two):
        page.wait("document.querySelector('#text').value === 'start middle end'")
        page.wait_text("#state", "Saved")
    yield


def _play(page: Page, cell: int) -> None:
    """As soon as it is this page's turn."""
    selector = f"#board button:nth-child({cell + 1})"
    page.wait("document.querySelector(arguments[0])?.ariaDisabled === 'false'", selector)
    page.click(selector)
    page.wait("document.querySelector(arguments[0]).textContent !== ''", selector)


_PUT = """
    const [text, at] = arguments, area = document.querySelector("#text")
    area.setRangeText(text, at, at, "end")
    area.dispatchEvent(new Event("input"))
"""
