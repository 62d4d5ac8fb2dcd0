"""OpenTelemetry spans of turns: the whole call, and in it its wait, its turn and its commit. Off by default.

1. A call that is not recorded pays one look at a flag and, without a ``traceparent``, one random number; while tracing
   is off it pays nothing, since none of this is there.
2. What a ``traceparent`` says about recording is followed. A call without one is recorded by lot (``tracing.sample``).
3. The span of the turn is the current one while the method runs: spans that the program makes are below it, and the
   calls that it makes to other actors too, on whichever worker.
4. Spans are made from the timestamps that calls have anyway. They are exported by a thread of the SDK.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, time_ns

import actord
from actord.shards.call import TRACED, Call, Lifecycle, Trace
from actord.tracecontext import is_sampled
from opentelemetry import context as contexts
from opentelemetry import trace as api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

FLUSH_SECONDS = 2.0  # at the end of the process


class Tracing:
    """One for each worker. ``chance`` returns 0 to 1."""

    def __init__(
        self, provider: api.TracerProvider, sample: float, *, chance: Callable[[], float] = random.random
    ) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("actord", actord.__version__)
        self._sample = sample
        self._chance = chance

    def begin(self, call: Call) -> None:
        """A span for the turn that begins, in its own context."""
        if type(call.method) is Lifecycle:
            return
        parent = call.trace.parent if call.flags & TRACED else ""
        if parent:
            if not is_sampled(parent):
                return
            above = api.set_span_in_context(NonRecordingSpan(_context_of(parent)), contexts.Context())
        else:
            if self._chance() >= self._sample:
                return
            above = contexts.Context()
        type_, method = call.act.host.type.name, call.method.name
        epoch = _epoch()
        queued, started = _ns(epoch, call.queued), _ns(epoch, call.started)
        whole = self._tracer.start_span(
            f"{type_}.{method}",
            above,
            SpanKind.SERVER,
            {"actord.type": type_, "actord.method": method, "actord.actor": call.act.name},
            start_time=queued,
        )
        within = api.set_span_in_context(whole, above)
        self._tracer.start_span("queue", within, start_time=queued).end(started)
        turn = self._tracer.start_span("turn", within, start_time=started)
        contexts.attach(api.set_span_in_context(turn))  # in the turn's own copy of the context, which ends with it
        trace = Trace(parent_of(turn), call.trace.id if call.flags & TRACED else "")
        trace.spans = (whole, turn, within)
        call.trace = trace
        call.flags |= TRACED

    def left(self, calls: list[Call], now: float) -> None:
        """The replies of these calls have left."""
        for call in calls:
            if call.flags & TRACED and call.trace.spans is not None:
                self._end(call, now)

    def _end(self, call: Call, now: float) -> None:
        whole, turn, within = call.trace.spans
        call.trace.spans = None
        epoch = _epoch()
        ended, left = _ns(epoch, call.ended), _ns(epoch, now)
        turn.end(ended)
        self._tracer.start_span("commit", within, start_time=ended).end(left)
        whole.set_attribute("actord.status", call.status)
        if call.status >= 500:
            whole.set_status(Status(StatusCode.ERROR))
        whole.end(left)

    @staticmethod
    def current_parent() -> str:
        """The ``traceparent`` for a call that is made now; "" when nothing is recorded."""
        span = api.get_current_span()
        return parent_of(span) if span.is_recording() else ""

    async def close(self) -> None:
        """Export what is there, within a moment."""
        flush = getattr(self._provider, "force_flush", None)
        if flush is not None:
            with suppress(Exception):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await asyncio.to_thread(flush)


def open_tracing(sample: float, process: str) -> Tracing:
    """With the program's own tracer provider, else with one that exports by OTLP as the variables OTEL_* say."""
    provider = api.get_tracer_provider()
    if isinstance(provider, api.ProxyTracerProvider):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        attributes = {"service.version": actord.__version__, "service.instance.id": process}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            attributes["service.name"] = "actord"
        ours = TracerProvider(resource=Resource.create(attributes))
        ours.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        api.set_tracer_provider(ours)
        provider = ours
    return Tracing(provider, sample)


def parent_of(span: Span) -> str:
    """A span as a ``traceparent``."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _context_of(parent: str) -> SpanContext:
    _, trace, span, flags = parent.split("-")
    return SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _epoch() -> int:
    """Wall clock at zero of the monotonic one, in nanoseconds, as it is now."""
    return time_ns() - int(monotonic() * 1e9)


def _ns(epoch: int, moment: float) -> int:
    return epoch + int(moment * 1e9)
