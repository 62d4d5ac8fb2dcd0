"""What actord, nginx and uvicorn answer to each request of the corpus: ``python -m tests.corpus.compare``.

Writes ``docs/http-corpus.md``. ``tests/server/test_corpus_page.py`` holds the page against the server.
"""

from __future__ import annotations

import re
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httptools

from tests.corpus import peers
from tests.support.front_process import FrontProcess

CORPUS = Path(__file__).parent / "http1"
PAGE = Path(__file__).parents[2] / "docs" / "http-corpus.md"
QUIET_SECONDS = 1.0  # another server that says nothing for so long waits for more
AT_ONCE = 32

# Why we refuse what another server takes, by the beginning of the file's name; the first that fits counts.
WHY = {
    "coding-after": "a line end that some readers see and others do not hides a Transfer-Encoding",
    "coding-and": "two lengths: who believes the other one finds a request in the body",
    "coding-upper-case-and": "two lengths: who believes the other one finds a request in the body",
    "coding-on-http10": "HTTP/1.0 has no chunks: an older reader finds a request in the body",
    "coding-": "a reader that does not take exactly this for `chunked` finds another end of the body",
    "length-over": "over the limit",
    "length-": "two readers may find two lengths, and with them two ends of the body",
    "chunked-and-length": "two lengths: who believes the other one finds a request in the body",
    "chunk-size-over": "over the limit, known before the data come",
    "chunk-size-two": "over the limit, known before the data come",
    "chunk-size-all": "over the limit, known before the data come",
    "chunk-": "a chunk whose size or end two readers may see differently",
    "trailer": "a trailer that one hop merges into the head and another drops is a way to smuggle a header",
    "bare-": "a lone CR or LF is a line end to some readers and data to others",
    "fold-": "folded lines are obsolete, and readers differ on them",
    "header-name": "no token: readers differ on where the name ends",
    "header-": "not `Name: value`, or over a limit",
    "space-before-colon": "readers differ on whether the space belongs to the name",
    "tab-before-colon": "readers differ on whether the tab belongs to the name",
    "host-": "one Host that names one server, or routing and filtering can be made to disagree",
    "target-": "readers would take another path or another server out of it",
    "version-": "only HTTP/1.1 and HTTP/1.0 are spoken",
    "http": "only HTTP/1.1 and HTTP/1.0 are spoken",
    "expect-": "an expectation that is not met has to be refused",
    "content-type-": "two media types are two readings of one body",
    "too-many": "over the limit",
    "head-": "over the limit",
    "two-empty": "one empty line before a request is a courtesy, more are not",
    "proxy-protocol": "whoever may send this line may forge addresses",
    "line-": "not exactly `METHOD target HTTP/1.1`",
    "two-spaces": "not exactly `METHOD target HTTP/1.1`",
    "space-": "not exactly `METHOD target HTTP/1.1`",
    "tab-": "not exactly `METHOD target HTTP/1.1`",
    "method-": "not exactly `METHOD target HTTP/1.1`",
    "smtp": "another protocol",
    "ssh": "another protocol",
}


class Case(NamedTuple):
    kind: str  # reject, accept
    name: str
    data: bytes
    answers: int  # how many are expected of us


def cases() -> list[Case]:
    found = []
    for kind in ("reject", "accept"):
        for file in sorted((CORPUS / kind).glob("*.http")):
            count = 1 if kind == "reject" else len(file.with_suffix(".expect").read_text().splitlines())
            found.append(Case(kind, file.stem, file.read_bytes(), count))
    return found


class _Answers:
    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.statuses: list[int] = []

    def on_headers_complete(self) -> None:  # not the end of the message: it may be the end of the connection
        if (status := self.parser.get_status_code()) >= 200:
            self.statuses.append(status)


def ask(address: peers.Address, data: bytes, count: int | None = None) -> str:
    """The statuses of the answers, in order: ``count`` of them, or all until the server closes or says no more."""
    answers = _Answers()
    how_it_ended = "closed"
    with socket.create_connection(address, timeout=QUIET_SECONDS if count is None else 20) as sock:
        try:
            sock.sendall(data)
            while count is None or len(answers.statuses) < count:
                received = sock.recv(65_536)
                if not received:
                    break
                answers.parser.feed_data(received)
        except TimeoutError:
            how_it_ended = "waits"
        except ConnectionError:
            pass
        except httptools.HttpParserError:
            how_it_ended = "text without a status"
    return " ".join(map(str, answers.statuses)) or how_it_ended


def ask_all(address: peers.Address, *, ours: bool) -> dict[str, str]:
    """By ``kind/name``."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = {
            f"{case.kind}/{case.name}": pool.submit(ask, address, case.data, case.answers if ours else None)
            for case in cases()
        }
        return {name: answer.result() for name, answer in asked.items()}


def served(answer: str) -> bool:
    """Did a server carry out the request, or a part of what was sent?"""
    return answer == "text without a status" or any(status.startswith(("2", "3")) for status in answer.split())


def why(name: str) -> str:
    return next(text for start, text in WHY.items() if name.startswith(start))


def page(columns: dict[str, dict[str, str]], versions: dict[str, str]) -> str:
    """The whole page; ``columns`` are the answers by server, actord's first."""
    actord, *others = columns
    bad = [name for name in columns[actord] if name.startswith("reject/")]
    good = [name for name in columns[actord] if name.startswith("accept/")]
    taken = {other: sum(served(columns[other][name]) for name in bad) for other in others}
    lines = [
        "# The HTTP corpus",
        "",
        f"`tests/corpus/http1` holds {len(bad)} bad and {len(good)} good requests, byte for byte. This page shows what",
        f"actord answers to each, beside nginx {versions['nginx']} (as a proxy) and uvicorn {versions['uvicorn']}.",
        "`python -m tests.corpus.compare` writes it; a test holds the column of actord against the server.",
        "",
        "Statuses stand in the order of the answers. `waits`: no answer within a second. `closed`: none at all.",
        "",
        "A server that serves one of the bad requests is not wrong for that: many of them are allowed to be lenient. A",
        "server behind a proxy that reads such a request differently executes what the proxy never saw, so actord",
        "refuses whatever two readers could understand differently, and closes the connection.",
        "",
        f"Of the {len(bad)} bad requests actord serves none, "
        + ", ".join(f"{other} {count}" for other, count in taken.items())
        + ".",
        "",
        "## Bad requests",
        "",
        f"| request | {' | '.join(columns)} | why we refuse what another serves |",
        f"|---|{'---|' * len(columns)}---|",
    ]
    for name in bad:
        stem = name.partition("/")[2]
        reason = why(stem) if any(served(columns[other][name]) for other in others) else ""
        lines.append(f"| {stem} | {' | '.join(answers[name] for answers in columns.values())} | {reason} |")
    lines += ["", "## Good requests", "", f"| request | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    lines += [
        f"| {name.partition('/')[2]} | {' | '.join(answers[name] for answers in columns.values())} |" for name in good
    ]
    return "\n".join(lines) + "\n"


_ROW = re.compile(r"^\| ([a-z0-9][a-z0-9-]*) \| ([^|]*) \|", re.MULTILINE)


def column_of_actord(text: str) -> dict[str, str]:
    """What a page says of us, by ``kind/name``."""
    bad, _, good = text.partition("## Good requests")
    found = {f"reject/{name}": answer for name, answer in _ROW.findall(bad) if name != "request"}
    return found | {f"accept/{name}": answer for name, answer in _ROW.findall(good) if name != "request"}


def main() -> int:
    if missing := peers.missing():
        print(f"needed for the comparison: {', '.join(missing)}", file=sys.stderr)
        return 1
    columns: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        with FrontProcess(Path(folder)) as front:
            columns["actord"] = ask_all(front.address, ours=True)
        for name, start in (("nginx", peers.nginx), ("uvicorn", peers.uvicorn)):
            own = Path(folder, name)
            own.mkdir()
            Path(folder).chmod(0o755)
            with start(own) as address:
                columns[name] = ask_all(address, ours=False)
    PAGE.write_text(page(columns, {name: peers.version(name) for name in ("nginx", "uvicorn")}))
    print(f"wrote {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
