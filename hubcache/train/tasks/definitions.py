"""Task definitions as they stand in YAML, read into tasks with the line of every mistake; no data is read here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from hubcache.errors import BadConfig, UsageError
from hubcache.train.tasks.nearest import nearest
from hubcache.train.tasks.task import Task, changed, settled

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Beside a task's own fields: what an entry begins with, and entity types that make B- and I- labels.
_FIELDS = frozenset(one.name for one in fields(Task)) - {"name"} | {"like", "types"}
_MAPPINGS = frozenset(("splits", "generation", "options"))
_LISTS = frozenset(("aliases", "labels", "codes", "metrics", "types"))


def read_definitions(path: Path, known: Mapping[str, Task]) -> dict[str, Task]:
    """Read a file of entries `name: {kind: …}`; `like: other` begins with another task, of the file or of `known`.

    A name that begins with `_` or `x-` holds YAML anchors only. Raises: BadConfig with file and line.
    """
    tasks: dict[str, Task] = {}
    for name, line, entry, lines in _entries(path):
        where = f"{path}:{line}"
        if name in tasks:
            raise BadConfig(f"{where}: {name} is defined twice")
        _check_keys(entry, lines, path)
        tasks[name] = _task(name, entry, {**known, **tasks}, where)
    return tasks


def iob2_labels(types: Iterator[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Return O and the B- and I- labels of entity types, in order."""
    return ("O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI"))


def _entries(path: Path) -> Iterator[tuple[str, int, dict[str, Any], dict[str, int]]]:
    """Yield (name, line, entry, the line of each key)."""
    loader = _LOADER(path.read_text("utf-8"))
    try:
        node = loader.get_single_node()
        if node is None:
            return
        content = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise BadConfig(f"{path}: {error}", hint="an entry is `name: {kind: …}`, indented with spaces") from error
    finally:
        loader.dispose()
    if not isinstance(content, dict):
        raise BadConfig(f"{path}: a file of tasks is a mapping of names to entries")
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name.startswith(("_", "x-")):
            continue
        if not isinstance(content[name], dict):
            raise BadConfig(f"{path}:{line}: {name} is no entry with settings")
        lines = {str(inner.value): inner.start_mark.line + 1 for inner, _ in value.value}
        yield name, line, content[name], lines


def _check_keys(entry: Mapping[str, Any], lines: Mapping[str, int], path: Path) -> None:
    for key, value in entry.items():
        where = f"{path}:{lines.get(key, 1)}"
        if key not in _FIELDS:
            raise BadConfig(f"{where}: a task has no setting {key!r}", hint=nearest(str(key), _FIELDS))
        if key in _MAPPINGS and not isinstance(value, dict):
            raise BadConfig(f"{where}: {key} is a mapping, not {value!r}")
        if key in _LISTS and not isinstance(value, list):
            raise BadConfig(f"{where}: {key} is a list, not {value!r}")


def _task(name: str, entry: dict[str, Any], known: Mapping[str, Task], where: str) -> Task:
    settings = dict(entry)
    like = settings.pop("like", None)
    types = settings.pop("types", None)
    if types is not None:
        settings["labels"] = iob2_labels(tuple(str(one) for one in types))
    if like is not None and like not in known:
        raise BadConfig(f"{where}: {name} is like {like}, which is no task", hint=nearest(str(like), known))
    try:
        if like is not None:
            return changed(known[like], {"aliases": (), "about": "", **settings, "name": name})
        if "kind" not in settings:
            raise BadConfig(f"{where}: {name} has no kind", hint="add kind: or like:")
        return Task(name=name, **{key: settled(key, value) for key, value in settings.items()})
    except UsageError as error:
        raise BadConfig(f"{where}: {error.message}", hint=error.hint) from error
