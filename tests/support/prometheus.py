"""Reads an exposition, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from tests.support.server import Reply, Server

OPEN_METRICS = "application/openmetrics-text;version=1.0.0"


class Scraped:
    """The samples of one answer."""

    def __init__(self, reply: Reply) -> None:
        assert reply.status == 200, reply
        parse: Any = open_metrics if "openmetrics" in reply.headers["content-type"] else plain_text
        self.families = list(parse(reply.body.decode()))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of all samples with this name and these labels; they must exist."""
        found = self.all(name, **labels)
        assert found, f"no {name} with {labels}"
        return sum(found)

    def all(self, name: str, **labels: str) -> list[float]:
        wanted = labels.items()
        return [sample.value for sample in self.samples if sample.name == name and wanted <= sample.labels.items()]

    def labels(self) -> Iterable[str]:
        """Every value of every label."""
        return {value for sample in self.samples for value in sample.labels.values()}


def scrape(server: Server, accept: str = "") -> Scraped:
    return Scraped(server.request("GET", "/-/metrics", headers={"Accept": accept} if accept else {}))
