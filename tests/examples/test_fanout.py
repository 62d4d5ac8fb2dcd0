"""The fan-out: a publication reaches every subscriber once, in order."""

from __future__ import annotations

from tests.examples.running import EXAMPLES
from tests.support.fixtures import Serve
from tests.support.server import until

SUBSCRIBERS = 1_000


def test_a_publication_reaches_a_thousand_subscribers_once_and_in_order(serve: Serve) -> None:
    server = serve(EXAMPLES / "fanout.py", settings={"server.workers": 2})
    names = [f"s-{number}" for number in range(SUBSCRIBERS)]
    assert server.result("Topic", "news", "subscribe", *names) == SUBSCRIBERS
    assert server.result("Topic", "news", "subscribe", names[0]) == SUBSCRIBERS
    assert [server.result("Topic", "news", "publish", text) for text in ("one", "two")] == [1, 2]
    for name in (names[0], names[499], names[-1]):
        until(lambda name=name: len(server.result("Subscriber", name, "read")) == 2, "both to arrive")  # type: ignore[misc]
    wanted = [["news", 1, "one"], ["news", 2, "two"]]
    until(lambda: all(server.result("Subscriber", name, "read") == wanted for name in names), "all", patience=60)
