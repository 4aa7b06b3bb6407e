"""Pull models from any hub, verified, into the Hugging Face cache, and load them offline."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_CALLS = {
    "pipeline": "hubcache.app.predicting",
    **dict.fromkeys(("pull", "cached", "finetune", "evaluate"), "hubcache.app.python"),
}


def __getattr__(name: str) -> Any:
    """Import a function when it is asked for: it brings what the bare package does not need."""
    if name in _CALLS:
        # By name: an import of app/ here would count as one by every module of the package.
        return getattr(import_module(_CALLS[name]), name)
    raise AttributeError(f"module 'hubcache' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the functions, too, for who types them in a notebook."""
    return sorted([*globals(), *_CALLS])
