"""Evaluation of cached models on a task's split, and the runs that the cache remembers; the work is train/'s."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubcache.app.exporting import find_base
from hubcache.app.local import LocalApp
from hubcache.app.training import DataChoice, find_folder, read_data, require_libraries
from hubcache.cache.scan import scan_repos
from hubcache.errors import UsageError
from hubcache.train.record import FILE, RunRecord
from hubcache.train.settings import TrainSettings
from hubcache.train.tasks import changed, load_task

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Which model is scored on which split of what, as it was typed; `output` takes predictions.jsonl and run.json.

    An adapter is put over the base that it names, or over `base`, whatever that is.
    """

    model: str
    task: str
    output: Path
    split: str = "test"
    data: DataChoice = field(default_factory=DataChoice)
    settings: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    zero_shot: bool = False
    base: str | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run that the cache holds: its repo, the ref that means it (its commit, if none does), and its record."""

    repo: str
    ref: str
    commit: str
    path: Path
    record: RunRecord


def evaluate_cached(app: LocalApp, request: ScoreRequest, *, say: Say) -> RunRecord:
    """Score a model on a split.

    Raises:
        OfflineError: model or data are not in the cache.
        UsageError: the split is not there, or the model has no head for the task.
    """
    require_libraries()
    from hubcache.train.evaluate import EvaluateRequest, evaluate

    model, model_input = find_folder(app, request.model)
    base = find_base(app, model, request.base)
    task = load_task(request.task)
    task = changed(task, dict(request.options)) if request.options else task
    data, data_inputs = read_data(app, task, request.data)
    if request.split not in data.rows:
        raise UsageError(f"there is no split {request.split}", hint=f"--split {'|'.join(data.rows)}")
    for line in data.said:
        say(line)
    return evaluate(
        EvaluateRequest(
            model=model, task=data.task, rows=data.rows[request.split], split=request.split, output=request.output,
            settings=TrainSettings().updated_by(request.settings), zero_shot=request.zero_shot,
            base=base, any_base=request.base is not None,
            model_input=model_input, data_inputs=data_inputs, command=request.command, say=say,
        )
    )  # fmt: skip


def kept_runs(app: LocalApp) -> Iterator[KeptRun]:
    """List the fine-tuned models of the cache, by repo and by age."""
    for folder in scan_repos(app.cache.root):
        refs = {commit: name for name, commit in sorted(folder.refs().items(), reverse=True)}
        found = []
        for commit in folder.commits():
            path = folder.snapshot_path(commit)
            if (path / FILE).is_file():
                record = RunRecord.read(path)
                run = KeptRun(str(folder.repo), refs.get(commit, commit[:12]), commit, path, record)
                found.append((path.stat().st_mtime, run))
        yield from (run for _, run in sorted(found, key=lambda pair: pair[0]))
