"""The health of every mirror, shared by the threads of a run and remembered between runs; it judges nothing."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hubcache.errors import CacheError
from hubcache.localfile import write_atomically
from hubcache.mirrors.health import UNKNOWN, Choice, Health, rank

FORMAT = 1


class HealthBook:
    """Facts by mirror URL, read from and saved to `path` (None: this run's alone)."""

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._facts = _read(path) if path is not None else {}
        self._changed = False

    def record(self, url: str, change: Callable[[Health, float], Health]) -> None:
        """Change one mirror's facts, given what is known of it and the time."""
        with self._lock:
            self._facts[url] = change(self._facts.get(url, UNKNOWN), self._clock())
            self._changed = True

    def order(self, urls: list[str]) -> list[Choice]:
        """Order mirrors by what is known of them now."""
        with self._lock:
            return rank(urls, self._facts, now=self._clock())

    def of(self, url: str) -> Health:
        """Return what is known of one mirror."""
        with self._lock:
            return self._facts.get(url, UNKNOWN)

    def save(self) -> None:
        """Write the facts down for the next run; a book that cannot be written is only forgotten."""
        if self._path is None or not self._changed:
            return
        with self._lock:
            content = {"format_version": FORMAT, "mirrors": {url: asdict(facts) for url, facts in self._facts.items()}}
            self._changed = False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(content, indent=1).encode(), scratch=self._path.parent)
        except (OSError, CacheError):
            return


def _read(path: Path) -> dict[str, Health]:
    try:
        content = json.loads(path.read_bytes())
        if content["format_version"] != FORMAT:
            return {}
        return {url: _parse(facts) for url, facts in content["mirrors"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _parse(facts: dict[str, Any]) -> Health:
    """Read one mirror's facts.

    Raises:
        ValueError, TypeError, AttributeError: another program's, or a damaged file's.
    """
    health = Health(**facts)
    measured = [value for value in (health.latency, health.throughput) if value is not None]
    if not all(math.isfinite(value) and value >= 0 for value in (*measured, health.rests_until, health.failures)):
        raise ValueError(f"no facts of a mirror: {facts}")
    return replace(health, failures=int(health.failures), reason=health.reason[:])
