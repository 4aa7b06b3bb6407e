"""What loading a file may run, told from its name; its bytes are looked at by whoever loads it."""

from __future__ import annotations

from typing import Literal

Risk = Literal["", "pickle", "code"]
_PICKLES = {"bin", "pt", "pth", "pkl", "ckpt"}


def risk(path: str) -> Risk:
    """Say what loading the file may run: a pickle's opcodes, or code."""
    stem, _, suffix = path.rpartition("/")[2].lower().rpartition(".")
    if not stem:
        return ""
    return "pickle" if suffix in _PICKLES else "code" if suffix == "py" else ""
