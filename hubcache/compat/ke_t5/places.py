"""Where the models, the data and the checkpoints of ke-t5-downstreams' command lines are; nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import transformers.utils

from hubcache.cache.folder import RepoFolder
from hubcache.core.artifact import RepoId
from hubcache.errors import HubcacheError, OfflineError, UsageError
from hubcache.train.tasks import Task


def model_folder(name: str) -> Path:
    """Return the folder of a model: a folder of that name, else its cached snapshot. Raises: OfflineError."""
    if Path(name).is_dir():
        return Path(name)
    try:
        found = transformers.utils.cached_file(name, "config.json", local_files_only=True)
    except OSError as error:
        raise OfflineError(f"{name} is not in the cache", hint=f"online, run: hubcache pull {name}") from error
    return Path(str(found)).parent


def data_folder(task: Task, root: Path) -> Path:
    """Return the folder of a task's data: below `root` one that is named like the set or the task, else the cached set.

    Names are tried as `klue/ynat`, `klue_ynat`, `klue` and the task's own; last `root` itself, where it has files.
    Raises: UsageError where there is none.
    """
    tried = list(dict.fromkeys(root / name for name in _names(task)))
    for place in tried:
        if place.is_dir():
            return place
    cached = _cached_set(task.dataset)
    if cached is not None:
        return cached
    if root.is_dir() and any(each.is_file() for each in root.iterdir()):
        return root
    raise UsageError(
        f"the data of {task.name} is neither in {root} nor cached",
        hint=f"put it into {tried[0]}, or online, run: hubcache pull --type dataset {task.dataset}",
    )


def _names(task: Task) -> Iterator[str]:
    short = task.dataset.rpartition("/")[2]
    if short and task.config:
        yield from (f"{short}/{task.config}", f"{short}_{task.config}")
    yield from filter(None, (short, task.name))


def _cached_set(name: str) -> Path | None:
    root = Path(transformers.utils.hub.constants.HF_HUB_CACHE)
    try:
        folder = RepoFolder(root, RepoId.parse(name, hub="hf", kind="dataset"))
        commit = folder.commit_of("main")
    except HubcacheError:
        return None
    return folder.snapshot_path(commit) if commit and folder.snapshot_path(commit).is_dir() else None


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of a run: output_dir/{model name}_{weights}/{task}, `/` written as `_`."""

    path: Path

    @classmethod
    def of(cls, output: str, model: str, weights: str, task: str) -> RunFolder:
        """Return the folder of a model class that was trained on a task from some weights."""
        return cls(Path(output) / f"{model}_{weights}".replace("/", "_") / task)

    @property
    def last(self) -> Path:
        """The last checkpoint."""
        return self.path / "weights" / "checkpoint.pth"

    @property
    def best(self) -> Path:
        """The best checkpoint."""
        return self.path / "weights" / "best_model.pth"

    @property
    def logs(self) -> Path:
        """TensorBoard's."""
        return self.path / "logs" / self.path.name

    def hf_path(self, told: str) -> Path:
        """Return where --hf_path is: `default` is in the run's folder."""
        return self.path / "hf" if told == "default" else Path(told)

    def checkpoint(self, told: str) -> Path:
        """Return the file that --resume means: true, best, or the file itself."""
        return {"true": self.last, "best": self.best}.get(told.lower(), Path(told))


def only_run(output: str, model: str, task: str) -> RunFolder:
    """Return the one run of a model class on a task. Raises: UsageError for none or several."""
    prefix = f"{model}_".replace("/", "_")
    root = Path(output)
    folders = sorted(root.iterdir()) if root.is_dir() else []
    found = [RunFolder(each / task) for each in folders if each.name.startswith(prefix) and (each / task).is_dir()]
    if len(found) != 1:
        runs = ", ".join(str(each.path) for each in found) or "none"
        raise UsageError(
            f"{output} has {len(found)} runs of {model} on {task} ({runs})", hint="--pre_trained_model NAME"
        )
    return found[0]
