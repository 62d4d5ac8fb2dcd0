"""docs/http-corpus.md says what the server answers."""

from __future__ import annotations

from tests.corpus import compare
from tests.support.front_process import FrontProcess


def test_the_page_of_the_corpus_says_what_this_server_answers(front: FrontProcess) -> None:
    said = compare.column_of_actord(compare.PAGE.read_text())
    assert said == compare.ask_all(front.address, ours=True)


def test_the_page_gives_a_reason_wherever_another_server_serves_what_we_refuse() -> None:
    bad, _, _ = compare.PAGE.read_text().partition("## Good requests")
    rows = [row.strip("| ").split(" | ") for row in bad.splitlines() if row.startswith("| ") and "|---" not in row][1:]
    assert len(rows) >= 250
    for request, _, nginx, uvicorn, *reason in rows:
        assert bool(reason) == (compare.served(nginx) or compare.served(uvicorn)), request
