"""The tasks by name, the shipped ones and a user's own; reads definitions, but neither data nor a model."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from hubcache.errors import UsageError
from hubcache.train.tasks.definitions import read_definitions
from hubcache.train.tasks.nearest import nearest
from hubcache.train.tasks.task import Task

SHIPPED = Path(__file__).parent / "shipped"
_SUFFIXES = (".yaml", ".yml", ".py")


@cache
def shipped_tasks() -> Mapping[str, Task]:
    """Return the shipped tasks by name, in the order of their files."""
    tasks: dict[str, Task] = {}
    for path in sorted(SHIPPED.glob("*.yaml")):
        tasks.update(read_definitions(path, tasks))
    return MappingProxyType(tasks)


def load_task(name: str) -> Task:
    """Return the task of that name or alias, or of a file: `my_task.yaml`, `tasks.py`, `tasks.yaml:name`.

    Letter case, `-`, `_` and `/` are no matter in a name. A Python file is run: name none that you do not trust; it
    holds one or more `Task(…)`. Raises: UsageError, with the nearest name.
    """
    path, wanted = _as_file(name)
    if path is not None:
        return _of_file(path, wanted)
    by_name = _spellings()
    if _loose(name) in by_name:
        return by_name[_loose(name)]
    known = (*shipped_tasks(), *(alias for task in shipped_tasks().values() for alias in task.aliases))
    raise UsageError(f"no task is called {name!r}", hint=nearest(name, known))


def file_tasks(path: Path) -> dict[str, Task]:
    """Return all tasks of a user's file by name. Raises: UsageError (BadConfig with the line, for YAML)."""
    if not path.is_file():
        raise UsageError(f"there is no task file {path}")
    if path.suffix != ".py":
        return read_definitions(path, shipped_tasks())
    made = runpy.run_path(str(path)).values()
    return {task.name: task for task in made if isinstance(task, Task)}


@cache
def _spellings() -> Mapping[str, Task]:
    spelled: dict[str, Task] = {}
    for task in shipped_tasks().values():
        for name in (task.name, *task.aliases):
            if spelled.setdefault(_loose(name), task) is not task:
                raise UsageError(f"the tasks {task.name} and {spelled[_loose(name)].name} are both called {name}")
    return MappingProxyType(spelled)


def _as_file(name: str) -> tuple[Path | None, str]:
    if name.endswith(_SUFFIXES):
        return Path(name), ""
    path, colon, wanted = name.rpartition(":")
    if colon and path.endswith(_SUFFIXES):
        return Path(path), wanted
    return None, ""


def _of_file(path: Path, wanted: str) -> Task:
    tasks = file_tasks(path)
    if wanted in tasks:
        return tasks[wanted]
    if wanted or len(tasks) != 1:
        found = f"has no task {wanted!r}" if wanted else f"has {len(tasks)} tasks"
        raise UsageError(f"{path} {found}", hint=_choice(path, wanted, tasks))
    return next(iter(tasks.values()))


def _choice(path: Path, wanted: str, tasks: Iterable[str]) -> str:
    names = list(tasks)
    if not names:
        return "a YAML entry is `name: {kind: …}`, a Python file holds `task = Task(name=…, kind=…)`"
    return nearest(wanted, names) if wanted else f"write {path}:{names[0]}"


def _loose(name: str) -> str:
    return re.sub(r"[-_/ ]", "", name).lower()
