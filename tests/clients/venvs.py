"""Interpreters with other clients than the project's own: made once, kept outside the checkout.

Nothing here may bring torch: its wheels are gigabytes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256

from filelock import FileLock

from tests.support.clients import cache_folder


def python_with(*requirements: str) -> str:
    """Return an interpreter that has these requirements; pip installs them where an earlier run has not.

    Raises:
        AssertionError: pip could not; the message has what it said.
    """
    key = sha256(repr((sys.version_info[:2], sorted(requirements))).encode()).hexdigest()[:16]
    folder = cache_folder(f"venv-{key}")
    python = folder / "bin" / "python"
    stamp = folder / "whole"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not stamp.exists():
            environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
            _run([sys.executable, "-m", "venv", "--clear", str(folder)], environ)
            _run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements], environ)
            stamp.touch()
    return str(python)


def _run(command: list[str], environ: dict[str, str]) -> None:
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
