"""The hint "did you mean": the nearest known name; it decides nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, shown: int = 12) -> str:
    """Return a hint that names the nearest of `known`, or lists them where none is near."""
    names = sorted(set(known))
    close = difflib.get_close_matches(str(name).lower(), [one.lower() for one in names], n=3)
    if close:
        return "did you mean " + " or ".join(one for one in names if one.lower() in close) + "?"
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"there are {', '.join(names[:shown])}{rest}"
