"""``Request`` and ``Response``: what a ``fetch`` of an actor and the front door's ``fetch`` take and give.

Bodies are whole bytes here; ``streaming`` has the others. Header names keep the spelling they came with and compare
without regard to case; their values are str of Latin-1, as HTTP has them.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote

from actord.errors import ActordError, BadRequest, PayloadTooLarge

if TYPE_CHECKING:
    from actord.cookies import SameSite

HeaderInput = Mapping[str, str] | Iterable[tuple[str, str]] | None

# What the front alone decides: how the message is framed and what becomes of the connection.
FRAMING_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch


class MultiMap(Mapping[str, str]):
    """An immutable mapping that may hold several values for a key, in their order.

    ``m[key]`` and ``get`` give the first value, ``getlist`` all of them, ``multi_items`` every pair.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._items = list(items)

    @staticmethod
    def _same(key: str) -> str:
        """The form in which keys compare."""
        return key

    def __getitem__(self, key: str) -> str:
        same = self._same
        wanted = same(key)
        for name, value in self._items:
            if same(name) == wanted:
                return value
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        same = self._same
        return isinstance(key, str) and any(same(name) == same(key) for name, _ in self._items)

    def __iter__(self) -> Iterator[str]:
        same = self._same
        return iter(dict.fromkeys(same(name) for name, _ in self._items))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def getlist(self, key: str) -> list[str]:
        """All values of ``key``, in order; an empty list when there is none."""
        same = self._same
        wanted = same(key)
        return [value for name, value in self._items if same(name) == wanted]

    def multi_items(self) -> list[tuple[str, str]]:
        """Every pair as it came, in order."""
        return list(self._items)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        same = self._same
        return [(same(n), v) for n, v in self._items] == [(same(n), v) for n, v in other._items]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._items!r})"


class Headers(MultiMap):
    """A ``MultiMap`` whose keys compare without regard to case, and which can be changed.

    Every name and value that is set is checked: ``ValueError`` for a name that is no token, for CR, LF, NUL, other
    controls and anything beyond Latin-1 in a value, and for blanks around it.
    """

    __slots__ = ()

    def __init__(self, headers: HeaderInput = None) -> None:
        super().__init__()
        if headers is not None:
            pairs = headers.multi_items() if isinstance(headers, MultiMap) else _pairs(headers)
            for name, value in pairs:
                self.add(name, value)

    @classmethod
    def received(cls, items: Iterable[Iterable[str]]) -> Headers:
        """Headers that a parser has checked already."""
        headers = cls()
        headers._items = [(name, value) for name, value in items]
        return headers

    @staticmethod
    def _same(key: str) -> str:
        return key.lower()

    def add(self, name: str, value: str) -> None:
        """Add a value, beside those that the name may have."""
        check_header(name, value)
        self._items.append((name, value))

    def __setitem__(self, name: str, value: str) -> None:
        """Replace whatever the name had; it takes the place of the first."""
        check_header(name, value)
        lower = name.lower()
        place = next((i for i, (n, _) in enumerate(self._items) if n.lower() == lower), len(self._items))
        rest = [(n, v) for n, v in self._items[place:] if n.lower() != lower]
        self._items[place:] = [(name, value), *rest]

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        lower = name.lower()
        self._items = [(n, v) for n, v in self._items if n.lower() != lower]

    def setdefault(self, name: str, value: str) -> str:
        """The first value of ``name``, after setting it to ``value`` if it had none."""
        if name not in self:
            self.add(name, value)
        return self[name]


def check_header(name: object, value: object) -> None:
    """Raise ``ValueError`` (``TypeError`` for what is no str) for a header that must not be sent."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"a header is a str and its value a str, not {type(name).__name__}: {type(value).__name__}")
    if not _NAME(name):
        raise ValueError(f"{name!r} is not a header name: letters, digits and !#$%&'*+-.^_`|~ only")
    if not _VALUE(value):
        raise ValueError(f"the value of header {name} holds a control character or one beyond Latin-1: {value!r}")
    if value != value.strip(" \t"):
        raise ValueError(f"the value of header {name} begins or ends with a blank: {value!r}")


def _pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return headers.items() if isinstance(headers, Mapping) else headers


class Request:
    """An HTTP request.

    * ``method``: as sent, usually upper case. ``url``: the target as sent, path and query.
    * ``raw_path``: the path as sent; ``path``: the same with percent-escapes decoded (bytes that are no UTF-8 become
      U+FFFD). ``query_string``: what follows the first ``?``; ``query``: the same as a mapping.
    * ``query_params``: another name of ``query``. ``cookies``: those of the ``Cookie`` header, by name.
    * ``headers``: a mapping without regard to case. ``client``: the peer's address, or None where there is none.
    * ``scheme``: ``http`` or ``https``, as the client has it: a proxy of ``server.forwarded_allow_ips`` says so.
    """

    __slots__ = (
        "_body",
        "_follows",
        "_most",
        "_progress",
        "_query",
        "client",
        "headers",
        "method",
        "path",
        "query_string",
        "raw_path",
        "scheme",
        "url",
    )

    def __init__(
        self,
        method: str = "GET",
        url: str = "/",
        *,
        headers: HeaderInput = None,
        body: bytes | str = b"",
        client: str | None = None,
    ) -> None:
        if not _NAME(method):
            raise ValueError(f"{method!r} is not an HTTP method")
        self._set(method, url, Headers(headers), body.encode() if isinstance(body, str) else bytes(body), client)

    def _set(self, method: str, url: str, headers: Headers, body: bytes, client: str | None) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.client = client
        self.scheme = "http"
        self.raw_path, _, self.query_string = url.partition("?")
        self.path = unquote(self.raw_path) if "%" in self.raw_path else self.raw_path
        self._body = body
        self._query: MultiMap | None = None
        self._follows: AsyncIterator[bytes] | None = None

    def body_follows(self, stream: AsyncIterator[bytes], most: int) -> None:
        """For the runtime: the body is still coming; at most so many bytes of it are ever kept in one."""
        self._follows = stream
        self._most = most
        self._progress: Callable[[], None] | None = None

    def on_progress(self, progress: Callable[[], None]) -> None:
        """For the runtime: called with each part of a body that is still coming."""
        if self._follows is not None:
            self._progress = progress

    @property
    def query(self) -> MultiMap:
        """The query's parameters, decoded; names without ``=`` have the value ``""``."""
        if self._query is None:
            self._query = MultiMap(parse_qsl(self.query_string, keep_blank_values=True) if self.query_string else ())
        return self._query

    @property
    def query_params(self) -> MultiMap:
        return self.query

    @property
    def cookies(self) -> dict[str, str]:
        from actord.cookies import parse_cookies

        return parse_cookies("; ".join(self.headers.getlist("cookie")))

    async def stream(self) -> AsyncIterator[bytes]:
        """The body in parts, as they come: for what need not be in memory at once. At the front door the client is read
        as fast as this is; elsewhere the body is there, and one part. Once only: ``RuntimeError`` the second time.
        """
        if self._follows is None:
            if self._body:
                yield self._body
            return
        follows, self._follows = self._follows, _taken()
        async for part in follows:
            if self._progress is not None:
                self._progress()
            yield part

    async def body(self) -> bytes:
        """The whole body. ``PayloadTooLarge`` when it is over ``http.body_bytes``: read such a one with ``stream``."""
        if self._follows is not None:
            parts = bytearray()
            async for part in self.stream():
                parts += part
                if len(parts) > self._most:
                    raise PayloadTooLarge(f"The body may have {self._most} bytes at most.")
            self._body = bytes(parts)
            self._follows = None
        return self._body

    async def text(self) -> str:
        """The body as text, in the charset of its Content-Type or else UTF-8. Raises ``BadRequest``."""
        charset = _charset(self.headers.get("content-type", "")) or "utf-8"
        try:
            return (await self.body()).decode(charset)
        except (LookupError, ValueError):
            raise BadRequest(f"The body is not text in {charset}.") from None

    async def json(self) -> Any:
        """The body as a JSON value, with integers of any size exact. Raises ``BadRequest``."""
        from actord.json import loads

        return loads(await self.body())

    @classmethod
    def from_wire(cls, fields: list[Any], body: bytes) -> Request:
        """The request of a frame: ``fields`` is [method, target, [[name, value], ...], client address],
        and the scheme behind them if it is not http. ``ValueError`` when they are none."""
        method, target, headers, client, *scheme = fields
        texts = [method, target, *scheme, *(text for name, value in headers for text in (name, value))]
        if not all(type(text) is str for text in texts) or not (client is None or type(client) is str):
            raise ValueError("a request's fields are text")
        request = cls.__new__(cls)
        request._set(method, target, Headers.received(headers), body, client)
        if scheme:
            [request.scheme] = scheme
        return request

    def to_wire(self) -> list[Any]:
        """The fields that ``from_wire`` takes. The body travels beside them: see ``body``."""
        fields = [self.method, self.url, [list(item) for item in self.headers.multi_items()], self.client]
        return fields if self.scheme == "http" else [*fields, self.scheme]

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.url}>"


class Response:
    """An HTTP response: ``status``, ``headers`` and ``body``, all of which may be changed until it is returned.

    ``body`` is bytes or a str, which is sent as UTF-8. ``media_type`` becomes the Content-Type unless ``headers`` has
    one; for a str without either it is ``text/plain; charset=utf-8``. ``text/...`` gets ``; charset=utf-8``.

    The server frames the message and owns the connection: Content-Length, Transfer-Encoding, Connection, Keep-Alive,
    Proxy-Connection, TE, Trailer, Upgrade and Date are left out when they were set here. They are dropped rather than
    refused, so that the headers of another server's answer can be passed on as they are.

    Raises ``ValueError`` for a status outside 200 to 599 (1xx answers are the server's) and for a header that must not
    be sent; ``TypeError`` for a body of another type.
    """

    __slots__ = ("body", "headers", "status")

    body: bytes

    def __init__(
        self,
        body: bytes | str | None = b"",
        status: int = 200,
        headers: HeaderInput = None,
        media_type: str | None = None,
    ) -> None:
        if isinstance(body, str):
            self.body = body.encode()
            media_type = media_type or "text/plain"
        elif body is None:
            self.body = b""
        elif isinstance(body, bytes | bytearray | memoryview):
            self.body = bytes(body)
        else:
            raise TypeError(
                f"a body is bytes or str, not {type(body).__name__}; use Response.json(value) for JSON, and "
                "StreamingResponse(iterator) for what is made while it is sent"
            )
        check_status(status)
        self.status = int(status)
        self.headers = Headers(headers)
        if media_type is not None and "content-type" not in self.headers:
            if media_type.startswith("text/") and "charset" not in media_type.lower():
                media_type += "; charset=utf-8"
            self.headers.add("content-type", media_type)

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: HeaderInput = None) -> Response:
        """``value`` as JSON, by the rules of ``actord.json.dumps``. Raises ``CodecError`` for what has no JSON."""
        from actord.json import dumps

        return cls(dumps(value), status, headers, "application/json")

    @classmethod
    def text(cls, text: str, status: int = 200, headers: HeaderInput = None) -> Response:
        """Plain text, sent as UTF-8."""
        return cls(text, status, headers)

    @classmethod
    def html(cls, text: str, status: int = 200, headers: HeaderInput = None) -> Response:
        """HTML, sent as UTF-8."""
        return cls(text, status, headers, "text/html")

    @classmethod
    def redirect(cls, url: str, status: int = 307, headers: HeaderInput = None) -> Response:
        """Send the client to ``url``, percent-encoded where it has to be. 307 keeps the method, 303 makes a GET."""
        response = cls(b"", status, headers)
        response.headers["location"] = quote(url, safe=":/%#?=@[]!$&'()*+,;~")
        return response

    @classmethod
    def problem(cls, error: ActordError) -> Response:
        """An error as the runtime answers it: its status, and a problem document (RFC 9457)."""
        document = error.to_problem()
        response = cls.json(document, document["status"])
        response.headers["content-type"] = "application/problem+json"
        if error.retry_after is not None:
            response.headers["retry-after"] = str(max(1, round(error.retry_after)))
        return response

    def set_cookie(
        self,
        key: str,
        value: str = "",
        max_age: int | None = None,
        expires: datetime | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: SameSite | None = "lax",
    ) -> None:
        """Have the client keep a cookie: for ``max_age`` seconds, until ``expires`` (aware), or until it is closed."""
        from actord.cookies import cookie_header

        self.headers.add(
            "set-cookie",
            cookie_header(
                key,
                value,
                max_age=max_age,
                expires=expires,
                path=path,
                domain=domain,
                secure=secure,
                httponly=httponly,
                samesite=samesite,
            ),
        )

    def delete_cookie(self, key: str, path: str | None = "/", domain: str | None = None) -> None:
        """Have the client forget a cookie that was set with the same path and domain."""
        self.set_cookie(key, max_age=0, expires=datetime.fromtimestamp(0, UTC), path=path, domain=domain)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it as an ASGI application, so that handlers of FastAPI and Starlette may return it."""
        lines = self.head().decode("latin-1").split("\r\n")[:-1]
        headers = [
            (n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in (line.split(": ", 1) for line in lines)
        ]
        body = self.body.encode() if isinstance(self.body, str) else self.body
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    @classmethod
    def from_wire(cls, status: int, body: bytes, head: bytes | None) -> Response:
        """The response of a REPLY frame; ``head`` is what ``head`` gave, None for plain JSON."""
        response = cls.__new__(cls)
        response.status = status
        response.body = body
        lines = (b"content-type: application/json" if head is None else head).decode("latin-1").split("\r\n")
        response.headers = Headers.received(line.split(": ", 1) for line in lines if line)
        return response

    def head(self) -> bytes:
        """The header lines, each ended by CRLF, without those that the front adds or owns.

        Headers and status are checked again here, since both may have been changed. Raises as the constructor does.
        """
        check_status(self.status)
        headers = self.headers if isinstance(self.headers, Headers) else Headers(self.headers)
        lines = [f"{n}: {v}\r\n" for n, v in headers.multi_items() if n.lower() not in FRAMING_HEADERS]
        return "".join(lines).encode("latin-1")

    def __repr__(self) -> str:
        return f"<Response {self.status}, {len(self.body)} bytes>"


async def _taken() -> AsyncIterator[bytes]:
    raise RuntimeError("the body was read as a stream already")
    yield b""


def check_status(status: object) -> None:
    """Raise ``ValueError`` for what can't be the status of a final answer."""
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        raise ValueError(f"a status is an integer from 200 to 599, not {status!r}")


def _charset(content_type: str) -> str | None:
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return None
