"""`hubcache runs`: the fine-tuned models that the cache holds, listed or compared."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubcache.app.evaluating import KeptRun, kept_runs
from hubcache.errors import OfflineError
from hubcache_cli.options import AsJson, CacheDir, complete_cached, make_local_app
from hubcache_cli.output import age_text, print_json, print_table, shorten
from hubcache_cli.training import metric_text, record_facts


def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN...]", help="org/name or org/name@ref: compare these.", autocompletion=complete_cached
        ),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Only runs of this task.")] = None,
    as_json: AsJson = False,
    cache_dir: CacheDir = None,
) -> None:
    """List the fine-tuned models in the cache, or compare some: settings that differ, and every metric."""
    found = [run for run in kept_runs(make_local_app(cache_dir)) if task in (None, run.record.task)]
    if names:
        found = [run for name in names for run in _named(found, name)]
    if as_json:
        for each in found:
            print_json(_facts(each))
    elif names:
        _compare(found)
    else:
        _list(found)


def _named(found: list[KeptRun], name: str) -> list[KeptRun]:
    repo, _, ref = name.partition("@")
    matches = [run for run in found if run.repo == repo and (not ref or ref == run.ref or run.commit.startswith(ref))]
    if not matches:
        raise OfflineError(f"the cache holds no run {name}", hint="hubcache runs lists them")
    return matches


def _list(found: list[KeptRun]) -> None:
    rows = []
    for run in found:
        record = run.record
        split = "validation" if "validation" in record.metrics else next(iter(record.metrics), "")
        value = record.metrics.get(split, {}).get(record.best_metric)
        score = "" if value is None else f"{record.best_metric} {metric_text(value)}"
        rows.append((shorten(f"{run.repo}@{run.ref}", 34), record.task, shorten(score, 22), _time(record.seconds)))
    print_table(("RUN", "TASK", "BEST", "TOOK"), rows, right=(3,))


def _compare(found: list[KeptRun]) -> None:
    """Put runs side by side: a row for each metric, and for each setting that is not the same in all."""
    splits = [(split, name) for run in found for split, scores in run.record.metrics.items() for name in scores]
    rows = [(f"{split} {name}", *(_score(run, split, name) for run in found)) for split, name in dict.fromkeys(splits)]
    keys = [key for run in found for key in run.record.settings]
    for key in dict.fromkeys(keys):
        values = [str(run.record.settings.get(key, "")) for run in found]
        if len(set(values)) > 1:
            rows.append((key, *values))
    header = ("", *(shorten(f"{run.repo}@{run.ref}", 28) for run in found))
    print_table(header, [("task", *(run.record.task for run in found)), *rows], right=range(1, len(header)))


def _score(run: KeptRun, split: str, name: str) -> str:
    value = run.record.metrics.get(split, {}).get(name)
    return "" if value is None else metric_text(value)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else age_text(seconds)


def _facts(run: KeptRun) -> dict[str, Any]:
    kept = {"repo": run.repo, "ref": run.ref, "commit": run.commit, "path": str(run.path)}
    return kept | record_facts(run.record) | {"settings": dict(run.record.settings), "command": run.record.command}
