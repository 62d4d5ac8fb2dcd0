"""An order that needs two others, stock and a card: each step is a turn with its own commit, joined by messages.

    actord serve examples/saga.py
    actord call Stock/lamp add quantity=10
    actord call Card/visa-1 limit amount=100
    actord call Order/o-1 place sku=lamp quantity=2 card=visa-1 amount=60
    actord call Order/o-1 state

When a later step is refused, the earlier ones are undone by messages the other way (compensation). No step is lost and
none happens twice, so that no order stays half done: also not when the server is killed between any two of them.
"""

from actord import ActorError, StatefulActor

GIVE_UP_SECONDS = 900


class Order(StatefulActor):
    async def place(self, sku: str, quantity: int, card: str, amount: int) -> str:
        """Begin. A second call changes nothing."""
        if await self.state() == "new":
            await self.ctx.storage.put_many({"sku": sku, "quantity": quantity, "card": card, "amount": amount})
            await self.env.send(Stock, sku).reserve(self.ctx.id, quantity)
            await self.env.send(Order, self.ctx.id, delay=GIVE_UP_SECONDS).give_up()
            await self._become("reserving")
        return await self.state()

    async def state(self) -> str:
        found: str = await self.ctx.storage.get("state", "new")
        return found

    async def reserved(self) -> None:
        if await self.state() == "reserving":
            order = await self.ctx.storage.get_many(["card", "amount"])
            await self.env.send(Card, order["card"]).charge(self.ctx.id, order["amount"])
            await self._become("charging")
        else:  # it was given up meanwhile
            await self._release()

    async def sold_out(self) -> None:
        await self._become("cancelled: sold out")

    async def charged(self) -> None:
        if await self.state() == "charging":
            await self._become("confirmed")
        else:
            order = await self.ctx.storage.get_many(["card", "amount"])
            await self.env.send(Card, order["card"]).refund(self.ctx.id, order["amount"])

    async def declined(self) -> None:
        if await self.state() == "charging":
            await self._release()
            await self._become("cancelled: declined")

    async def give_up(self) -> None:
        """Comes some time after the order was placed, whatever became of it."""
        state = await self.state()
        if state in ("reserving", "charging"):
            await self._become("cancelled: too late")
        if state == "charging":
            await self._release()

    async def _release(self) -> None:
        order = await self.ctx.storage.get_many(["sku", "quantity"])
        await self.env.send(Stock, order["sku"]).release(order["quantity"])

    async def _become(self, state: str) -> None:
        await self.ctx.storage.put("state", state)


class Stock(StatefulActor):
    async def add(self, quantity: int) -> int:
        left = await self.left() + quantity
        await self.ctx.storage.put("left", left)
        return left

    async def left(self) -> int:
        found: int = await self.ctx.storage.get("left", 0)
        return found

    async def reserve(self, order: str, quantity: int) -> None:
        """Answers with a message, `reserved` or `sold_out`."""
        left = await self.left()
        if quantity > left:
            await self.env.send(Order, order).sold_out()
        else:
            await self.ctx.storage.put("left", left - quantity)
            await self.env.send(Order, order).reserved()

    async def release(self, quantity: int) -> None:
        await self.add(quantity)


class Card(StatefulActor):
    async def limit(self, amount: int) -> None:
        if amount < 0:
            raise ActorError("a limit is 0 or more", code="bad_limit")
        await self.ctx.storage.put("free", amount)

    async def free(self) -> int:
        found: int = await self.ctx.storage.get("free", 0)
        return found

    async def charge(self, order: str, amount: int) -> None:
        """Answers with a message, `charged` or `declined`."""
        free = await self.free()
        if amount > free:
            await self.env.send(Order, order).declined()
        else:
            await self.ctx.storage.put("free", free - amount)
            await self.env.send(Order, order).charged()

    async def refund(self, order: str, amount: int) -> None:
        await self.ctx.storage.put("free", await self.free() + amount)
