"""The real command in a process of its own, under an environment that knows nothing of this machine's user.

It asserts nothing: a test reads the exit code, stdout and stderr.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HUBCACHE = Path(sys.executable).with_name("hubcache")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a process left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> Any:
        """What it printed on stdout, as JSON."""
        return json.loads(self.out)


class CommandLine:
    """`hubcache` with its cache at `folder`/hub and its home at `folder`/home; `environ` holds for every call."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.cache = folder / "hub"
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.environ = {
            "PATH": os.environ["PATH"], "HOME": str(self.home), "HF_HUB_CACHE": str(self.cache), **environ,
        }  # fmt: skip

    def __call__(self, *arguments: str | Path, timeout: float = 120, **environ: str) -> Ran:
        """Run the command; `environ` is laid over what holds for every call."""
        return run(str(HUBCACHE), *map(str, arguments), timeout=timeout, **(self.environ | environ))

    def python(self, script: str, *arguments: str | Path, timeout: float = 240, **environ: str) -> Ran:
        """Run a script under the same environment, offline and quiet, in the interpreter of the tests."""
        quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
        variables = self.environ | quiet | environ
        return run(sys.executable, "-c", script, *map(str, arguments), timeout=timeout, **variables)

    def snapshot(self, name: str, commit: str) -> Path:
        """Return where a model's snapshot stands."""
        return self.cache / f"models--{name.replace('/', '--')}" / "snapshots" / commit

    def ref(self, name: str, ref: str = "main") -> str:
        """Read a ref of a model."""
        return (self.cache / f"models--{name.replace('/', '--')}" / "refs" / ref).read_text()

    def blobs(self, name: str) -> list[Path]:
        """List a model's blobs."""
        return sorted((self.cache / f"models--{name.replace('/', '--')}" / "blobs").iterdir())


def run(*command: str, timeout: float, **environ: str) -> Ran:
    """Run a process under exactly this environment."""
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=timeout, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def files_of(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder, links followed, by its path in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
