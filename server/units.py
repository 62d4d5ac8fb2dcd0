"""The units of systemd for a server: the service and its socket, as text. ``configs/`` holds those of no program.

1. They are a function of the arguments alone: neither this machine nor the environment of the shell is in them.
2. Every line that is not plain says why it is there, for whoever changes it.
3. The sandbox holds for the system's units. A user's manager may not mount, so its units have the rest of it.
"""

from __future__ import annotations

import ipaddress
import math
import re
from typing import NamedTuple

from actord.server.exits import CONFIG, USAGE, ConfigError
from actord.settings import Settings

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
DESCRIPTORS = 65_536
SPARE_DESCRIPTORS = 1_024
STOP_SPARE_SECONDS = 10  # behind the drain limit: the supervisor ends what is left by itself
WATCHDOG_TIMES = 2  # of server.stuck_after: the supervisor replaces a worker that hangs before systemd replaces all
_PLAIN = re.compile(r"[A-Za-z0-9_./=:@%+,-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Units(NamedTuple):
    """``name`` is the one of both files, without their endings."""

    name: str
    service: str
    socket: str

    def files(self) -> dict[str, str]:
        return {f"{self.name}.service": self.service, f"{self.name}.socket": self.socket}


class Plan(NamedTuple):
    """What the units are made of. ``serve`` is the whole command line but for ``--data-dir``; ``data_dir`` an absolute
    path, or nothing for the state directory of the service; ``tokens`` the path of a token file, or nothing."""

    name: str
    serve: tuple[str, ...]
    data_dir: str = ""
    tokens: str = ""
    user: bool = False


def units(plan: Plan, settings: Settings) -> Units:
    """Both units. Raises ``ConfigError`` for what no unit can say."""
    if not NAME.fullmatch(plan.name):
        raise ConfigError(f"{plan.name!r} is no name for a unit: letters, digits, dots, - and _ only.")
    return Units(plan.name, _service(plan, settings), _socket(plan, settings))


def _service(plan: Plan, settings: Settings) -> str:
    server, name = settings.server, plan.name
    data = _path(plan.data_dir) if plan.data_dir else f"%S/{name}"
    command = " ".join([*map(_word, plan.serve), "--data-dir", data])
    descriptors = max(DESCRIPTORS, settings.http.connections + SPARE_DESCRIPTORS)
    text = f"""\
[Unit]
Description=actord, durable actors: {name}
# The socket is opened by systemd: it stays, and clients wait in its queue, while the service restarts.
Requires={name}.socket
After={name}.socket network.target
# A server that can't start now (its disk is away, its data is in use) is tried again without end.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
# Loads the program and its configuration anew, without a lost call; it fails when they are refused.
ExecReload={_word(plan.serve[0])} reload --data-dir {data}
"""
    if not plan.user:
        text += f"""\
# A user of its own, for the commands that work on the data of a stopped server as well:
#   useradd --system --home-dir /var/lib/{name} --shell /usr/sbin/nologin {name}
User={name}
"""
    text += """\
UMask=0077
"""
    if plan.data_dir:
        text += """\
# The data directory has to be there, with its user as the owner.
"""
        if not plan.user:
            text += f"ReadWritePaths={data}\n"
    else:
        text += f"""\
# The data.
StateDirectory={name}
StateDirectoryMode=0700
"""
    text += f"""\
# Sockets between the processes: memory, emptied at each start.
RuntimeDirectory={name}
RuntimeDirectoryMode=0700
"""
    if not plan.user:
        mark = "" if plan.tokens else "#"
        tokens = _path(plan.tokens) if plan.tokens else f"/etc/{name}/tokens.json"
        text += f"""\
# The file of tokens: readable for root alone, and for this service as a credential. Workers don't see it. With the
# second line the server does not start without it.
{mark}LoadCredential=actord-tokens:{tokens}
{mark}Environment=ACTORD_SERVER_TOKEN_FILE=%d/actord-tokens
"""
    text += f"""\

# {CONFIG}: the configuration or the program can't work; {USAGE}: the command line is wrong. Another try would not help.
Restart=on-failure
RestartSec=2s
RestartPreventExitStatus={CONFIG} {USAGE}
# A large log is recovered before the first call is taken.
TimeoutStartSec=10min
# server.drain_limit, and what it takes to end what is left then.
TimeoutStopSec={math.ceil(server.drain_limit) + STOP_SPARE_SECONDS}s
# SIGTERM goes to the supervisor alone: it lets calls finish, and workers commit.
KillMode=mixed
# Fed while every process answers. Longer than server.stuck_after, after which the supervisor replaces one that hangs.
WatchdogSec={math.ceil(server.stuck_after * WATCHDOG_TIMES)}s
# More than http.connections.
LimitNOFILE={descriptors}
# A worker that the kernel kills for its memory is replaced; the others go on.
OOMPolicy=continue

"""
    text += _SANDBOX if plan.user else _SYSTEM_SANDBOX.replace("@HOME@", _home(plan)) + _SANDBOX
    text += f"""\

[Install]
WantedBy={"default.target" if plan.user else "multi-user.target"}
Also={name}.socket
"""
    return text


_SYSTEM_SANDBOX = """\
# What the service can't do, whatever its program tries. See systemd.exec(5); take a line out if a program needs it.
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=@HOME@
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
KeyringMode=private
RemoveIPC=yes
"""

_SANDBOX = """\
NoNewPrivileges=yes
LockPersonality=yes
# Some foreign libraries make machine code while they run (numba, torch): they need this line to go.
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
# server.pin ties each worker to a core; a front does not take a core from a worker that is full.
SystemCallFilter=sched_setaffinity sched_setscheduler
"""


def _home(plan: Plan) -> str:
    """Homes are hidden, unless the program or the interpreter lives in one."""
    inside = any(word.startswith(("/home/", "/root/", "/run/user/")) for word in (*plan.serve, plan.data_dir))
    return "read-only" if inside else "yes"


def _socket(plan: Plan, settings: Settings) -> str:
    server, name = settings.server, plan.name
    text = f"""\
[Unit]
Description=actord, the sockets of {name}

[Socket]
"""
    if server.host:
        text += f"ListenStream={_address(server.host, server.port)}\n"
    if server.uds:
        text += f"""\
ListenStream={_path(server.uds)}
# Who may connect to the unix socket.
SocketMode=0660
"""
        if not plan.user:
            text += f"SocketUser={name}\n"
    text += """\
Backlog=4096

[Install]
WantedBy=sockets.target
"""
    return text


def _address(host: str, port: int) -> str:
    if port == 0:
        raise ConfigError("A socket unit needs a port: choose one with --port.")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        raise ConfigError(f"A socket unit needs an address, and {host!r} is a name.") from None
    return f"[{host}]:{port}" if version == 6 else f"{host}:{port}"


def _word(text: str) -> str:
    """One word of a command line, whatever is in it. Raises ``ConfigError`` for control characters."""
    if _CONTROL.search(text):
        raise ConfigError(f"A unit can't name {text!r}: there is a control character in it.")
    text = text.replace("%", "%%")
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$") + '"'


def _path(text: str) -> str:
    """A path outside of command lines, where each setting has other rules for quotes: plain ones only."""
    if not _PLAIN.fullmatch(text):
        raise ConfigError(f"A unit can't name {text!r} here: choose a path of letters, digits and ._/-+ only.")
    return text.replace("%", "%%")
