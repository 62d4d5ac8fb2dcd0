"""Money between accounts, by messages: neither made nor lost, whichever process is killed at whichever moment.

    actord serve examples/transfer.py
    actord call Account/alice open amount=100
    actord call Account/alice transfer to=bob amount=30 id=t-1
    actord call Account/bob balance

The debit and the message are one commit. The message arrives once in effect, after the debit is on disk: for a moment
the money is in neither balance, but under way (`actord outbox ls` shows it).
"""

from actord import ActorError, StatefulActor


class Account(StatefulActor):
    async def open(self, amount: int) -> int:
        """Put the first money in. A second call changes nothing."""
        if await self.ctx.storage.get("balance") is None:
            await self.ctx.storage.put("balance", amount)
        return await self.balance()

    async def balance(self) -> int:
        found: int = await self.ctx.storage.get("balance", 0)
        return found

    async def transfer(self, to: str, amount: int, id: str) -> int:
        """Send money to another account. `id` names the transfer: the same call again does nothing more."""
        storage = self.ctx.storage
        balance = await self.balance()
        if await storage.get(f"out/{id}") is not None:
            return balance
        if amount <= 0 or to == self.ctx.id:
            raise ActorError("a transfer goes to somebody else, and is of more than 0", code="bad_transfer")
        if amount > balance:
            raise ActorError(f"the balance is {balance}", code="insufficient", status=409, data={"balance": balance})
        await storage.put_many({"balance": balance - amount, f"out/{id}": amount})
        await self.env.send(Account, to).receive(amount, id)
        return balance - amount

    async def receive(self, amount: int, id: str) -> None:
        """Take money that another account has sent."""
        storage = self.ctx.storage
        times: int = await storage.get(f"in/{id}", 0)
        await storage.put_many({"balance": await self.balance() + amount, f"in/{id}": times + 1})

    async def statement(self) -> dict[str, dict[str, int]]:
        """The amounts that were sent, and how often each transfer has come: once, always."""
        storage = self.ctx.storage
        found: dict[str, dict[str, int]] = {"out": {}, "in": {}}
        for kind, entries in found.items():
            after = None
            while page := await storage.list(prefix=f"{kind}/", start_after=after, limit=1000):
                entries.update({key.removeprefix(f"{kind}/"): value for key, value in page.items()})
                after = list(page)[-1]
        return found
