"""A locustfile that does nothing but call: how much one locust makes against a server that costs nothing."""

from __future__ import annotations

from actord.loadtest.swarm.actors import ActorUser
from locust import task


class Ceiling(ActorUser):
    @task
    def debit(self) -> None:
        self.actor("Account", "acct-1").call("debit", amount=1)
