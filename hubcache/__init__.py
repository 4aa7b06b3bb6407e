"""Pull models from any hub, verified, into the Hugging Face cache, and load them offline."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `hubcache.pipeline` when it is asked for: it brings what the bare package does not need."""
    if name == "pipeline":
        # By name: an import of app/ here would count as one by every module of the package.
        return import_module("hubcache.app.predicting").pipeline
    raise AttributeError(f"module 'hubcache' has no attribute {name!r}")
