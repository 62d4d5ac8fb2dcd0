"""``WebSocket``: one client's socket, as its actor sees it. The runtime's own class implements it."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Iterator, Mapping, MutableSet
from typing import Any, Protocol


class Tags(MutableSet[str]):
    """The tags of one socket. Changing them, or assigning ``ws.tags``, takes effect with the turn."""

    __slots__ = ("_owner", "_values")

    def __init__(self, owner: Any, values: Iterable[str]) -> None:
        self._owner = owner
        self._values = tuple(values)

    def __contains__(self, tag: object) -> bool:
        return tag in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: str) -> None:
        if value not in self._values:
            self._set((*self._values, value))

    def discard(self, value: str) -> None:
        if value in self._values:
            self._set(tuple(tag for tag in self._values if tag != value))

    def _set(self, values: tuple[str, ...]) -> None:
        self._owner.tags = values
        self._values = values

    def __repr__(self) -> str:
        return f"Tags({list(self._values)!r})"


class WebSocket(Protocol):
    """One client's WebSocket. It outlives the instance: after an eviction, a crash or a reload the actor meets the same
    socket again, with its ``id``, ``tags``, ``attachment`` and ``subprotocol``.

    What a turn does to it counts only if the turn succeeds, and leaves when the turn's commit is durable. Only the turn
    that runs may use it (``TurnEnded`` otherwise). One for a socket that has closed is harmless and does nothing. All
    methods may be awaited, or not.
    """

    @property
    def id(self) -> str:
        """Unique among all sockets, and the same for as long as the connection lives."""
        ...

    @property
    def subprotocol(self) -> str | None:
        """The one that was accepted."""
        ...

    @property
    def attachment(self) -> Any:
        """A value of the codec that stays with the socket, at most 16 KiB encoded; None at first. What is read is a
        copy; assign it to change it. Raises ``CodecError``.
        """
        ...

    @attachment.setter
    def attachment(self, value: Any) -> None: ...

    @property
    def tags(self) -> MutableSet[str]:
        """Words by which ``ctx.sockets`` and ``ctx.broadcast`` find it: at most 16, of 1 to 256 bytes each."""
        ...

    @tags.setter
    def tags(self, tags: Iterable[str]) -> None: ...

    def accept(
        self, subprotocol: str | None = None, *, headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None
    ) -> Awaitable[None]:
        """Say how the client is let in; only in ``web_socket``, which lets it in anyway when it returns.

        ``subprotocol``: one that the client offered, else ``ValueError``. ``headers`` go into the answer.
        """
        ...

    def send(self, data: str | bytes) -> Awaitable[None]:
        """Send a message: text for str, binary for bytes, at most 4 MiB (``ValueError``), 64 MiB in one turn."""
        ...

    def send_now(self, data: str | bytes) -> Awaitable[None]:
        """The same at once: before the turn's commit, and also if the turn fails later."""
        ...

    def close(self, code: int = 1000, reason: str = "") -> Awaitable[None]:
        """Close the socket. ``code``: 1000 to 1014 but 1004 to 1006, or 3000 to 4999; ``reason``: at most 123 bytes of
        UTF-8; ``ValueError`` otherwise. ``web_socket_close`` runs once the client has answered.
        """
        ...
