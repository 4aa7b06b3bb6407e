"""The rules of the house, kept by machines: lint, format, types, import contracts, what start-up may load."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
HEAVY = {
    "torch",
    "transformers",
    "aiohttp",
    "huggingface_hub",
    "requests",
    "httpx",
    "httpx2",
    "numpy",
    "rich",
    "pydantic",
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff_finds_nothing(arguments: list[str]) -> None:
    told = run(str(BIN / "ruff"), *arguments, "hubcache", "cli", "tests")
    assert told.returncode == 0, told.stdout


def test_mypy_finds_nothing_in_strict_mode() -> None:
    told = run(str(BIN / "mypy"))
    assert told.returncode == 0, told.stdout


def test_imports_point_down() -> None:
    told = run(str(BIN / "lint-imports"), "--no-cache")
    assert told.returncode == 0, told.stdout


def imported_by(*arguments: str) -> set[str]:
    told = run(sys.executable, "-X", "importtime", "-m", "hubcache_cli.main", *arguments)
    return {line.rpartition("|")[2].strip() for line in told.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]], ids=" ".join)
def test_help_loads_no_library_that_it_does_not_need(arguments: list[str]) -> None:
    tops = {name.partition(".")[0] for name in imported_by(*arguments)}
    assert "typer" in tops
    assert not tops & (HEAVY | {"urllib3", "filelock", "tqdm", "yaml", "ssl"})


def test_an_offline_listing_opens_no_door_to_the_network(tmp_path: Path) -> None:
    loaded = imported_by("ls", "--cache-dir", str(tmp_path))
    assert "hubcache.cache.scan" in loaded
    assert not {name.partition(".")[0] for name in loaded} & (HEAVY | {"urllib3", "ssl"})


def test_a_pull_loads_no_client_but_urllib3(tmp_path: Path) -> None:
    # The name is refused before anything is asked, after every module is loaded.
    tops = {name.partition(".")[0] for name in imported_by("pull", "a/b/c", "--cache-dir", str(tmp_path))}
    assert "urllib3" in tops
    assert not tops & (HEAVY | {"filelock", "tqdm"})


def test_the_lock_names_versions_and_no_place() -> None:
    lines = (ROOT / "requirements/lock.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][A-Za-z0-9.]*", line)] == []
