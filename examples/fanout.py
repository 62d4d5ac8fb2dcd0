"""One publication, a message to each of a thousand subscribers: all of them get it, or the publication did not happen.

    actord serve examples/fanout.py
    actord call Topic/news subscribe alice
    actord call Topic/news publish text=hello
    actord call Subscriber/alice read

The publisher waits for one commit, not for the subscribers. Each of them gets the publications of a topic in order,
once; one that fails or is slow keeps nobody else waiting. A turn may send 10,000 messages; beyond that, a topic would
send to a few topics that send on.
"""

from actord import ActorError, StatefulActor

SUBSCRIBERS_MAX = 10_000
KEPT = 100


class Topic(StatefulActor):
    async def subscribe(self, *subscribers: str) -> int:
        """How many there are now."""
        names = list(dict.fromkeys([*await self._subscribers(), *subscribers]))
        if len(names) > SUBSCRIBERS_MAX:
            raise ActorError("this topic is full", code="full", status=409)
        await self.ctx.storage.put("subscribers", names)
        return len(names)

    async def unsubscribe(self, subscriber: str) -> int:
        names = [name for name in await self._subscribers() if name != subscriber]
        await self.ctx.storage.put("subscribers", names)
        return len(names)

    async def publish(self, text: str) -> int:
        """The publication's number, 1, 2, 3 and so on."""
        number: int = await self.ctx.storage.get("published", 0) + 1
        await self.ctx.storage.put("published", number)
        for name in await self._subscribers():
            await self.env.send(Subscriber, name).deliver(self.ctx.id, number, text)
        return number

    async def _subscribers(self) -> list[str]:
        found: list[str] = await self.ctx.storage.get("subscribers", [])
        return found


class Subscriber(StatefulActor):
    async def deliver(self, topic: str, number: int, text: str) -> None:
        inbox = await self.read()
        await self.ctx.storage.put("inbox", [*inbox, [topic, number, text]][-KEPT:])

    async def read(self) -> list[list[object]]:
        """The newest ones, oldest first: topic, number, text."""
        found: list[list[object]] = await self.ctx.storage.get("inbox", [])
        return found
