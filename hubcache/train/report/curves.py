"""Curves out of a Trainer's log rows: picked, thinned and smoothed; it draws nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubcache.train.report.figures import is_figure

Point = tuple[float, float]

MANY = 400
"""Points that a curve may have before it is thinned: one for each unit of a chart's width."""

EVALUATION = "eval_"
# Beyond it the difference of two values may have no number.
_LARGEST = 1e300
_TIMINGS = ("runtime", "_per_second", "_preparation_time")
_SMOOTH_FROM = 100
_WINDOWS = 25


@dataclass(frozen=True, slots=True)
class Curve:
    """A named series of (step, value) in the order of the steps; a value may be NaN or infinite."""

    name: str
    points: tuple[Point, ...]

    @property
    def finite(self) -> tuple[Point, ...]:
        """The points that can be drawn."""
        return tuple(point for point in self.points if is_drawable(point[1]))

    @property
    def broken(self) -> tuple[Point, ...]:
        """The points that cannot: NaN, infinite and absurdly large values."""
        return tuple(point for point in self.points if not is_drawable(point[1]))


def is_drawable(value: float) -> bool:
    """Tell whether a value has a place on an axis."""
    return abs(value) <= _LARGEST


def curve(history: Sequence[Mapping[str, Any]], key: str, name: str) -> Curve:
    """Pick one key's values; a row without a step counts by its place."""
    found = [(_step(row, place), float(row[key])) for place, row in enumerate(history, 1) if is_figure(row.get(key))]
    return Curve(name, tuple(sorted(found, key=lambda point: point[0])))


def last_step(history: Sequence[Mapping[str, Any]]) -> float:
    """Return the highest step that was logged, 0 where none was."""
    return max((_step(row, 0) for row in history), default=0.0)


def evaluation_keys(history: Sequence[Mapping[str, Any]], first: str) -> tuple[str, ...]:
    """List the keys of evaluation metrics by name, `first` in front; timings and the loss are none."""
    keys = {key for row in history for key in row if key.startswith(EVALUATION) and is_figure(row[key])}
    chosen = {key for key in keys if not key.endswith(_TIMINGS) and not key.endswith("loss")}
    return tuple(sorted(chosen, key=lambda key: (key != f"{EVALUATION}{first.removeprefix(EVALUATION)}", key)))


def thinned(points: Sequence[Point], most: int = MANY) -> tuple[Point, ...]:
    """Keep the lowest and the highest of each run of neighbours, so that no spike is lost; NaN stays a gap."""
    if len(points) <= most:
        return tuple(points)
    width = math.ceil(len(points) * 2 / most)
    kept: list[Point] = []
    for start in range(0, len(points), width):
        kept += _extremes(points[start : start + width])
    if kept[-1] != points[-1]:
        kept.append(points[-1])
    return tuple(kept)


def smoothed(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the means over a window that moves along, for many points; none for few."""
    if len(points) < _SMOOTH_FROM:
        return ()
    half = len(points) // _WINDOWS // 2 + 1
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    return tuple(
        (x, (sums[end] - sums[start]) / (end - start))
        for place, (x, _) in enumerate(points)
        for start, end in [(max(0, place - half), min(len(points), place + half + 1))]
    )


def _extremes(points: Sequence[Point]) -> list[Point]:
    finite = [point for point in points if is_drawable(point[1])]
    if not finite:
        return [points[0]]
    lowest, highest = min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])
    gap = [point for point in points if not is_drawable(point[1])][:1]
    return sorted({lowest, highest}) + gap


def _step(row: Mapping[str, Any], place: int) -> float:
    step = row.get("step")
    return float(step) if step is not None and is_figure(step) and is_drawable(step) else float(place)
