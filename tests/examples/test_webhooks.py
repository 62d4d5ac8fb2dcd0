"""The webhooks: one that comes again has no second effect, also after a crash."""

from __future__ import annotations

import json

from tests.examples.running import EXAMPLES, ONE_WORKER
from tests.support.fixtures import Serve
from tests.support.server import until


def test_a_webhook_that_comes_again_has_no_second_effect(serve: Serve) -> None:
    server = serve(EXAMPLES / "webhooks.py", settings=ONE_WORKER)

    def hook(id_: str, amount: int) -> bool:
        body = json.dumps({"id": id_, "customer": "alice", "amount": amount}).encode()
        reply = server.request("POST", "/hooks/shop", body)
        assert reply.status == 200, reply
        accepted: bool = reply.json()["accepted"]
        return accepted

    assert [hook("evt-1", 30), hook("evt-1", 30), hook("evt-2", 12)] == [True, False, True]
    until(lambda: server.result("Customer", "alice", "paid") == 42, "both to be booked")
    server.kill()
    server.start()
    assert not hook("evt-1", 30)
    assert server.result("Customer", "alice", "paid") == 42
    assert server.request("GET", "/hooks/shop").status == 404
