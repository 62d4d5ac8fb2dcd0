"""Texts that many write at once become the same, in Python and in the page, in whatever order edits arrive."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples.running import EXAMPLES

Edit = tuple[Any, list[Any]]  # what is inserted (first, after, text) or None; ids that are deleted


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("example_editor", Path(EXAMPLES, "editor", "editor.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Text = _load().Text


class Writer:
    """One page: its text, and how far it has read what the others wrote."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.text = Text()
        self.clock = 0
        self.read = 0

    def edit(self, rng: random.Random) -> Edit:
        items = self.text.items(deleted=False)
        at = rng.randint(0, len(items))
        gone = [(n, site) for n, site, _, _ in items[at : at + rng.choice([0, 0, 1, 3])]]
        text = "".join(rng.choices("abc\n😀", k=rng.choice([0, 1, 1, 4])))
        insert = None
        if text:
            after = (items[at - 1][0], items[at - 1][1]) if at else None
            insert = ((self.clock + 1, self.site), after, text)
        self.take((insert, gone))
        return insert, gone

    def take(self, edit: Edit) -> None:
        insert, gone = edit
        if insert is not None:
            self.text.insert(*insert)
            self.clock = max(self.clock, insert[0][0] + len(insert[2]) - 1)
        self.text.delete(gone)


def write_together(seed: int, writers: int, edits: int) -> tuple[list[Writer], list[tuple[str, Edit]]]:
    """Each writes against what it has read so far; ``log`` is the order in which the actor has taken the edits."""
    rng = random.Random(seed)
    all_of_them = [Writer(f"site{n}") for n in range(writers)]
    log: list[tuple[str, Edit]] = []
    unsent: dict[str, list[Edit]] = {writer.site: [] for writer in all_of_them}
    for _ in range(edits):
        writer = rng.choice(all_of_them)
        match rng.choice(["write", "send", "read"]):
            case "write":
                unsent[writer.site].append(writer.edit(rng))
            case "send" if unsent[writer.site]:
                log.append((writer.site, unsent[writer.site].pop(0)))
            case "read":
                _read(writer, log, rng.randint(writer.read, len(log)))
    for site, rest in unsent.items():
        log += [(site, edit) for edit in rest]
    for writer in all_of_them:
        _read(writer, log, len(log))
    return all_of_them, log


def _read(writer: Writer, log: list[tuple[str, Edit]], until: int) -> None:
    for site, edit in log[writer.read : until]:
        if site != writer.site:
            writer.take(edit)
    writer.read = until


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(2, 4), st.integers(1, 80))
def test_texts_converge_and_are_what_the_actor_has(seed: int, writers: int, edits: int) -> None:
    pages, log = write_together(seed, writers, edits)
    actor = Text()
    for insert, gone in [edit for _, edit in log]:
        if insert is not None:
            actor.insert(*insert)
        actor.delete(gone)
    assert {str(page.text) for page in pages} == {str(actor)}
    again = Text(actor.items())
    for insert, gone in [edit for _, edit in log]:  # a page that has lost its connection sends them once more
        if insert is not None:
            again.insert(*insert)
        again.delete(gone)
    assert again.items() == actor.items()


def test_a_text_that_has_let_go_of_what_was_deleted_reads_the_same() -> None:
    pages, _ = write_together(7, 3, 200)
    text = pages[0].text
    assert len(text) > len(str(text)) > 0
    assert str(Text(text.items(deleted=False))) == str(text)


def test_typing_in_one_place_keeps_words_together() -> None:
    """Two words typed at the same place at the same time do not interleave."""
    one, two = Text(), Text()
    for text, first, second in ((one, "cat", "dog"), (two, "dog", "cat")):
        for word in (first, second):
            text.insert((1, "site" + word), None, word)
    assert str(one) == str(two) == "dogcat"


@pytest.mark.parametrize("seed", range(3))
def test_the_planted_bug_of_a_text_that_does_not_look_at_ids_is_found(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(self: Any, first: Any, after: Any, text: str) -> None:
        n, site = first
        for char in text:
            if (n, site) not in self._chars:
                self._ids.insert(self._ids.index(after) + 1 if after in self._chars else 0, (n, site))
                self._chars[n, site] = char
            after = (n, site)
            n += 1

    monkeypatch.setattr(Text, "insert", careless)
    pages, _ = write_together(seed, 3, 80)
    assert len({str(page.text) for page in pages}) > 1
