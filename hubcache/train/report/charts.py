"""Line charts as inline SVG: axes, ticks, curves, a marked step; where the curves come from is not its business."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hubcache.train.report.curves import Curve, Point, is_drawable, smoothed, thinned
from hubcache.train.report.figures import number, tick
from hubcache.train.report.markup import Markup, element, joined

WIDTH, HEIGHT = 400, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 16, 30
_DOTS = 40
_TICKS = 5
_LOG_FROM = 100.0
_LABEL = 46
# What is smaller is nothing: its powers of ten are not numbers any more.
_SMALLEST = 1e-300


@dataclass(frozen=True, slots=True)
class Axis:
    """A range that is drawn, the ticks on it, and whether it is logarithmic."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Tell how far along the axis a value lies, 0 to 1."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return (value - low) / (high - low)

    @property
    def labels(self) -> tuple[str, ...]:
        """The ticks as text."""
        if self.logarithmic:
            return tuple(number(value) for value in self.ticks)
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else abs(self.ticks[0]) or 1.0
        return tuple(tick(value, step) for value in self.ticks)


def axis(low: float, high: float, *, whole: bool = False) -> Axis:
    """Choose a linear axis that holds low to high, with about five round ticks inside of it."""
    if math.isclose(low, high, rel_tol=1e-9, abs_tol=_SMALLEST):
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    step = _round_step((high - low) / _TICKS)
    step = max(1.0, step) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    if whole:
        first, last = math.ceil(low / step), math.floor(high / step)
        return Axis(low, high, tuple(count * step for count in range(first, last + 1)) or (low,))
    return Axis(first * step, last * step, tuple(count * step for count in range(first, last + 1)))


def log_axis(low: float, high: float) -> Axis:
    """Choose a logarithmic axis from one power of ten to another."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    every = math.ceil((last - first + 1) / (_TICKS + 2))
    ticks = tuple(10.0**power for power in range(first, last + 1, every))
    return Axis(10.0**first, 10.0**last, ticks, logarithmic=True)


def line_chart(title: str, curves: Sequence[Curve], *, marked: float | None = None, may_log: bool = False) -> Markup:
    """Draw curves over steps as a figure; `marked` is the best step, `may_log` allows a logarithmic axis."""
    drawn = [one for one in curves if one.finite]
    scale = _scale(drawn, may_log) if drawn else None
    note = " (log scale)" if scale and scale.logarithmic else ""
    return element(
        "figure",
        element("figcaption", f"{title}{note}"),
        _legend(curves, marked),
        _drawing(title, drawn, scale, marked) if scale else element("p", "No values were logged.", class_="empty"),
        class_="chart",
    )


def _scale(curves: Sequence[Curve], may_log: bool) -> Axis:
    values = [value for one in curves for _, value in one.finite]
    low, high = min(values), max(values)
    return log_axis(low, high) if may_log and low > _SMALLEST and high / low > _LOG_FROM else axis(low, high)


def _drawing(title: str, curves: Sequence[Curve], scale: Axis, marked: float | None) -> Markup:
    steps = [step for one in curves for step, _ in one.finite]
    along = axis(min(steps), max(steps), whole=True)
    marks = [_mark(along, marked)] if marked is not None and along.low <= marked <= along.high else []
    return element(
        "svg",
        *_grid(scale),
        *_steps(along),
        *marks,
        *(part for place, one in enumerate(curves, 1) for part in _line(one, place, along, scale)),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title} over steps. {' '.join(describe(one) for one in curves)}",
    )


def describe(one: Curve) -> str:
    """Say in a sentence what a curve shows, for those who do not see it."""
    finite = one.finite
    if not finite:
        return f"{one.name}: no values."
    (start, first), (end, last) = finite[0], finite[-1]
    if len(finite) == 1:
        return f"{one.name}: {number(first)} at step {number(start)}."
    values = [value for _, value in finite]
    return (
        f"{one.name}: {number(first)} at step {number(start)}, {number(last)} at step {number(end)}; "
        f"lowest {number(min(values))}, highest {number(max(values))}."
    )


def _legend(curves: Sequence[Curve], marked: float | None) -> Markup:
    rows = (_legend_row(one, place, marked) for place, one in enumerate(curves, 1))
    return element("ul", *rows, class_="legend")


def _legend_row(one: Curve, place: int, marked: float | None) -> Markup:
    finite, broken = one.finite, one.broken
    at_best = [f"{number(value)} at the best step" for step, value in finite if step == marked]
    last = [f"{number(finite[-1][1])} last"] if finite else ["no values"]
    told: list[str] = [
        element("span", "", class_=f"key s{place}", aria_hidden="true"),
        f"{one.name}: {', '.join([*at_best, *last])}",
    ]
    if broken:
        told.append(element("strong", f" {number(len(broken))} not a number, from step {number(broken[0][0])}"))
    return element("li", joined(*told))


def _grid(scale: Axis) -> list[Markup]:
    parts = []
    for value, label in zip(scale.ticks, scale.labels, strict=True):
        y = _y(scale, value)
        parts.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", label, x=_LEFT - 6, y=_shifted(y, 4), class_="tick end"))
    return parts


def _steps(along: Axis) -> list[Markup]:
    floor = HEIGHT - _BOTTOM
    parts = [element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=floor, y2=floor, class_="axis")]
    taken = -math.inf
    for value, label in zip(along.ticks, along.labels, strict=True):
        x = _x(along, value)
        parts.append(element("line", x1=x, x2=x, y1=floor, y2=floor + 4, class_="axis"))
        if float(x) - taken >= _LABEL:
            anchor = "end" if float(x) > WIDTH - _LABEL / 2 else "middle"
            parts.append(element("text", label, x=x, y=floor + 16, class_=f"tick {anchor}"))
            taken = float(x)
    parts.append(element("text", "step", x=WIDTH - _RIGHT, y=HEIGHT - 2, class_="tick end"))
    return parts


def _mark(along: Axis, step: float) -> Markup:
    x = _x(along, step)
    side, away = ("end", -5) if along.share(step) > 0.5 else ("start", 5)
    return element(
        "g",
        element("line", x1=x, x2=x, y1=_TOP - 4, y2=HEIGHT - _BOTTOM, class_="best"),
        element("text", f"best: step {number(step)}", x=_shifted(x, away), y=10, class_=f"tick {side}"),
    )


def _line(one: Curve, place: int, along: Axis, scale: Axis) -> list[Markup]:
    mean = smoothed(one.finite) if not one.broken else ()
    few = len(one.points) <= _DOTS
    path = _path(thinned(one.points), along, scale)
    parts = [element("path", d=path, class_=f"line s{place}{' faint' if mean else ''}")] if path else []
    if mean:
        parts.append(element("path", d=_path(thinned(mean), along, scale), class_=f"line s{place}"))
    return parts + (_dots(one, place, along, scale) if few else [])


def _path(points: Sequence[Point], along: Axis, scale: Axis) -> str:
    told, moved = "", True
    for step, value in points:
        if not is_drawable(value):
            moved = True
            continue
        told += f"{'M' if moved else 'L'}{_x(along, step)} {_y(scale, value)}"
        moved = False
    return told


def _dots(one: Curve, place: int, along: Axis, scale: Axis) -> list[Markup]:
    return [
        element(
            "circle",
            element("title", f"{one.name}, step {number(step)}: {number(value)}"),
            cx=_x(along, step),
            cy=_y(scale, value),
            r=3,
            class_=f"dot s{place}",
        )
        for step, value in one.finite
    ]


def _x(along: Axis, step: float) -> str:
    return f"{_LEFT + along.share(step) * (WIDTH - _LEFT - _RIGHT):.1f}"


def _y(scale: Axis, value: float) -> str:
    return f"{HEIGHT - _BOTTOM - scale.share(value) * (HEIGHT - _TOP - _BOTTOM):.1f}"


def _shifted(position: str, by: float) -> str:
    return f"{float(position) + by:.1f}"


def _round_step(rough: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next((times * power for times in (1, 2, 5) if times * power >= rough * 0.999), 10 * power)
