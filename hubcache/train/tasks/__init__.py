"""Tasks: what is read, what is predicted and how it is scored, as data; nothing here reads rows or imports torch."""

from hubcache.train.tasks.registry import file_tasks, load_task, shipped_tasks
from hubcache.train.tasks.task import KINDS, Kind, Task, changed, head_of
from hubcache.train.tasks.template import Row

__all__ = ["KINDS", "Kind", "Row", "Task", "changed", "file_tasks", "head_of", "load_task", "shipped_tasks"]
