"""An open loop: calls are made when they are due, however many are unanswered. In a process of its own.

Promises:
1. Due instants are those of a Poisson process (exponential gaps), drawn before the clock starts. What the server does
   changes nothing about them.
2. A latency counts from the due instant, not from the moment at which the call could be sent: neither a busy
   connection nor a generator that lags makes a slow server look quick (coordinated omission).
3. A call has a connection for itself until it is answered, as clients have that do not pipeline. While all are taken,
   calls wait, and their latency grows. What was not answered ``DRAIN_SECONDS`` after the end counts as failed.
   What is left out is calls that were under way while the generator did not run although it wanted to: something else
   had its core for more than ``PAUSE_SECONDS``, a thread of the kernel mostly. Their latencies are its own. They count
   in every rate, and how long it paused is told.
4. Nothing is tried again. A refusal is a 503 answer; everything else that is no answer below 400 is a failure.

``python -m actord.loadtest.openloop`` reads a ``Plan`` as JSON from standard input, and prints an ``Outcome``. Plain
sockets and one epoll: 7 µs a call, the kernel's part included, where asyncio takes 25; a generator shares the machine
with what it measures.
"""

from __future__ import annotations

import gc
import json
import math
import random
import select
import socket
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter, process_time, thread_time
from typing import Any

# Calls that are sent before answers are looked at again, and answers that are read before what is due is sent.
BURST = 64
DRAIN_SECONDS = 5.0
# Below this the loop spins: a sleep of the kernel's is not exact enough.
SPIN_SECONDS = 0.0002
PAUSE_SECONDS = 0.001
RESOLUTION = 100  # buckets of a histogram for each factor of e: 1 % each


@dataclass(frozen=True, slots=True)
class Stream:
    """Calls of one kind: ``rate`` a second to ``path``, whose %d becomes one of 1 to ``names``; JSON ``body``."""

    label: str
    rate: float
    path: str
    names: int = 1
    body: str = '{"amount":1}'


@dataclass(frozen=True, slots=True)
class Plan:
    """``seconds`` of calls, of which the first ``warm_up`` are made and not counted."""

    port: int
    seconds: float
    streams: list[Stream]
    connections: int = 2000
    warm_up: float = 1.0
    seed: int = 1
    pause: float = PAUSE_SECONDS


@dataclass(slots=True)
class Seen:
    """What came of one stream's counted calls. Histograms: bucket to count, see ``bucket``."""

    due: int = 0
    answered: dict[int, int] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)
    failed: int = 0
    in_window: int = 0  # answers that came in the seconds that count, whenever their calls were due: goodput
    unpolite: int = 0  # refusals without Retry-After or without `applied: no`
    applied: int = 0  # of all calls, the warm-up's too: answered
    uncertain: int = 0  # of all calls: neither answered nor refused
    refusals: int = 0  # all that count, those too whose latency the generator can't tell

    def add(self, other: Seen) -> None:
        self.due += other.due
        self.refusals += other.refusals
        self.failed += other.failed
        self.in_window += other.in_window
        self.unpolite += other.unpolite
        self.applied += other.applied
        self.uncertain += other.uncertain
        for mine, theirs in ((self.answered, other.answered), (self.refused, other.refused)):
            for key, count in theirs.items():
                mine[key] = mine.get(key, 0) + count


@dataclass(slots=True)
class Outcome:
    """``seconds`` that count, of the ``took`` that the run took with its warm-up and the wait for the last answers;
    ``core``: the generator's CPU; ``lag_ms``: p99 from due instant to sending; ``paused_ms``: in which it had no core.
    """

    seconds: float
    took: float
    core: float
    sent: int
    lag_ms: float
    paused_ms: float
    streams: dict[str, Seen]


def bucket(seconds: float) -> int:
    """The bucket of a latency: microseconds on a logarithmic scale."""
    return round(math.log(max(1.0, seconds * 1e6)) * RESOLUTION)


def percentile_ms(histogram: Mapping[int, int], share: float) -> float | None:
    """In milliseconds, within 1 %; None of nothing."""
    left = sum(histogram.values()) * share
    if not left:
        return None
    for key in sorted(histogram):
        left -= histogram[key]
        if left <= 1e-9:
            break
    return math.exp(key / RESOLUTION) / 1e3


def due_instants(streams: Sequence[Stream], seconds: float, lot: random.Random) -> list[tuple[float, int, bytes]]:
    """All calls in their order: due instant from 0, number of the stream, the request."""
    calls = []
    for number, stream in enumerate(streams):
        requests = requests_of(stream)
        at = lot.expovariate(stream.rate)
        while at < seconds:
            calls.append((at, number, requests[int(lot.random() * len(requests))]))
            at += lot.expovariate(stream.rate)
    calls.sort(key=lambda call: call[0])
    return calls


def requests_of(stream: Stream) -> list[bytes]:
    """A request to each of its names."""
    return [_request(stream, name) for name in range(1, stream.names + 1)]


def _request(stream: Stream, name: int) -> bytes:
    path = stream.path % name if "%d" in stream.path else stream.path
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(stream.body)}\r\n\r\n{stream.body}".encode()


class Pauses:
    """When the generator did not run although it wanted to: ``spans``, in seconds from the beginning of the run."""

    def __init__(self, least: float = PAUSE_SECONDS) -> None:
        """``least``: what is shorter is none."""
        self._least = least
        self.spans: list[tuple[float, float]] = []
        self._at = self._cpu = 0.0

    def note(self, at: float, cpu: float, slept: float) -> None:
        """An iteration has ended: when, the thread's CPU until then, how long it meant to sleep at most."""
        awake = at - self._at - slept
        if awake > self._least and awake - (cpu - self._cpu) > self._least:
            self.spans.append((self._at, at))
        self._at, self._cpu = at, cpu

    def during(self, begin: float, end: float) -> bool:
        """Whether any of it was between the two."""
        at = bisect_right(self.spans, begin, key=lambda span: span[1])
        return at < len(self.spans) and self.spans[at][0] < end

    def total(self) -> float:
        """In seconds; the work of the iterations that were longer is in it."""
        return sum(end - begin for begin, end in self.spans)


class Generator:
    """One run. Every list is as long as there are connections or calls: nothing is looked up by name."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._calls = due_instants(plan.streams, plan.seconds, random.Random(plan.seed))
        self._epoll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._free: list[socket.socket] = []
        self._busy: dict[int, int] = {}  # descriptor to the number of the call
        self._partial: dict[int, bytes] = {}
        # by call: when it was answered (0: not), and how
        self._ended = array("d", bytes(8 * len(self._calls)))
        self._status = array("h", bytes(2 * len(self._calls)))
        self._lag = array("d")
        self._pauses = Pauses(plan.pause)
        self._unpolite: dict[int, int] = {}

    def run(self) -> Outcome:
        for _ in range(self._plan.connections):
            self._connect()
        # The lists are large and have no circles; a collection in the middle of a run would be a latency.
        gc.collect()
        gc.freeze()
        gc.disable()
        cpu, began = process_time(), perf_counter()
        sent = self._loop(began)
        took = perf_counter() - began
        core = (process_time() - cpu) / took
        for sock in self._open.values():
            sock.close()
        return self._outcome(took, core, sent)

    def _connect(self) -> None:
        sock = socket.create_connection(("127.0.0.1", self._plan.port), timeout=30)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open[sock.fileno()] = sock
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._free.append(sock)

    def _loop(self, began: float) -> int:
        calls, free, busy, lag = self._calls, self._free, self._busy, self._lag
        poll, clock, take = self._epoll.poll, perf_counter, self._take
        count, next_, end = len(calls), 0, self._plan.seconds
        note, slept = self._pauses.note, 0.0
        while True:
            now = clock() - began
            note(now, thread_time(), slept)
            until = min(count, next_ + BURST)
            while next_ < until and free and calls[next_][0] <= now:
                sock = free.pop()
                busy[sock.fileno()] = next_
                lag.append(now - calls[next_][0])
                try:
                    sock.send(calls[next_][2])
                except OSError:
                    self._lost(sock)
                next_ += 1
            if (next_ == count and not busy) or now > end + DRAIN_SECONDS:
                return next_
            if next_ == count or not free:
                slept = wait = 0.05
            else:
                slept, wait = max(0.0, calls[next_][0] - now), 0.0
                if slept > SPIN_SECONDS:  # epoll itself rounds up to milliseconds
                    select.select((self._epoll,), (), (), slept - SPIN_SECONDS / 2)
            for descriptor, _ in poll(wait, BURST):
                take(descriptor, clock() - began)

    def _take(self, descriptor: int, now: float) -> None:
        """Read an answer; it frees the connection when it is whole."""
        sock = self._open[descriptor]
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._lost(sock)
            return
        if descriptor in self._partial:
            data = self._partial.pop(descriptor) + data
        head = data.find(b"\r\n\r\n")
        length = data.find(b"Content-Length: ", 0, head)
        if head < 0 or len(data) < head + 4 + int(data[length + 16 : data.index(b"\r", length)]):
            self._partial[descriptor] = data
            return
        number = self._busy.pop(descriptor)
        self._ended[number] = now
        self._status[number] = status = int(data[9:12])
        if status == 503 and not (b"\r\nRetry-After: " in data and b'"applied":"no"' in data):
            stream = self._calls[number][1]
            self._unpolite[stream] = self._unpolite.get(stream, 0) + 1
        if data.find(b"\r\nConnection: close", 0, head) > 0:
            self._lost(sock)
        else:
            self._free.append(sock)

    def _lost(self, sock: socket.socket) -> None:
        """The connection has ended; a call on it has failed. Another takes its place."""
        self._busy.pop(sock.fileno(), None)
        self._partial.pop(sock.fileno(), None)
        del self._open[sock.fileno()]
        sock.close()
        if sock in self._free:
            self._free.remove(sock)
        self._connect()

    def _outcome(self, took: float, core: float, sent: int) -> Outcome:
        plan = self._plan
        seen = [Seen() for _ in plan.streams]
        for (due, number, _), ended, status in zip(self._calls, self._ended, self._status, strict=True):
            stream = seen[number]
            answered = 0 < status < 400
            stream.applied += answered
            stream.in_window += answered and plan.warm_up <= ended < plan.seconds
            stream.uncertain += not (answered or status == 503)
            if due < plan.warm_up:
                continue
            stream.due += 1
            if answered or status == 503:
                stream.refusals += not answered
                if self._pauses.during(due, ended):
                    continue
                histogram = stream.answered if answered else stream.refused
                key = bucket(ended - due)
                histogram[key] = histogram.get(key, 0) + 1
            else:
                stream.failed += 1
        for number, count in self._unpolite.items():
            seen[number].unpolite = count
        late: dict[int, int] = {}
        for lag in self._lag:
            key = bucket(lag)
            late[key] = late.get(key, 0) + 1
        labels = (stream.label for stream in plan.streams)
        streams = dict(zip(labels, seen, strict=True))
        lag_ms, paused_ms = percentile_ms(late, 0.99) or 0.0, self._pauses.total() * 1e3
        return Outcome(plan.seconds - plan.warm_up, took, core, sent, lag_ms, paused_ms, streams)


def merge(outcomes: Iterable[Outcome]) -> Outcome:
    """Those of several generators that ran at the same time."""
    first, *others = outcomes
    for other in others:
        first.core = max(first.core, other.core)
        first.sent += other.sent
        first.lag_ms = max(first.lag_ms, other.lag_ms)
        first.paused_ms = max(first.paused_ms, other.paused_ms)
        for label, seen in other.streams.items():
            first.streams[label].add(seen)
    return first


def to_json(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome))


def from_json(text: str) -> Outcome:
    raw = json.loads(text)
    raw["streams"] = {label: _seen(fields) for label, fields in raw["streams"].items()}
    return Outcome(**raw)


def _seen(fields: dict[str, Any]) -> Seen:
    for name in ("answered", "refused"):
        fields[name] = {int(key): count for key, count in fields[name].items()}
    return Seen(**fields)


def plan_from_json(text: str) -> Plan:
    raw = json.loads(text)
    raw["streams"] = [Stream(**fields) for fields in raw["streams"]]
    return Plan(**raw)


if __name__ == "__main__":
    print(to_json(Generator(plan_from_json(sys.stdin.read())).run()))
