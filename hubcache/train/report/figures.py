"""How numbers are written for people: scores, seconds, bytes; it draws nothing."""

from __future__ import annotations

import json
import math
from typing import Any

from hubcache.train.metrics.registry import METRICS

NOT_A_NUMBER = "not a number"
_MINUTE, _HOUR = 60, 3600
_KIB = 1024
_MANY = 10_000


def is_figure(value: Any) -> bool:
    """Tell whether this is a number to be drawn or written, NaN included."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def score(metric: str, value: float) -> str:
    """Write a metric's value with the digits of its scale: four after the point up to 1, two up to 100."""
    known = METRICS.get(metric.removeprefix("eval_"))
    if known is None or not math.isfinite(value):
        return number(value)
    return f"{value:.2f}" if known.perfect == 100 else f"{value:.4f}"


def number(value: float) -> str:
    """Write a number in four significant digits, whole ones in full with thousands apart."""
    if math.isnan(value):
        return NOT_A_NUMBER
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= _MANY:
        return f"{value:,.0f}"
    return _short_exponent(f"{value:.4g}")


def seconds(value: float) -> str:
    """Write a time: 8.3 s, 2 min 05 s, 1 h 02 min."""
    if not math.isfinite(value):
        return NOT_A_NUMBER
    if value < _MINUTE:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    return f"{whole // _HOUR:,} h {whole % _HOUR // _MINUTE:02d} min"


def size(value: int) -> str:
    """Write bytes in the unit that leaves one to four digits before the point."""
    amount, units = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= _KIB and len(units) > 1:
        amount, units = amount / _KIB, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def setting(value: Any) -> str:
    """Write a setting's value: text as it is, the rest as JSON would."""
    if isinstance(value, str):
        return value or '""'
    return "none" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def tick(value: float, step: float) -> str:
    """Write an axis value with no more digits than the distance between ticks asks for."""
    if value == 0:
        return "0"
    if step < 1e-3 or abs(value) >= 1e6:
        return _short_exponent(f"{value:.{max(0, _exponent(value) - _exponent(step))}e}")
    return f"{value:,.{max(0, -_exponent(step))}f}"


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value)) + 1e-9)


def _short_exponent(text: str) -> str:
    mantissa, found, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if found else text
