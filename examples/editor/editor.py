"""A text that several people write at once, with everybody's cursor.

Serve it with

    actord serve examples/editor/editor.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
from actord import Env, Request, Response, StatefulActor, WebSocket

PAGE = Path(__file__).with_name("page.html").read_text()

Number = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Site = Annotated[str, msgspec.Meta(pattern="^[0-9a-z]{4,16}$")]
Id = tuple[Number, Site]


class Insert(msgspec.Struct, array_like=True):
    first: Id
    after: Id | None
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=20_000)]


class Said(msgspec.Struct):
    """What a page says: an edit with its number, or where its cursor is: behind a character, or at the beginning."""

    edit: int | None = None
    insert: Insert | None = None
    delete: list[Id] = []
    cursor: Id | None = None


class Text:
    """A text that many write at once, and that becomes the same for all of them (a replicated growable array).

    Every character has an id of its own, ``(n, site)``, where ``n`` is above every number that its writer had seen, and
    a place: behind another character. Of two that want the same place the one with the greater id comes first. Deleted
    characters stay, unseen, because others may stand behind them. So it does not matter in which order the edits of
    different writers arrive, and one that arrives twice changes nothing. ``page.html`` does the same in the browser.
    """

    def __init__(self, items: list[Any] | None = None) -> None:
        """``items``: as ``items`` gives them."""
        self._ids: list[Id] = [(n, site) for n, site, _, _ in items or ()]
        self._chars: dict[Id, str] = {(n, site): char for n, site, char, _ in items or ()}
        self._gone: set[Id] = {(n, site) for n, site, _, gone in items or () if gone}

    def insert(self, first: Id, after: Id | None, text: str) -> None:
        """Put characters behind ``after`` (None, or one that is not known: at the beginning), one behind the other."""
        n, site = first
        for char in text:
            id_ = (n, site)
            if id_ not in self._chars:
                at = 0 if after is None or after not in self._chars else self._ids.index(after) + 1
                while at < len(self._ids) and self._ids[at] > id_:
                    at += 1
                self._ids.insert(at, id_)
                self._chars[id_] = char
            after = id_
            n += 1

    def delete(self, ids: list[Id]) -> None:
        self._gone.update(id_ for id_ in ids if id_ in self._chars)

    def items(self, *, deleted: bool = True) -> list[Any]:
        """Number, site, character, whether it is deleted; in order."""
        return [[*id_, self._chars[id_], id_ in self._gone] for id_ in self._ids if deleted or id_ not in self._gone]

    def __len__(self) -> int:
        """Characters, deleted ones included."""
        return len(self._ids)

    def __str__(self) -> str:
        return "".join(self._chars[id_] for id_ in self._ids if id_ not in self._gone)


class Document(StatefulActor):
    """Edits are stored as they come, one small row each; now and then the whole text takes the place of its edits."""

    edits_kept: ClassVar[int] = 200
    length: ClassVar[int] = 20_000

    async def on_activate(self) -> None:
        storage = self.ctx.storage
        self.text = Text(await storage.get("text"))
        edits = await storage.list(prefix="edit/", limit=1_000)
        self.edits = len(edits)
        for insert, delete in edits.values():
            self._apply(insert, delete)

    async def read(self) -> str:
        """The text as it is."""
        return str(self.text)

    async def web_socket(self, ws: WebSocket, request: Request) -> None:
        site, name = request.query.get("site", ""), " ".join(request.query.get("name", "").split())[:30]
        if not (site.isalnum() and site.isascii() and 4 <= len(site) <= 16):
            ws.close(4000, "say who you are: ?site=, 4 to 16 of 0-9 a-z")
            return
        ws.attachment = {"site": site, "name": name or "guest"}
        ws.send(_json({"text": self.text.items()}))
        self._tell_who()

    async def web_socket_message(self, ws: WebSocket, data: str | bytes) -> None:
        try:
            said = msgspec.json.decode(data, type=Said)
        except msgspec.DecodeError as error:
            ws.close(4001, str(error)[:100])
            return
        if said.edit is None:
            self.ctx.broadcast(_json({"site": ws.attachment["site"], "cursor": said.cursor}), exclude=ws)
            return
        insert, delete = msgspec.to_builtins((said.insert, said.delete))
        if insert is not None and len(self.text) + len(insert[2]) > self.length:
            ws.close(4002, "the document is full")
            return
        self._apply(insert, delete)
        await self._keep(insert, delete)
        ws.send(_json({"done": said.edit}))
        self.ctx.broadcast(_json({"insert": insert, "delete": delete}), exclude=ws)

    async def web_socket_close(self, ws: WebSocket, code: int, reason: str) -> None:
        if not [other for other in self.ctx.sockets() if other.id != ws.id]:
            await self._store(Text(self.text.items(deleted=False)))  # nobody writes: nothing stands behind them
        self._tell_who(without=ws)

    def _apply(self, insert: Any, delete: Any) -> None:
        if insert is not None:
            first, after, text = insert
            self.text.insert(tuple(first), None if after is None else tuple(after), text)
        self.text.delete([(n, site) for n, site in delete])

    async def _keep(self, insert: Any, delete: Any) -> None:
        number = await self.ctx.storage.get("count", 0) + 1
        await self.ctx.storage.put_many({"count": number, f"edit/{number:012}": (insert, delete)})
        self.edits += 1
        if self.edits >= self.edits_kept:
            await self._store(self.text)

    async def _store(self, text: Text) -> None:
        storage = self.ctx.storage
        await storage.put("text", text.items())
        await storage.delete_many(list(await storage.list(prefix="edit/", limit=1_000)))
        self.text, self.edits = text, 0

    def _tell_who(self, without: WebSocket | None = None) -> None:
        there = [
            ws.attachment for ws in self.ctx.sockets() if ws.attachment and (without is None or ws.id != without.id)
        ]
        self.ctx.broadcast(_json({"people": there}))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


async def fetch(request: Request, env: Env) -> Response:
    """The page, which opens a socket to the document by itself.

    GET /
    """
    if request.method == "GET" and request.path == "/":
        return Response(PAGE, media_type="text/html")
    return Response.text("not found", status=404)
