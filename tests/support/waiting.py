"""Waiting for a condition, with an end; tests never sleep to let something happen."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], object], what: str, *, seconds: float = 20.0) -> None:
    """Poll until the condition is true.

    Raises:
        AssertionError: it is not after so many seconds.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.01)
