"""A program for the power-cut replay: ``actord reshard``, with a planted bug when one is named.

    reshard_workload.py DIRECTORY SHARDS MODE

MODE:

    right           nothing is planted
    twice           the same; it is told of a failure, and is run once more
    no-fsync        new databases are renamed without being synced
    lazy-journal    reshard.json is written without a sync
    manifest-first  the manifest has the new number of shards before the new databases are built
    journal-gone    reshard.json is removed before the folders are exchanged
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec
from actord.server.cli import main
from actord.server.exits import CONFIG
from actord.storage import datadir, reshard


def no_fsync() -> None:
    real = reshard.fsync_path

    def skipping(path: str) -> None:
        if not path.endswith(".part"):
            real(path)

    reshard.fsync_path = skipping


def lazy_journal() -> None:
    def lazy(path: str, content: bytes) -> None:
        with open(path + ".tmp", "wb") as file:
            file.write(content)
        os.rename(path + ".tmp", path)

    reshard.replace_file = lazy


def manifest_first() -> None:
    real = reshard._Copy.run

    def early(self: Any) -> tuple[int, int]:
        manifest = datadir.read_manifest(self._real)
        datadir.write_manifest(self._real, msgspec.structs.replace(manifest, shards=self._after))
        return real(self)

    reshard._Copy.run = early  # type: ignore[method-assign]


def journal_gone() -> None:
    real = reshard._exchange

    def careless(path: str, manifest: datadir.Manifest, journal: reshard.Journal) -> None:
        reshard.remove_file(reshard._journal_path(path))
        real(path, manifest, journal)

    reshard._exchange = careless


BUGS = {
    "no-fsync": no_fsync,
    "lazy-journal": lazy_journal,
    "manifest-first": manifest_first,
    "journal-gone": journal_gone,
}


if __name__ == "__main__":
    data, shards, mode = sys.argv[1:]
    if mode in BUGS:
        BUGS[mode]()
    sys.argv = ["actord", "reshard", data, "--shards", shards]
    if mode == "twice":
        try:
            main()
        except SystemExit as error:
            if error.code != CONFIG:
                raise
    main()
