"""What an operator may change, as one tree of structs; `configs/default.toml` explains every option in place.

The supervisor resolves it once (defaults < file < environment < flags) and hands it to its children as JSON.
Sizes are bytes and times are seconds unless the name says otherwise.
"""

from __future__ import annotations

import msgspec

from actord.limits import MIB


class Server(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    host: str = "127.0.0.1"
    port: int = 8000
    uds: str = ""
    fronts: int = 1
    workers: int = 0  # 0: one for each core that the process may use
    pin: bool = True
    data_dir: str = "data"
    drain_limit: float = 30.0
    stuck_after: float = 60.0
    restart_delay_max: float = 5.0


class Http(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    head_timeout: float = 10.0
    head_bytes: int = 16_384
    line_bytes: int = 8_192
    header_count: int = 100
    body_bytes: int = 10 * MIB
    body_rate: int = 1_024  # bytes a second that a body must make, after head_timeout of grace
    keep_alive: float = 75.0
    write_stall: float = 30.0
    write_buffer: int = 8 * MIB  # answers waiting for one slow client before its reading is paused
    pipeline: int = 64  # requests of one connection that may be under way
    connections: int = 10_000
    connections_per_peer: int = 0  # 0: no limit of its own
    call_deadline: float = 60.0  # when the client states none
    server_timing: bool = False


class Actors(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    call_timeout: float = 30.0
    init_timeout: float = 30.0
    idle_after: float = 60.0
    memory_target: int = 512 * MIB  # resident memory of one worker
    mailbox: int = 1_000
    worker_queue: int = 50_000
    cache_per_instance: int = 1 * MIB


class Storage(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    shards: int = 0  # 0: one for each worker, when the directory is created
    ballast: int = 8 * MIB
    checkpoint_wal: int = 16 * MIB
    page_cache: int = 16 * MIB


class Log(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    level: str = "info"
    format: str = "text"


class ActorBinding(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    binding: str
    type: str


class App(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The user's program. ``root`` is put first on ``sys.path``; ``main`` is a file below it or a module's name."""

    name: str = ""
    root: str = "."
    main: str = ""
    actors: list[ActorBinding] = msgspec.field(default_factory=list)


class Settings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    server: Server = msgspec.field(default_factory=Server)
    http: Http = msgspec.field(default_factory=Http)
    actors: Actors = msgspec.field(default_factory=Actors)
    storage: Storage = msgspec.field(default_factory=Storage)
    log: Log = msgspec.field(default_factory=Log)
    app: App = msgspec.field(default_factory=App)
