"""The URL shortener: visits are counted once each, whoever follows at once and whatever crashes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.examples.running import EXAMPLES, ONE_WORKER, changed
from tests.support.fixtures import Serve
from tests.support.server import Reply, Server

FEW_CODES = """
import itertools
import shortener

codes = itertools.cycle(["one", "one", "two", "two", "three"])
shortener.new_code = lambda: next(codes)
"""


def shorten(server: Server, url: str) -> Reply:
    return server.request("POST", "/links", json.dumps({"url": url}).encode(), {"Content-Type": "application/json"})


def test_every_visit_is_counted_before_it_is_sent_on_and_outlives_a_kill(serve: Serve) -> None:
    server = serve(EXAMPLES / "shortener.py", settings={"server.workers": 2, "storage.shards": 2})
    made = shorten(server, "https://example.org/a?b=c").json()
    path = f"/{made['code']}"
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: server.request("GET", path), range(64)))
    assert {(reply.status, reply.headers["location"]) for reply in replies} == {(307, "https://example.org/a?b=c")}
    assert server.request("GET", f"/links{path}").json() == {"url": "https://example.org/a?b=c", "followed": 64}
    server.kill()
    server.start()
    assert server.request("GET", f"/links{path}").json()["followed"] == 64


def test_a_code_that_is_taken_is_never_given_again(serve: Serve, tmp_path: Path) -> None:
    program, environment = changed(tmp_path, "shortener", FEW_CODES)
    server = serve(program, settings=ONE_WORKER, environment=environment)
    made = [shorten(server, f"https://example.org/{n}").json() for n in range(3)]
    assert [link["code"] for link in made] == ["one", "two", "three"]
    for number, link in enumerate(made):
        assert server.request("GET", f"/{link['code']}").headers["location"] == f"https://example.org/{number}"


def test_what_is_no_link_or_no_url_is_refused(serve: Serve) -> None:
    server = serve(EXAMPLES / "shortener.py", settings=ONE_WORKER)
    assert (server.request("GET", "/nothing").status, server.request("GET", "/links/nothing").status) == (404, 404)
    assert server.request("GET", "/nothing").json()["code"] == "unknown"
    assert shorten(server, "javascript:alert(1)").status == 422
    assert "Short links" in server.request("GET", "/docs").body.decode()
