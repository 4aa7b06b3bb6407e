"""Answers of pipelines compared: keys and words exactly, numbers nearly; it asks no pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def near(made: Any, expected: Any, *, rel: float = 1e-4) -> None:
    """Assert that two answers are equal but for rounding: a padded batch adds numbers up in another order."""
    if isinstance(expected, dict):
        assert list(made) == list(expected)
        for name in expected:
            near(made[name], expected[name], rel=rel)
    elif isinstance(expected, (list, tuple)):
        assert len(made) == len(expected)
        for one, other in zip(made, expected, strict=True):
            near(one, other, rel=rel)
    elif isinstance(expected, (float, np.floating)):
        assert made == pytest.approx(float(expected), rel=rel, abs=1e-5)
    else:
        assert made == expected
