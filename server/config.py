"""Where the settings come from: defaults < file < ``ACTORD_...`` environment < flags.

1. Every value is checked where it is read: an error names the place (file, variable or flag) and the key.
2. What is not known is an error that names the nearest known thing: nothing is ignored in silence.
3. Relative paths in a file count from that file's folder; those of the environment and flags from the current one.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from actord.server.exits import ConfigError
from actord.server.forwarded import Proxies
from actord.server.program import PROJECT_FILE, Located, check_bindings, check_programs, locate
from actord.server.scopes import parse_scopes
from actord.server.sockets import is_loopback
from actord.settings import Settings

ENV_PREFIX = "ACTORD_"
# The sections of a file: spelling outside -> attribute of Settings.
SECTIONS = {
    field.encode_name: (field.name, {key.encode_name: key.type for key in msgspec.structs.fields(field.type)})
    for field in msgspec.structs.fields(Settings)
    if field.name != "app"
}
HEADER = ("name", "main", "actors", "programs")
# Flags of the command line have a short variable as well.
SHORT = {
    "ACTORD_HOST": ("server", "host"),
    "ACTORD_PORT": ("server", "port"),
    "ACTORD_UDS": ("server", "uds"),
    "ACTORD_WORKERS": ("server", "workers"),
    "ACTORD_DATA_DIR": ("server", "data_dir"),
}
# Read elsewhere: by clients and `actord call`, by `actord serve` for --config, by setup.py, by failpoints and tests.
OTHER_VARIABLES = frozenset({"ACTORD_URL", "ACTORD_CONFIG", "ACTORD_TOKEN", "ACTORD_COMPILE"})
OTHER_PREFIXES = ("ACTORD_FAILPOINT", "ACTORD_TEST_")
PATHS = frozenset(("server", key) for key in ("data_dir", "uds", "token_file", "tls_cert", "tls_key", "tls_client_ca"))

Key = tuple[str, str]


def resolve(
    app: str | None = None,
    *,
    config: str | None = None,
    flags: Mapping[Key, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings for a program.

    ``app``: a Python file, a module's name, or a folder with actord.toml; None is the current folder. ``config``: a
    file to read in the place of the folder's actord.toml (also ``ACTORD_CONFIG``). ``flags``: (section, key) -> value,
    None for a flag that was not given. Raises ``ConfigError``. Paths in the result are absolute.
    """
    environ = os.environ if environ is None else environ
    config = config or environ.get("ACTORD_CONFIG")
    located = locate(app, config)
    values = _Values()
    header: dict[str, Any] = {}
    if located.config is not None:
        header = values.read_file(located.config)
    values.read_environment(environ)
    for key, value in (flags or {}).items():
        if value is not None:
            values.put(key, value, f"--{key[1].replace('_', '-')}", Path.cwd())
    settings = values.settings(located)
    _fill_app(settings, located, header)
    _check_relations(settings)
    return settings


class _Values:
    """The values that were set, each with the place that set it."""

    def __init__(self) -> None:
        self._values: dict[Key, Any] = {}
        self._places: dict[Key, str] = {}

    def put(self, key: Key, value: Any, place: str, base: Path, *, text: bool = False) -> None:
        """Take one value, checked. ``text``: it came as a string from outside and is converted."""
        section, name = key
        try:
            value = msgspec.convert(value, SECTIONS[section][1][name], strict=not text)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{place}: {section}.{name} = {value!r} can't be: {_lower(str(error))}.") from None
        if key in PATHS and value:
            value = os.path.join(base, os.path.expanduser(value))
        self._values[key] = value
        self._places[key] = place

    def read_file(self, path: Path) -> dict[str, Any]:
        """Take the sections of a file; returns what stands outside of them: name, main, actors and programs."""
        try:
            with open(path, "rb") as file:
                content = tomllib.load(file)
        except OSError as error:
            raise ConfigError(f"{path}: can't be read: {error.strerror}.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: is not TOML: {error}.") from None
        header: dict[str, Any] = {}
        for name, value in content.items():
            if name in HEADER:
                header[name] = value
            elif name not in SECTIONS:
                known = [*SECTIONS, *HEADER]
                word = "section" if isinstance(value, dict) else "key"
                raise ConfigError(f"{path}: unknown {word} {name!r}. {_nearest(name, known)}")
            elif not isinstance(value, dict):
                raise ConfigError(f"{path}: {name} is a section: write [{name}] and its keys below it.")
            else:
                for key, item in value.items():
                    if key not in SECTIONS[name][1]:
                        raise ConfigError(f"{path}: unknown key {name}.{key}. {_nearest(key, SECTIONS[name][1])}")
                    self.put((name, key), item, str(path), path.parent.absolute())
        _check_header(path, header)
        return header

    def read_environment(self, environ: Mapping[str, str]) -> None:
        known = {
            f"{ENV_PREFIX}{section}_{key}".upper(): (section, key)
            for section in SECTIONS
            for key in SECTIONS[section][1]
        } | SHORT
        seen: dict[Key, str] = {}
        for name in sorted(environ):
            if not name.startswith(ENV_PREFIX) or name in OTHER_VARIABLES or name.startswith(OTHER_PREFIXES):
                continue
            if name not in known:
                raise ConfigError(f"unknown environment variable {name}. {_nearest(name, [*known, *OTHER_VARIABLES])}")
            key = known[name]
            if key in seen and environ[name] != environ[seen[key]]:
                raise ConfigError(f"{seen[key]} and {name} set the same key to different values: remove one.")
            seen[key] = name
            self.put(key, environ[name], name, Path.cwd(), text=True)

    def settings(self, located: Located) -> Settings:
        if self._values.get(("server", "uds")) and not {("server", "host"), ("server", "port")} & self._values.keys():
            self._values["server", "host"] = ""  # a socket file alone, unless TCP is asked for
        settings = Settings()
        for (section, key), value in self._values.items():
            setattr(getattr(settings, SECTIONS[section][0]), key, value)
        if ("server", "data_dir") not in self._values:
            settings.server.data_dir = str(located.base / settings.server.data_dir)
        settings.server.data_dir = os.path.abspath(settings.server.data_dir)
        return settings


def _fill_app(settings: Settings, located: Located, header: Mapping[str, Any]) -> None:
    app = settings.app
    app.root = str(located.root)
    app.main = located.main or header.get("main", "")
    if not app.main:
        raise ConfigError(
            f"{located.config}: the key main is missing. It names the program: a Python file of this folder, as in "
            'main = "app.py", or a module.'
        )
    app.name = header.get("name") or Path(app.main).stem.rpartition(".")[2]
    app.actors = check_bindings(str(located.config or PROJECT_FILE), header.get("actors", []))
    app.programs = check_programs(str(located.config or PROJECT_FILE), header.get("programs", []), located)
    located.check_main(app.main)


def _check_header(path: Path, header: Mapping[str, Any]) -> None:
    for key in ("name", "main"):
        if key in header and (not isinstance(header[key], str) or not header[key]):
            raise ConfigError(f"{path}: {key} = {header[key]!r} can't be: expected a text that is not empty.")


def _check_relations(settings: Settings) -> None:
    http, server = settings.http, settings.server
    if http.line_bytes > http.head_bytes:
        raise ConfigError(
            f"http.line_bytes is {http.line_bytes}, but the whole head has at most http.head_bytes = {http.head_bytes}."
        )
    try:
        parse_scopes(server.anonymous.split())
    except ValueError as error:
        raise ConfigError(f"server.anonymous: {error}.") from None
    try:
        Proxies(server.forwarded_allow_ips)
    except ValueError as error:
        raise ConfigError(f"server.forwarded_allow_ips: {error}.") from None
    _check_metrics(settings.metrics.listen)
    if settings.tracing.enabled and not _is_installed("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        raise ConfigError('tracing.enabled needs OpenTelemetry: pip install "actord[otel]".')


def _is_installed(*modules: str) -> bool:
    try:
        return all(importlib.util.find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:  # a parent of it
        return False


def _check_metrics(listen: str) -> None:
    if not listen:
        return
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(
            f'metrics.listen = {listen!r} can\'t be: write an address and a port, as in "127.0.0.1:9464".'
        )
    if not is_loopback(host.strip("[]")):
        raise ConfigError(
            f"metrics.listen = {listen!r} is reachable from other machines, and metrics have no access control. "
            "Keep it on a loopback address, and let the scraper come through a proxy that checks who is asking."
        )


def _nearest(word: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]}?"
    return "Known are: " + ", ".join(known) + "." if len(known) <= 20 else "See configs/default.toml."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
