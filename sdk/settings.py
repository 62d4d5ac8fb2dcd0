"""What an operator may change, as one tree of structs; `configs/default.toml` explains every option in place.

The supervisor resolves it once (defaults < file < environment < flags) and hands it to its children as JSON.
Sizes are bytes and times are seconds unless the name says otherwise. Ranges stand in the types: a value outside of
them is refused when the settings are read.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from actord.limits import BODY_BYTES_MAX, MIB

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 30)]


class Server(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    host: str = "127.0.0.1"  # empty: no TCP
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8000  # 0 picks one
    uds: str = ""
    fronts: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    direct: bool = False  # clients of this machine and this user may talk to workers themselves
    workers: Annotated[int, msgspec.Meta(ge=0, le=1_024)] = 0  # 0: one for each core that the process may use
    pin: bool = True
    data_dir: str = "data"
    drain_limit: Seconds = 30.0
    stuck_after: Seconds = 60.0
    restart_delay_max: Seconds = 5.0
    token_file: str = ""  # empty: a credential of the service manager, else tokens.json in the data directory
    tls_cert: str = ""  # empty: no TLS
    tls_key: str = ""  # empty: in the same file
    tls_client_ca: str = ""
    tls_client: Literal["required", "optional"] = "required"
    forwarded_allow_ips: str = ""  # proxies whose word on clients is taken
    anonymous: str = ""  # scopes of those who have no token, with blanks between them


class Http(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    head_timeout: Seconds = 10.0
    head_bytes: Annotated[int, msgspec.Meta(ge=1_024, le=MIB)] = 16_384
    line_bytes: Annotated[int, msgspec.Meta(ge=256, le=MIB)] = 8_192
    header_count: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    body_bytes: Annotated[int, msgspec.Meta(ge=0, le=BODY_BYTES_MAX)] = 10 * MIB
    upload_bytes: Size = 0  # the same for bodies that the front door reads as streams; less than body_bytes: as that
    body_rate: Size = 1_024  # bytes a second that a body must make, after head_timeout of grace
    keep_alive: Seconds = 75.0
    write_stall: Seconds = 30.0
    write_buffer: Size = 8 * MIB  # answers waiting for one slow client before its reading is paused
    pipeline: Count = 64  # requests of one connection that may be under way
    connections: Count = 10_000
    connections_per_peer: Annotated[int, msgspec.Meta(ge=0, le=1 << 30)] = 0  # 0: no limit of its own
    call_deadline: Seconds = 60.0  # when the client states none
    server_timing: bool = False
    root_path: str = ""  # of the front door's ASGI application: where a proxy mounts it
    origins: str = ""  # of pages that may open sockets beside the server's own, with blanks between them; "*" for all


class Sockets(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    message_bytes: Annotated[int, msgspec.Meta(ge=1, le=MIB)] = MIB  # one message from a client, inflated
    queue_events: Count = 256  # of one socket, while its actor is busy
    queue_bytes: Annotated[int, msgspec.Meta(ge=1_024, le=64 * MIB)] = MIB
    queue_wait: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 1.0
    buffer_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024, le=1 << 40)] = 8 * MIB
    buffer_total: Annotated[int, msgspec.Meta(ge=MIB, le=1 << 50)] = 256 * MIB  # of one front
    ping_interval: Seconds = 20.0
    ping_timeout: Seconds = 20.0
    close_timeout: Seconds = 5.0
    compression: bool = True  # permessage-deflate, when the client offers it
    compress_over: Size = 1_024  # messages to clients that are shorter are sent as they are


class Actors(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    call_timeout: Seconds = 30.0
    init_timeout: Seconds = 30.0
    idle_after: Seconds = 60.0
    memory_target: Annotated[int, msgspec.Meta(ge=32 * MIB, le=1 << 50)] = 512 * MIB  # resident memory of one worker
    mailbox: Count = 1_000
    worker_queue: Count = 50_000
    queue_target: Annotated[float, msgspec.Meta(ge=0, le=3_600)] = 0.2  # 0: none
    cache_per_instance: Size = 1 * MIB
    sql_connections: Count = 10_000
    alarm_timeout: Seconds = 900.0
    alarm_retries: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 6
    alarms_at_once: Count = 256  # of one worker
    idempotency_ttl: Annotated[float, msgspec.Meta(gt=0, le=31 * 86_400)] = 86_400.0
    idempotency_keys: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1_000  # of one instance
    events_kept: Count = 1_000  # of one instance
    events_age: Annotated[float, msgspec.Meta(gt=0, le=31_622_400)] = 86_400.0
    event_streams: Count = 10_000  # readers that one worker serves at a time
    send_retries: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 6
    sends_at_once: Count = 256  # messages of one worker that are being delivered


class Storage(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    shards: Annotated[int, msgspec.Meta(ge=0, le=1_024)] = 0  # 0: one for each worker, when the directory is created
    ballast: Size = 8 * MIB
    checkpoint_wal: Annotated[int, msgspec.Meta(ge=64 * 1024, le=1 << 40)] = 16 * MIB
    trash_age: Annotated[float, msgspec.Meta(ge=0, le=3_660 * 86_400)] = (
        30 * 86_400
    )  # 0: kept until somebody removes it
    backup_wal: Annotated[int, msgspec.Meta(ge=64 * 1024, le=1 << 40)] = 1024 * MIB
    page_cache: Annotated[int, msgspec.Meta(ge=64 * 1024, le=1 << 40)] = 16 * MIB
    flush: Literal["auto", "kernel", "thread"] = "auto"


class Log(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    slow_call: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 1.0  # 0: none is told


class Metrics(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    listen: str = ""  # host:port of their own listener; empty: on the server's address, if that is a loopback one


class Tracing(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    enabled: bool = False
    sample: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01  # of calls without a traceparent


class ActorBinding(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    binding: str
    type: str
    expose: bool | None = None  # None: as the class says


class MountedProgram(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A further program: ``main`` as in ``App``; its front door, if it has one, serves the paths below ``mount``."""

    main: str
    mount: str = ""
    actors: list[ActorBinding] = msgspec.field(default_factory=list)


class App(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The user's program. ``root`` is put first on ``sys.path``; ``main`` is a file below it or a module's name."""

    name: str = ""
    root: str = "."
    main: str = ""
    actors: list[ActorBinding] = msgspec.field(default_factory=list)
    programs: list[MountedProgram] = msgspec.field(default_factory=list)


class Settings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    server: Server = msgspec.field(default_factory=Server)
    http: Http = msgspec.field(default_factory=Http)
    sockets: Sockets = msgspec.field(default_factory=Sockets)
    # Spelled [runtime] in files and JSON: `[[actors]]` of actord.toml lists the bindings.
    actors: Actors = msgspec.field(default_factory=Actors, name="runtime")
    storage: Storage = msgspec.field(default_factory=Storage)
    log: Log = msgspec.field(default_factory=Log)
    metrics: Metrics = msgspec.field(default_factory=Metrics)
    tracing: Tracing = msgspec.field(default_factory=Tracing)
    app: App = msgspec.field(default_factory=App)
