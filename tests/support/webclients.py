"""The Hub's JavaScript clients as they run: scripts in Node, a page in Chromium, a tiny model for ONNX Runtime.

It asserts nothing about what they answer.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.commandline import run
from tests.support.httpd import Origin, Reply, Request
from tests.support.programs import npm_packages, program

SCRIPTS = Path(__file__).parents[1] / "clients" / "js"
TYPES = {
    ".css": "text/css", ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".json": "application/json",
    ".mjs": "text/javascript", ".wasm": "application/wasm",
}  # fmt: skip
CHROMIUM = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync"),
)


class Node:
    """Node with the npm packages that tests/clients/js/package.json names; scripts run in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.packages = npm_packages(SCRIPTS / "package.json")
        self._node = program("node", package="nodejs")
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "node_modules").symlink_to(self.packages)

    def version(self, package: str) -> str:
        """Return the version of an npm package that is installed."""
        return str(json.loads((self.packages / package / "package.json").read_text())["version"])

    def __call__(self, script: str, *arguments: str | Path, timeout: float = 90) -> Any:
        """Run a script of tests/clients/js under a home of its own; return what it printed, as JSON.

        Raises:
            AssertionError: it ended with an error; the message has its stderr.
        """
        shutil.copy(SCRIPTS / script, self._folder)
        environ = {"PATH": os.environ["PATH"], "HOME": str(self._folder), "PWD": str(self._folder)}
        # Packages and files are looked up from the folder of the script, and that is where it runs.
        command = ("sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(self._folder), str(self._node), script)
        ran = run(*command, *map(str, arguments), timeout=timeout, **environ)
        if ran.code != 0:
            raise AssertionError(f"{script} ended with {ran.code}: {ran.err}")
        return ran.facts


class Page:
    """A web site of its own origin with one page, tests/clients/js/page.html, and the npm packages it imports."""

    def __init__(self, packages: Path) -> None:
        self._packages = packages
        self._reported = threading.Event()
        self._report: Any = None
        self._origin = Origin(self._answer)

    @property
    def origin(self) -> str:
        """The page's origin, known before it is served."""
        return self._origin.url

    def open(self, folder: Path, *, timeout: float = 90, **query: str) -> Any:
        """Open the page in Chromium with a new profile in `folder`; return what it reports.

        Raises:
            AssertionError: it reports nothing within `timeout` seconds; the message has the browser's stderr.
        """
        self._reported.clear()
        self._origin.start()
        try:
            with _chromium(f"{self.origin}/page.html?{urlencode(query)}", folder) as log:
                if not self._reported.wait(timeout):
                    raise AssertionError(f"the page reported nothing in {timeout} s: {log.read_text(errors='replace')}")
            return self._report
        finally:
            self._origin.stop()

    def _answer(self, request: Request) -> Reply:
        if request.method == "POST" and request.path == "/report":
            self._report = json.loads(request.body)
            self._reported.set()
            return Reply(204)
        match request.segments:
            case ["node_modules", *rest]:
                path = self._packages.joinpath(*rest)
            case rest:
                path = SCRIPTS.joinpath(*rest)
        if ".." in request.segments or not path.is_file():
            return Reply(404)
        return Reply(200, {"Content-Type": TYPES.get(path.suffix, "application/octet-stream")}, path)


@contextmanager
def _chromium(url: str, folder: Path) -> Iterator[Path]:
    """Run Chromium on a page; gives the file with its stderr, and ends all its processes with the block."""
    home = folder / "chromium"
    home.mkdir(parents=True)
    environ = {"PATH": os.environ["PATH"], "HOME": str(home)}
    command = [str(program("chromium")), *CHROMIUM, f"--user-data-dir={home / 'profile'}", url]
    log = home / "stderr"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, start_new_session=True
        )
    try:
        yield log
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def lookup_model(table: Sequence[Sequence[float]]) -> bytes:
    """Make an ONNX model that answers each token id with its row of a table.

    Input input_ids: int64 [batch, tokens]; output last_hidden_state: float32 [batch, tokens, len(table[0])].
    Source: onnx.proto of ONNX 1.10 (IR version 8, operators of version 13).
    """
    width = len(table[0])
    values = b"".join(struct.pack(f"<{width}f", *row) for row in table)
    tensor = _number(1, len(table)) + _number(1, width) + _number(2, 1) + _field(8, b"table") + _field(9, values)
    inputs = _field(1, b"table") + _field(1, b"input_ids")
    node = inputs + _field(2, b"last_hidden_state") + _field(3, b"lookup") + _field(4, b"Gather")
    ends = _field(11, _tensor_of("input_ids", 7, ("batch", "tokens")))
    ends += _field(12, _tensor_of("last_hidden_state", 1, ("batch", "tokens", width)))
    graph = _field(1, node) + _field(2, b"lookup") + _field(5, tensor) + ends
    return _number(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _number(2, 13))


def _tensor_of(name: str, kind: int, shape: Sequence[str | int]) -> bytes:
    sides = (_number(1, side) if isinstance(side, int) else _field(2, side.encode()) for side in shape)
    dimensions = b"".join(_field(1, side) for side in sides)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, kind) + _field(2, dimensions)))


def _field(number: int, content: bytes) -> bytes:
    """Write a length-delimited field as protobuf does."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
