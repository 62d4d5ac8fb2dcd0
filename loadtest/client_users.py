"""The Python client as users have it: callers in a closed loop, one call each, on one event loop.

``python -m actord.loadtest.client_users URL CALLERS SECONDS NAMES front|direct``: run by ``bench_direct``. The one
module here that imports something of ours, since that is what it measures.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

import uvloop
from actord.client import AsyncClient
from actord.loadtest.roles import print_result, wait_for_start


async def main() -> None:
    url, way = sys.argv[1], sys.argv[5]
    callers, seconds, names = int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    async with AsyncClient(url, direct=way == "direct", idempotent=False, connections=callers) as client:
        await client.actor("Entries", "acct-1").count()
        wait_for_start()
        began, cpu_began = time.perf_counter(), time.process_time()
        until = began + seconds
        times: list[float] = []
        errors = 0

        async def caller() -> None:
            nonlocal errors
            clock = time.perf_counter
            while (sent := clock()) < until:
                try:
                    await client.actor("Entries", f"acct-{random.randrange(names) + 1}").insert(1)
                except Exception:
                    errors += 1
                times.append(clock() - sent)

        await asyncio.gather(*(caller() for _ in range(callers)))
        print_result(times, errors, began, cpu_began)


if __name__ == "__main__":
    uvloop.run(main())
