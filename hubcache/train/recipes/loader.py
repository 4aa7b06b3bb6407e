"""The shipped run files: every published table's hyperparameters and scores, by name; nothing is trained here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from hubcache.errors import BadConfig, UsageError
from hubcache.train.settings import TrainSettings
from hubcache.train.tasks.nearest import nearest

FOLDER = Path(__file__).parent

_MERGED = ("settings", "task_settings", "model_config")
_LISTED = ("notes",)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFile:
    """One published run: what is trained on what, by which settings, and the score to compare with.

    model           a short name of the catalogue, or a repo on the hub
    task            a shipped task; `task_settings` are what tasks.changed() changes of it
    settings        names of TrainSettings and the values that the original gave them; the rest is hubcache's
    model_config    what the model's config says otherwise than the checkpoint's
    keep_decoder_layers  the layers of the decoder that are kept, () for all
    configs         the configs of the data whose mean the score is, () for the task's own; `evaluated_as` is the task
                    that scores them, where it is another
    published       score by the name of our metric, in that metric's scale, on `split`
    also_published  figures that hubcache has no metric for, by their own names
    source          where settings and scores come from
    notes           what differs from the original, or is not known of it
    """

    name: str
    model: str
    task: str
    source: str
    about: str = ""
    settings: Mapping[str, Any]
    task_settings: Mapping[str, Any]
    model_config: Mapping[str, Any]
    keep_decoder_layers: tuple[int, ...] = ()
    configs: tuple[str, ...] = ()
    evaluated_as: str = ""
    split: str = "validation"
    published: Mapping[str, float]
    also_published: Mapping[str, float]
    notes: tuple[str, ...] = ()


def run_file(name: str) -> RunFile:
    """Return the run file of that name. Raises: UsageError, with the nearest."""
    known = run_files()
    if name not in known:
        raise UsageError(f"there is no run file {name!r}", hint=nearest(name, known))
    return known[name]


@cache
def run_files() -> Mapping[str, RunFile]:
    """Return all shipped run files by name, in the order of their files."""
    found: dict[str, RunFile] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        for one in read_run_files(path):
            if one.name in found:
                raise BadConfig(f"{path}: {one.name} is defined twice")
            found[one.name] = one
    return MappingProxyType(found)


def read_run_files(path: Path) -> Iterator[RunFile]:
    """Read a file of tables, each with `runs`; what a table says holds for all its runs, unless they say otherwise.

    A table whose name begins with `x-` only holds YAML anchors. Raises: BadConfig, with the file and the run.
    """
    tables = yaml.safe_load(path.read_text(encoding="utf-8"))
    for table, told in tables.items():
        if str(table).startswith("x-"):
            continue
        shared = {key: value for key, value in told.items() if key != "runs"}
        for name, own in told["runs"].items():
            yield _run_file(str(name), _merged(shared, own), f"{path}: {name}")


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a run's own values over its table's: mappings key by key, notes after notes."""
    merged = {**shared, **own}
    for key in _MERGED:
        merged[key] = {**shared.get(key, {}), **own.get(key, {})}
    for key in _LISTED:
        merged[key] = [*shared.get(key, []), *own.get(key, [])]
    return merged


def _run_file(name: str, told: dict[str, Any], where: str) -> RunFile:
    known = {one.name for one in fields(RunFile)} - {"name"}
    for key in told:
        if key not in known:
            raise BadConfig(f"{where}: a run has no {key!r}", hint=nearest(str(key), known))
    for key in ("model", "task", "source"):
        if not told.get(key):
            raise BadConfig(f"{where}: the run names no {key}")
    values = {"published": {}, "also_published": {}, **told, "settings": _settings(told["settings"], where)}
    return RunFile(name=name, **{key: _frozen(value) for key, value in values.items()})


def _settings(told: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Parse the values as TrainSettings does, so that a wrong one is found before a GPU is rented."""
    parsed = TrainSettings().updated(told, where).told()
    for key in told:
        if key not in parsed:
            raise BadConfig(f"{where}: write the setting {key!r} in full")
    return {key: parsed[key] for key in told}


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType(value)
    return tuple(value) if isinstance(value, list) else value
