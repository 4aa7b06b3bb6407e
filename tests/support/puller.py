"""Pulls for tests: in this process with everything at hand, or as the real command that can be killed.

It asserts nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hubcache.app.compose import App, compose
from hubcache.app.settings import Settings
from hubcache.app.usecases import Pulled, PullRequest, pull
from tests.support.loopserver import LoopServer


@dataclass(slots=True)
class Seen:
    """A Progress and notify that remember: bytes by origin, lines said."""

    by_origin: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def begin(self, files: int, size: int, /) -> None:
        pass

    def advance(self, size: int, origin: str, /) -> None:
        self.by_origin[origin] = self.by_origin.get(origin, 0) + size

    def finish_file(self, path: str, /) -> None:
        pass

    def notify(self, line: str) -> None:
        self.lines.append(line)

    @property
    def received(self) -> int:
        """Bytes that came from some server."""
        return sum(size for origin, size in self.by_origin.items() if "://" in origin)


@dataclass(frozen=True, slots=True)
class Puller:
    """Pulls into one cache, within this process, with a short read timeout."""

    settings: Settings

    @classmethod
    def into(cls, cache: Path, endpoint: str = "http://127.0.0.1:9", **settings: Any) -> Puller:
        """Ask one server for everything, whatever hub it is; the settings are laid over those of a bare environment."""
        environ = {"HOME": str(cache.parent / "home"), "HF_HUB_CACHE": str(cache), "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
        environ |= {"HF_ENDPOINT": endpoint, "SPARSEZOO_API_URL": settings.pop("zoo_api", endpoint)}
        # The working folder is this checkout, whose mirrors.yaml names public mirrors.
        return cls(replace(Settings.from_environ(environ), project_mirrors=None, **settings))

    @property
    def app(self) -> App:
        return compose(self.settings)

    def having(self, **settings: Any) -> Puller:
        return Puller(replace(self.settings, **settings))

    def __call__(self, text: str, seen: Seen | None = None, **request: Any) -> Pulled:
        seen = seen or Seen()
        return pull(self.app, PullRequest(text, **request), progress=seen, notify=seen.notify)


class Process:
    """`hubcache pull …` as a process of its own; `environ` is laid over a bare environment."""

    def __init__(self, cache: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        variables = {"PATH": os.environ["PATH"], "HOME": str(cache.parent), "HF_HUB_CACHE": str(cache)}
        command = [sys.executable, "-m", "hubcache_cli.main", "pull", *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=cache.parent,
            env=variables | dict(environ or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self.process.communicate()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def wait(self, seconds: float = 60) -> tuple[int, str, str]:
        """Return its exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


def bodies(server: LoopServer, *, containing: str = "") -> list[str]:
    """List the ranges of the GETs for bodies so far ("" for a whole one), of paths that contain the text."""
    return [
        request.headers.get("range", "")
        for request in server.requests
        if request.method == "GET" and containing in request.path and _is_body(request.origin, request.path)
    ]


def _is_body(origin: str, path: str) -> bool:
    return origin in {"cdn", "store"} or "/resolve-cache/" in path or "/files/" in path


def asked_bytes(server: LoopServer, size: int, *, containing: str = "") -> int:
    """Return how many bytes the GETs so far asked for, of one file of `size` bytes."""
    total = 0
    for text in bodies(server, containing=containing):
        first, _, last = text.removeprefix("bytes=").partition("-")
        total += (int(last) + 1 if last else size) - int(first or 0)
    return total
