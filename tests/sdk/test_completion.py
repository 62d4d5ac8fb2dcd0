"""What an editor offers after the dot of a stub: asked of pyright's language server, where it is installed."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.test_typed_stubs import HEAD, SDK
from tests.support import tools

PATIENCE_SECONDS = 100.0
STUBS = {
    "get": 'env.get(Account, "a").',
    "send": 'env.send(Account, "a").',
    "namespace": 'env.namespace(Account).get("a").',
    "actor": 'self.env.get(Account, "a").',
}


class LanguageServer:
    """Requests and answers of the language server protocol over pipes."""

    def __init__(self, command: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [command, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder
        )
        self.folder = folder
        self._patience = threading.Timer(PATIENCE_SECONDS, self._process.kill)
        self._patience.start()
        self._last = 0
        # Without a workspace it would look for actord where Python does alone, and not in this folder.
        workspace = {"uri": folder.as_uri(), "name": folder.name}
        capabilities = {"workspace": {"workspaceFolders": True}}
        self.ask("initialize", {"processId": None, "workspaceFolders": [workspace], "capabilities": capabilities})
        self.tell("initialized", {})

    def tell(self, method: str, params: Any, **more: Any) -> None:
        self._write({"jsonrpc": "2.0", "method": method, "params": params, **more})

    def ask(self, method: str, params: Any) -> Any:
        """The result; the server's own requests in between are answered with nothing."""
        self._last += 1
        self.tell(method, params, id=self._last)
        while True:
            message = self._read()
            if "method" not in message:
                if message["id"] == self._last:
                    assert "error" not in message, message
                    return message["result"]
            elif "id" in message:
                items = message["params"].get("items", ()) if isinstance(message.get("params"), dict) else ()
                self._write({"jsonrpc": "2.0", "id": message["id"], "result": [None for _ in items]})

    def close(self) -> None:
        self._patience.cancel()
        self._process.kill()
        self._process.communicate()

    def _write(self, message: Any) -> None:
        assert self._process.stdin is not None
        body = json.dumps(message).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._process.stdin.flush()

    def _read(self) -> Any:
        stream = self._process.stdout
        assert stream is not None
        size = 0
        while (line := stream.readline()) != b"\r\n":
            assert line, "the language server ended"
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        return json.loads(stream.read(size))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageServer]:
    command = tools.found("pyright-langserver")
    if command is None:
        pytest.skip("pyright is not installed (make test-tools)")
    folder = tmp_path_factory.mktemp("completion")
    (folder / "actord").symlink_to(SDK)
    try:
        server = LanguageServer(command, folder)
    except (AssertionError, OSError) as error:
        pytest.skip(f"pyright does not run here: {error}")
    yield server
    server.close()


@pytest.mark.parametrize("where", STUBS)
def test_an_editor_offers_the_methods_of_the_class(where: str, server: LanguageServer) -> None:
    line = f"        {STUBS[where]}"
    text = f"{HEAD}class Till(StatefulActor):\n    async def pay(self, env: Env) -> None:\n{line}"
    uri = (server.folder / f"{where}.py").as_uri()
    server.tell(
        "textDocument/didOpen", {"textDocument": {"uri": uri, "languageId": "python", "version": 1, "text": text}}
    )
    position = {"line": text.count("\n"), "character": len(line)}
    found = server.ask("textDocument/completion", {"textDocument": {"uri": uri}, "position": position})
    assert {"balance", "debit", "fetch"} <= {item["label"] for item in found["items"]}
