"""Spans of turns: their times, their parents, and that nothing is recorded that nobody asked for."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import threading
from pathlib import Path
from typing import Any

import pytest
from actord import ActorError, StatefulActor

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: pip install actord[otel]")

from actord.shards.dispatch import Dispatcher
from actord.shards.meter import Meter
from actord.shards.tracing import Tracing, open_tracing
from actord.shards.wire import CALLX
from opentelemetry import trace as api
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.harness import Core, steps
from tests.support.server import Server

TRACE = 0x4BF92F3577B34DA6A3CE929D0E0E4736
SPAN = 0x00F067AA0BA902B7
SAMPLED, NOT_SAMPLED = (f"00-{TRACE:032x}-{SPAN:016x}-{flag}" for flag in ("01", "00"))


class Cell(StatefulActor):
    async def put(self, value: int) -> None:
        await self.ctx.storage.put("v", value)

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def refuse(self) -> None:
        raise ActorError("no", status=409)

    async def fail(self) -> None:
        raise RuntimeError("a fault")

    async def ask(self, name: str) -> None:
        with api.get_tracer("program").start_as_current_span("mine"):
            await self.env.get(Cell, name).put(1)

    async def who(self) -> str:
        return f"{api.get_current_span().get_span_context().span_id:016x}"


class Traced:
    """A core with an exporter in memory."""

    def __init__(self, sample: float = 1.0, lot: float = 0.0) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.core = Core(Cell)
        meter = Meter()
        self.core.gate._meter = self.core.shard.committer.meter = meter
        meter.tracing = tracing = Tracing(self.provider, sample, chance=lambda: lot)
        self.core.runner.before_turn = tracing.begin
        router: Any = self.core.env._by_type["Cell"]._router
        router.parent = tracing.current_parent

    async def call(self, method: str, body: bytes = b"", **extras: str) -> int:
        caller = self.core.caller
        pending = caller.open()
        dispatcher: Dispatcher = self.core.dispatcher
        fields = (pending.id, "Cell", "a", method, dict(extras), 0, int((self.core._now() + 60) * 1000), body)
        dispatcher.callx(caller, (CALLX, *fields), self.core._now())  # type: ignore[arg-type]
        return (await pending).status

    def spans(self) -> dict[str, ReadableSpan]:
        """By name, once the gate has let the last reply out."""
        found = self.exporter.get_finished_spans()
        assert len({span.name for span in found}) == len(found)
        return {span.name: span for span in found}


@pytest.fixture
def program_tracer(monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """What `trace.get_tracer` of a program gives."""
    provider = TracerProvider()
    monkeypatch.setattr(api, "get_tracer", provider.get_tracer)
    return provider


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


async def test_a_call_is_a_span_with_its_wait_its_turn_and_its_commit_in_it() -> None:
    traced = Traced()
    core = traced.core
    core.hold_fsyncs()
    first = asyncio.create_task(traced.call("wait", b"[2]"))
    await steps()
    second = asyncio.create_task(traced.call("put", b"[1]"))
    await asyncio.sleep(2.0)
    assert await first == 200
    await asyncio.sleep(0.5)
    await core.fsync()
    assert await second == 200
    await steps()
    found = traced.exporter.get_finished_spans()
    [whole] = [span for span in found if span.name == "Cell.put"]
    spans = {span.name: span for span in found if span.context.trace_id == whole.context.trace_id}  # type: ignore[union-attr]
    assert seconds(spans["queue"]) == pytest.approx(2.0, abs=0.05)
    assert seconds(spans["turn"]) < 0.05
    assert seconds(spans["commit"]) == pytest.approx(0.5, abs=0.05)
    assert seconds(whole) == pytest.approx(2.5, abs=0.05)
    assert whole.parent is None
    for name in ("queue", "turn", "commit"):
        assert spans[name].parent is not None
        assert spans[name].parent.span_id == whole.context.span_id  # type: ignore[union-attr]
    assert whole.attributes == {
        "actord.type": "Cell", "actord.method": "put", "actord.actor": "a", "actord.status": 200
    }  # fmt: skip


async def test_a_sampled_traceparent_is_the_parent_whatever_the_lot() -> None:
    traced = Traced(sample=0.0)
    assert await traced.call("put", b"[1]", trace=SAMPLED) == 200
    whole = traced.spans()["Cell.put"]
    assert (whole.context.trace_id, whole.parent.span_id) == (TRACE, SPAN)  # type: ignore[union-attr]


async def test_one_that_is_not_sampled_is_not_recorded_and_goes_on_as_it_came() -> None:
    traced = Traced(sample=1.0)
    assert await traced.call("ask", b'["b"]', trace=NOT_SAMPLED) == 200
    await steps()
    assert traced.exporter.get_finished_spans() == ()


async def test_without_a_traceparent_the_lot_decides() -> None:
    for lot, recorded in ((0.009, True), (0.011, False)):
        traced = Traced(sample=0.01, lot=lot)
        assert (await traced.core.call("a", "put", 1)).status == 200
        await steps()
        assert bool(traced.exporter.get_finished_spans()) == recorded


async def test_a_span_of_the_program_is_below_the_turn_and_a_call_to_another_actor_below_that(
    program_tracer: TracerProvider,
) -> None:
    traced = Traced()
    program_tracer.add_span_processor(SimpleSpanProcessor(traced.exporter))
    assert await traced.call("ask", b'["b"]', trace=SAMPLED) == 200
    await steps()
    found = traced.exporter.get_finished_spans()
    [outer] = [span for span in found if span.name == "Cell.ask"]
    [inner] = [span for span in found if span.name == "Cell.put"]
    [mine] = [span for span in found if span.name == "mine"]
    [turn] = [
        span
        for span in found
        if span.name == "turn" and span.parent.span_id == outer.context.span_id  # type: ignore[union-attr]
    ]
    assert mine.parent.span_id == turn.context.span_id  # type: ignore[union-attr]
    assert inner.parent.span_id == mine.context.span_id  # type: ignore[union-attr]
    assert {span.context.trace_id for span in found} == {TRACE}  # type: ignore[union-attr]


async def test_the_turn_is_the_current_span_and_of_no_other_turn() -> None:
    traced = Traced(lot=2.0)  # by lot none is
    pending = traced.core.caller.open()
    fields = (pending.id, "Cell", "a", "who", {"trace": SAMPLED}, 0, int((traced.core._now() + 60) * 1000), b"")
    traced.core.dispatcher.callx(traced.core.caller, (CALLX, *fields), traced.core._now())  # type: ignore[arg-type]
    seen = (await pending).value
    assert seen == f"{traced.spans()['turn'].context.span_id:016x}"  # type: ignore[union-attr]
    assert await traced.core.value("a", "who") == "0" * 16


@pytest.mark.parametrize(("method", "status", "is_error"), [("refuse", 409, False), ("fail", 500, True)])
async def test_a_fault_is_an_error_and_a_refusal_is_none(method: str, status: int, is_error: bool) -> None:
    traced = Traced()
    assert await traced.call(method) == status
    await steps()
    whole = traced.spans()[f"Cell.{method}"]
    assert (whole.status.status_code is api.StatusCode.ERROR) == is_error
    assert whole.attributes is not None
    assert whole.attributes["actord.status"] == status


def test_the_programs_own_provider_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider()
    monkeypatch.setattr(api, "get_tracer_provider", lambda: provider)
    assert open_tracing(0.5, "worker-0")._provider is provider


def test_a_call_is_carried_to_a_collector_also_when_the_server_stops_at_once(tmp_path: Path) -> None:
    """A real server that exports by OTLP, to a collector in this process."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    names: list[str] = []
    services: set[str] = set()

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                services.update(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
                names.extend(span.name for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    server = Server(
        "metered.py",
        tmp_path / "data",
        settings={"server.workers": 1, "tracing.enabled": True, "tracing.sample": 1},
        environment={
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_SERVICE_NAME": "shop",
        },
    )
    try:
        server.start()
        server.result("Metered", "a", "add")
        assert server.stop() == 0
        assert sorted(names) == ["Metered.add", "commit", "queue", "turn"]
        assert services == {"shop"}
    finally:
        server.close()
        collector.shutdown()
        collector.server_close()
