"""Pipelines of other makers, by task: registered in this process, or an installed package's; none is built here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

GROUP = "hubcache.pipelines"


@dataclass(frozen=True, slots=True)
class Custom:
    """A task's class, called with model, tokenizer, task and device; `auto_class` loads the model, None by its name."""

    made_by: Any
    auto_class: Any = None


# The reference's interface: a script registers a class that a later pipeline() finds.
_registered: dict[str, Custom] = {}


def register(task: str, cls: Any, auto_class: Any = None) -> None:
    """Let pipeline(task) make a `cls`; the last registration of a task counts, also over a task of ours.

    `auto_class` is what loads its model from a folder; None takes the class that the model's configuration names.
    """
    _registered[task] = Custom(cls, auto_class)


def custom(task: str) -> Custom | None:
    """Return the pipeline that was registered for a task, or else an installed package's entry point."""
    if task in _registered:
        return _registered[task]
    for point in entry_points(group=GROUP, name=task):
        made = point.load()
        return Custom(made, getattr(made, "auto_class", None))
    return None
