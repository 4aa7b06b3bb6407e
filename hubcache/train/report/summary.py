"""What a record says in short, for page and model card alike; how it is written down is theirs."""

from __future__ import annotations

from typing import Any

from hubcache.train.record import Input, RunRecord
from hubcache.train.report.figures import score
from hubcache.train.settings import TrainSettings

_SPLITS = ("train", "validation", "dev", "test")
_PREFERRED = ("validation", "dev", "test")


def splits_in_order(record: RunRecord) -> list[str]:
    """List the splits that have metrics: train, validation, test, then others by name."""
    known = [split for split in _SPLITS if split in record.metrics]
    return [*known, *sorted(set(record.metrics) - set(known))]


def best_score(record: RunRecord) -> tuple[str, float] | None:
    """Return the split and value of the best metric, on validation rather than test rather than train."""
    name = best_name(record)
    order = [*(split for split in _PREFERRED if split in record.metrics), *splits_in_order(record)]
    return next(((split, record.metrics[split][name]) for split in order if name in record.metrics[split]), None)


def changed_settings(record: RunRecord) -> dict[str, Any]:
    """Return the settings that are not the plain defaults, by name."""
    plain = TrainSettings().told()
    return {name: value for name, value in sorted(record.settings.items()) if name not in plain or value != plain[name]}


def best_name(record: RunRecord) -> str:
    """Return the best metric's name as the metrics have it."""
    return record.best_metric.removeprefix("eval_")


def metric_rows(record: RunRecord) -> list[list[str]]:
    """Return a row a metric, its name and its value on each split in order; the best metric comes first."""
    splits, best = splits_in_order(record), best_name(record)
    names = {name for split in splits for name in record.metrics[split]}
    return [
        [name, *(_written(name, record.metrics[split].get(name)) for split in splits)]
        for name in sorted(names, key=lambda name: (name != best, name))
    ]


def inputs(record: RunRecord) -> list[tuple[str, Input]]:
    """Return what was read, each with its role."""
    beside = [(role, one) for role, one in (("teacher", record.teacher), ("recipe", record.recipe)) if one]
    return [("model", record.model), *(("data", one) for one in record.data), *beside]


def _written(name: str, value: float | None) -> str:
    return "–" if value is None else score(name, value)
