"""Tic-tac-toe for two, with as many onlookers as like. Stop the server in mid-game: the game goes on when it is back.

Serve it with

    actord serve examples/tictactoe/tictactoe.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from actord import Env, Request, Response, StatefulActor, WebSocket

PAGE = Path(__file__).with_name("page.html").read_text()
LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]

Mark = Literal["X", "O"]


class Said(msgspec.Struct):
    """What a page says: a cell to play, or that it wants another game."""

    play: Annotated[int, msgspec.Meta(ge=0, le=8)] | None = None
    again: bool = False


class Table(msgspec.Struct):
    """One game. ``seats`` are the secrets of the pages that play."""

    board: list[str]
    seats: dict[str, str]
    turn: Mark = "X"
    first: Mark = "X"

    @property
    def line(self) -> tuple[int, ...]:
        """The three cells that win."""
        return next((line for line in LINES if len({self.board[i] for i in line} - {""}) == 1 and self._full(line)), ())

    @property
    def over(self) -> bool:
        return bool(self.line) or self._full(range(9))

    def _full(self, cells: Any) -> bool:
        return all(self.board[i] for i in cells)


class Game(StatefulActor):
    """A page says who it is by a secret that it made up, so that its seat waits for it when its connection breaks."""

    async def web_socket(self, ws: WebSocket, request: Request) -> None:
        me = request.query.get("me", "")
        if not 8 <= len(me) <= 64:
            ws.close(4000, "say who you are: ?me=SECRET, 8 to 64 characters")
            return
        ws.attachment = me
        table = await self._table()
        free = [mark for mark in ("X", "O") if mark not in table.seats]
        if me not in table.seats.values() and free:
            table.seats[free[0]] = me
            await self._keep(table)
        self._show(table)

    async def web_socket_message(self, ws: WebSocket, data: str | bytes) -> None:
        try:
            said = msgspec.json.decode(data, type=Said)
        except msgspec.DecodeError as error:
            ws.close(4001, str(error)[:100])
            return
        table = await self._table()
        mine = next((mark for mark, me in table.seats.items() if me == ws.attachment), "")
        if said.again and mine and table.over:
            first: Mark = "O" if table.first == "X" else "X"
            table = Table([""] * 9, table.seats, first, first)
        elif said.play is not None and mine == table.turn and not table.over and not table.board[said.play]:
            table.board[said.play] = mine
            table.turn = "O" if mine == "X" else "X"
        await self._keep(table)
        self._show(table)

    async def web_socket_close(self, ws: WebSocket, code: int, reason: str) -> None:
        """A seat is kept for its player while a game is on."""
        table = await self._table()
        here = {other.attachment for other in self.ctx.sockets() if other.id != ws.id}
        if table.over or not any(table.board):
            table.seats = {mark: me for mark, me in table.seats.items() if me in here}
            await self._keep(table)
        self._show(table, without=ws)

    async def _table(self) -> Table:
        stored = await self.ctx.storage.get("table")
        return Table([""] * 9, {}) if stored is None else msgspec.convert(stored, Table)

    async def _keep(self, table: Table) -> None:
        await self.ctx.storage.put("table", msgspec.to_builtins(table))

    def _show(self, table: Table, without: WebSocket | None = None) -> None:
        """Everybody sees the board; each page is told which mark is its own."""
        sockets = [ws for ws in self.ctx.sockets() if without is None or ws.id != without.id]
        here = {ws.attachment for ws in sockets}
        state = {
            "board": table.board,
            "turn": table.turn,
            "line": table.line,
            "over": table.over,
            "here": [mark for mark, me in table.seats.items() if me in here],
            "taken": sorted(table.seats),
            "watching": len(here - set(table.seats.values())),
        }
        for ws in sockets:
            mine = next((mark for mark, me in table.seats.items() if me == ws.attachment), "")
            ws.send(msgspec.json.encode(state | {"you": mine}).decode())


async def fetch(request: Request, env: Env) -> Response:
    """The page, which opens a socket to the actor by itself.

    GET /
    """
    if request.method == "GET" and request.path == "/":
        return Response(PAGE, media_type="text/html")
    return Response.text("not found", status=404)
