"""Pipelines by task over models on this machine: transformers' own, those it dropped, and registered ones.

Nothing is fetched, and importing this imports neither torch nor transformers.
"""

from hubcache.train.pipelines.registry import register
from hubcache.train.pipelines.tasks import TASKS, PipelineTask, find_task, fitting, task_of

__all__ = ["TASKS", "PipelineTask", "find_task", "fitting", "register", "task_of"]
