"""Reads a task's rows from files on disk; it fetches nothing, tokenises nothing and imports no torch."""

from hubcache.train.data.columns import bind, with_labels
from hubcache.train.data.layouts import laid_out
from hubcache.train.data.prepare import Choices, TaskData, read_task_data
from hubcache.train.data.reading import read_table
from hubcache.train.data.rows import Table
from hubcache.train.data.splits import Splits, held_out_rows, load_splits

__all__ = [
    "Choices",
    "Splits",
    "Table",
    "TaskData",
    "bind",
    "held_out_rows",
    "laid_out",
    "load_splits",
    "read_table",
    "read_task_data",
    "with_labels",
]
