"""`hubcache serve` as a process of its own, under an environment that knows nothing of this machine's user.

It asserts nothing; what it printed on stderr is in a file.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Self

from tests.support.commandline import HUBCACHE


class Served:
    """A running server with its cache at `folder`/hub and its home at `folder`/home; killed when the block ends.

    `endpoint` is what it printed; `environ` is laid over its environment, `arguments` follow `--port`.
    """

    def __init__(self, folder: Path, *arguments: str, port: int = 0, **environ: str) -> None:
        self.cache = folder / "hub"
        self.log_file = folder / "serve.log"
        home = folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        self._command = [str(HUBCACHE), "serve", "--port", str(port), *arguments]
        self.environ = {
            "PATH": os.environ["PATH"], "HOME": str(home), "HF_HUB_CACHE": str(self.cache), **environ,
        }  # fmt: skip
        self.endpoint = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.endpoint.rsplit(":", 1)[1])

    @property
    def log(self) -> str:
        """What it has said on stderr so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def start(self) -> Self:
        """Start it and wait for its endpoint.

        Raises:
            AssertionError: it ended instead; the message has its stderr.
        """
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        self.endpoint = self._process.stdout.readline().decode().strip()
        if not self.endpoint:
            raise AssertionError(f"hubcache serve ended with {self._process.wait(10)}: {self.log}")
        return self

    def is_running(self) -> bool:
        """Tell whether the process is still there."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it as kill -9 does."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)
        code = self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.is_running():
            self.kill()
