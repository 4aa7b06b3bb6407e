"""The programs that tests run but Python does not bring: found, or installed through apt and npm on first use.

It is no package manager: what cannot be had skips the test, with the reason a person needs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.clients import cache_folder


def program(name: str, *, package: str | None = None) -> Path:
    """Find a program, or install the Debian package that brings it (the one of the same name, by default).

    Skips the test where it is missing and cannot be installed.
    """
    if (found := shutil.which(name)) is None:
        _install(name, package or name)
        found = shutil.which(name)
    if found is None:
        pytest.skip(f"the package {package or name} brings no program called {name}")
    return Path(found)


def npm_packages(manifest: Path) -> Path:
    """Return the node_modules folder that holds what a package.json asks for, installed once for each content of it.

    Install scripts do not run: onnxruntime-node's would fetch CUDA libraries, and what it needs is in the package.
    Skips the test where npm is missing or has no registry.
    """
    npm = program("npm")
    folder = cache_folder(f"npm-{hashlib.sha256(manifest.read_bytes()).hexdigest()[:16]}")
    with _alone(folder.name):
        if not folder.exists():
            fresh = folder.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            shutil.copy(manifest, fresh / "package.json")
            _run([str(npm), "install", "--ignore-scripts", "--no-audit", "--no-fund"], fresh, "npm install")
            fresh.rename(folder)
    return folder / "node_modules"


def _alone(what: str) -> FileLock:
    """Return the lock that lets one process at a time install something."""
    path = cache_folder(f"{what}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def _install(name: str, package: str) -> None:
    if (apt := shutil.which("apt-get")) is None or os.geteuid() != 0:
        pytest.skip(f"{name} is not installed; as root on Debian this test installs it itself, else: install {package}")
    with _alone("apt"):
        if shutil.which(name) is not None:
            return
        # A fresh machine may have no package lists yet, or old ones.
        if _apt(apt, package).returncode != 0:
            subprocess.run([apt, "update"], capture_output=True, timeout=240, check=False)
            if (ran := _apt(apt, package)).returncode != 0:
                pytest.skip(f"{name} is not installed, and apt-get could not install {package}: {ran.stderr[-400:]}")


def _apt(apt: str, package: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = [apt, "install", "-y", "--no-install-recommends", package]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600, check=False)


def _run(command: list[str], folder: Path, what: str) -> None:
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    if ran.returncode != 0:
        pytest.skip(f"{what} failed: {ran.stderr[-400:]}")
