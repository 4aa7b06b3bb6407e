"""Numbers that the originals computed: the copies in tests/goldens, else the whole set beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = (ROOT / "tests/goldens", ROOT.parent / "shared/goldens")


def golden(name: str) -> Path:
    """Return a golden's file or folder (`sofa/sbert/base`); the test that asks is skipped where it is nowhere."""
    for place in PLACES:
        if (place / name).exists():
            return place / name
    pytest.skip(f"the golden {name} is neither in tests/goldens nor in ../shared/goldens")
