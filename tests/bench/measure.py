"""What the benchmarks share: whole processes timed in turns, and the one line of JSON they print; it has no claim.

Wall time on a shared machine is noisy, so CPU time stands beside it; the peers take turns (A B A B),
so that what slows the machine down slows them all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
HUBCACHE = str(BIN / "hubcache")
HF = str(BIN / "hf")


@dataclass(frozen=True, slots=True)
class Run:
    """One process from start to end: seconds of wall and CPU (user and system), peak resident bytes, lines printed."""

    wall: float
    cpu: float
    rss: int
    lines: int


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and the most it may be."""

    value: float
    at_most: float

    def told(self) -> dict[str, Any]:
        """Return it as a row of the result."""
        return {"is": round(self.value, 4), "at_most": round(self.at_most, 4), "ok": self.value <= self.at_most}


class CommandFailed(Exception):
    """A measured command that did not do its work: its time means nothing."""


Contender = Callable[[Path], Run]
"""Runs one command in a folder of its own."""


def run(command: Sequence[str], environ: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end and measure the whole process.

    The peak is never below that of this process, which the child was before it became the command.

    Raises:
        CommandFailed: it did not exit with 0.
    """
    with tempfile.TemporaryFile() as told:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=told, stderr=told)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        output = told.read().decode(errors="replace")
    if process.returncode:
        raise CommandFailed(f"{' '.join(command)}: exit {process.returncode}\n{output}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * unit, output.count("\n"))


def fetch(
    command: Sequence[str], home: Path, endpoint: str, *, files: int, size: int, mirrors: Path | None = None
) -> Run:
    """Run a download into an empty cache and count what it brought; `mirrors` is the mirrors.yaml to use.

    Raises:
        CommandFailed: the snapshot has not so many files and bytes.
    """
    chosen = {"HUBCACHE_MIRRORS": str(mirrors)} if mirrors is not None else {}
    measured = run(command, environment(home, endpoint) | chosen)
    found = [file.stat().st_size for file in home.glob("hub/models--*/snapshots/*/**/*") if file.is_file()]
    if (len(found), sum(found)) != (files, size):
        raise CommandFailed(f"{' '.join(command)}: {len(found)} files of {sum(found)} bytes, not {files} of {size}")
    return measured


def alternate(contenders: Mapping[str, Contender], *, runs: int, place: Path) -> dict[str, list[Run]]:
    """Let the contenders take turns, each in an empty folder that is deleted after its run."""
    measured: dict[str, list[Run]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, contender in contenders.items():
            with scratch(place) as folder:
                measured[name].append(contender(folder))
    return measured


def environment(home: Path, endpoint: str = "http://127.0.0.1:9") -> dict[str, str]:
    """Return the environment both clients run in: a home of their own, plain HTTP, no update checks.

    Modules are read from their compiled form, as at everybody's: PYTHONDONTWRITEBYTECODE is not passed on.
    """
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }


@contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """Make a folder that is deleted afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def served(command: Sequence[str]) -> Iterator[str]:
    """Run a server as a process of its own; the first line it prints is its address."""
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise CommandFailed(f"{command[0]} did not start")
        yield address
    finally:
        process.terminate()
        process.wait(10)


def parser(purpose: str | None, *, runs: int) -> argparse.ArgumentParser:
    """Begin a benchmark's command line."""
    options = argparse.ArgumentParser(description=(purpose or "").partition("\n")[0])
    options.add_argument("--runs", type=int, default=runs, help="runs of each peer")
    options.add_argument(
        "--dir",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where to work; best a tmpfs, as /dev/shm often is",
    )
    return options


def figures(measured: Mapping[str, list[Run]]) -> dict[str, Any]:
    """Summarise every contender's runs."""
    return {name: _summary(runs) for name, runs in measured.items()}


def _summary(runs: list[Run]) -> dict[str, Any]:
    walls, cpus = [run.wall for run in runs], [run.cpu for run in runs]
    return {
        "wall_s": {"median": _s(statistics.median(walls)), "min": _s(min(walls)), "runs": [_s(wall) for wall in walls]},
        "cpu_s": {"median": _s(statistics.median(cpus)), "min": _s(min(cpus)), "runs": [_s(cpu) for cpu in cpus]},
        "peak_rss_bytes": max(run.rss for run in runs),
    }


def _s(seconds: float) -> float:
    return round(seconds, 4)


def wall(runs: Sequence[Run]) -> float:
    """Return the median wall time."""
    return statistics.median(run.wall for run in runs)


def cpu(runs: Sequence[Run]) -> float:
    """Return the median CPU time."""
    return statistics.median(run.cpu for run in runs)


def ratios(ours: Sequence[Run], theirs: Sequence[Run], peer: str) -> dict[str, float]:
    """Divide our medians by the peer's."""
    return {f"wall_to_{peer}": wall(ours) / wall(theirs), f"cpu_to_{peer}": cpu(ours) / cpu(theirs)}


def report(
    benchmark: str,
    sizes: Mapping[str, Any],
    measured: Mapping[str, list[Run]],
    *,
    compared: Mapping[str, float],
    targets: Mapping[str, Target],
    place: Path,
) -> None:
    """Print the benchmark's one line of JSON."""
    told = {name: target.told() for name, target in targets.items()}
    line = {
        "benchmark": benchmark,
        **sizes,
        "measured": figures(measured),
        "ratios": {name: round(ratio, 4) for name, ratio in compared.items()},
        "targets": told,
        "ok": all(target["ok"] for target in told.values()),
        "versions": _versions(),
        "machine": {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "disk": _disk(place)},
    }
    print(json.dumps(line))


def _versions() -> dict[str, str]:
    curl = "none"
    with suppress(OSError):
        curl = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=False).stdout.split(" ")[1]
    ours = {name: _version(name) for name in ("hubcache", "huggingface_hub")}
    return {**ours, "curl": curl, "python": platform.python_version()}


def _version(name: str) -> str:
    """Return a distribution's version; a checkout that is only on the path has none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _disk(place: Path) -> str:
    """Name the kind of file system, where the system tells."""
    found = ("/", "unknown")
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            _, mount, kind, *_ = line.split()
            if place.resolve().is_relative_to(mount) and len(mount) >= len(found[0]):
                found = (mount, kind)
    return found[1]
