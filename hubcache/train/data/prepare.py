"""From a task and a place on disk to rows by split and a task that knows their columns and labels; encodes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hubcache.train.data.columns import bind, with_labels
from hubcache.train.data.layouts import laid_out
from hubcache.train.data.splits import HELD_OUT, Source, load_splits
from hubcache.train.tasks.task import Task
from hubcache.train.tasks.template import Row


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task bound to its data: `task` has the columns and labels of `rows` (by train, validation, test).

    said tells, a line each, what was read and chosen; files are what was read.
    """

    task: Task
    rows: Mapping[str, list[Row]]
    said: tuple[str, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Choices:
    """What a user may choose beside a task's own: the config, splits by role, columns by role or name."""

    config: str = ""
    splits: Mapping[str, str] | None = None
    columns: Mapping[str, str] | None = None
    held_out: float = HELD_OUT


def read_task_data(task: Task, source: Source, choices: Choices | None = None) -> TaskData:
    """Read `source` (see load_splits) for a task: lay its records out, find the columns and the labels.

    Raises: UsageError for what is not there, does not parse, or has no column that fits.
    """
    chosen = choices or Choices()
    wanted = {**task.splits, **(chosen.splits or {})}
    splits = load_splits(source, wanted, config=chosen.config or task.config, held_out=chosen.held_out)
    rows = {role: laid_out(task, each) for role, each in splits.rows.items()}
    everything = [row for each in rows.values() for row in each]
    bound, columns = bind(task, everything, chosen.columns)
    labelled, labels = with_labels(bound, everything, splits.class_names)
    trained = replace(labelled, config=chosen.config or task.config)
    return TaskData(trained, rows, (*splits.said, *columns, *labels), splits.files)
