"""What scripts and notebooks call: pull, cached, finetune and evaluate as functions; the work is the use cases'."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubcache.app.progress import TransferProgress
from hubcache.app.records import open_index
from hubcache.app.settings import Settings
from hubcache.app.tables import Table
from hubcache.cache.summaries import scan_indexed
from hubcache.core.amounts import age_text, counted, size_text
from hubcache.errors import UsageError

if TYPE_CHECKING:
    from hubcache.app.training import DataChoice, Trained
    from hubcache.train.record import RunRecord

Place = str | Path | None


def pull(
    reference: str,
    *,
    revision: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    cache_dir: Place = None,
) -> Path:
    """Bring a reference into the cache, verified, with a bar where one is seen; return its snapshot's folder.

    Raises: HubcacheError, any of the tree in errors.py; what has arrived by then is resumed next time.
    """
    from hubcache.app.compose import compose  # the HTTP client costs 60 ms
    from hubcache.app.usecases import PullRequest
    from hubcache.app.usecases import pull as pull_into

    settings = _settings(cache_dir)
    request = PullRequest(reference, revision=revision, include=tuple(include), exclude=tuple(exclude))
    progress = TransferProgress(reference, bar=settings.progress_bars)
    try:
        pulled = pull_into(compose(settings), request, progress=progress, notify=_say)
    finally:
        progress.close()
    return pulled.path if pulled.converted is None else pulled.converted.path


def cached(*, cache_dir: Place = None) -> Table:
    """List the repos in the cache, a record each: repo, type, size in bytes, files, refs, last_used in unix seconds."""
    settings = _settings(cache_dir)
    found = list(scan_indexed(settings.hub_cache, open_index(settings)))
    now = time.time()
    return Table(
        header=("repo", "type", "size", "files", "used", "refs"),
        rows=tuple(
            (one.repo.name, one.repo.kind, size_text(one.size), str(one.files), age_text(now - one.last_used),
             ", ".join(one.refs))
            for one in found
        ),
        records=tuple(
            {"repo": one.repo.name, "type": one.repo.kind, "size": one.size, "files": one.files,
             "refs": dict(one.refs), "last_used": one.last_used, "path": str(one.path)}
            for one in found
        ),
        right=(2, 3),
        caption=f"{counted(len(found), 'repo')}, {size_text(sum(one.size for one in found))} in {settings.hub_cache}",
    )  # fmt: skip


def finetune(
    model: str | Path,
    task: str,
    data: Place = None,
    *,
    output: str | None = None,
    teacher: str | None = None,
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    splits: Mapping[str, str] | None = None,
    cache_dir: Place = None,
) -> Trained:
    """Fine-tune a cached model on a task, as `hubcache finetune` does; the result draws its report in a notebook.

    `settings` are what --set takes. Raises: OfflineError, UsageError, BadConfig, as the command does.
    """
    from hubcache.app.local import compose_local
    from hubcache.app.training import TrainRequest, check_training, plan_training, train

    app = compose_local(_settings(cache_dir))
    request = TrainRequest(
        model=str(model), task=task, data=_choice(data, splits, columns), teacher=teacher, recipe=recipe, output=output,
        settings=_pairs(settings), command=f"hubcache.finetune({str(model)!r}, {task!r}, …)",
    )  # fmt: skip
    planned = plan_training(app, request, say=_say)
    for line in (*planned.data.said, *planned.summary, *check_training(planned)):
        _say(line)
    trained = train(app, planned)
    if trained is None:
        raise UsageError("this is not the first of several processes", hint="use hubcache finetune --nproc N")
    return trained


def evaluate(
    model: str | Path,
    task: str,
    data: Place = None,
    *,
    split: str = "test",
    settings: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    splits: Mapping[str, str] | None = None,
    cache_dir: Place = None,
) -> RunRecord:
    """Score a cached model on a split of a task; the record draws its report in a notebook.

    Raises: OfflineError, UsageError, as `hubcache evaluate` does.
    """
    from hubcache.app.evaluating import ScoreRequest, evaluate_cached
    from hubcache.app.local import compose_local

    with tempfile.TemporaryDirectory() as scratch:
        request = ScoreRequest(
            str(model), task, Path(scratch), split, _choice(data, splits, columns), _pairs(settings),
            command=f"hubcache.evaluate({str(model)!r}, {task!r}, …)",
        )  # fmt: skip
        return evaluate_cached(compose_local(_settings(cache_dir)), request, say=_say)


def _choice(data: Place, splits: Mapping[str, str] | None, columns: Mapping[str, str] | None) -> DataChoice:
    from hubcache.app.training import DataChoice

    return DataChoice(None if data is None else str(data), splits=splits or {}, columns=columns or {})


def _settings(cache_dir: Place) -> Settings:
    settings = Settings.from_environ()
    return settings if cache_dir is None else replace(settings, hub_cache=Path(cache_dir).absolute())


def _pairs(settings: Mapping[str, Any] | None) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in (settings or {}).items())


def _say(line: str) -> None:
    print(line, file=sys.stderr)
