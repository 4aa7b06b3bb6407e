"""Options that finetune and evaluate share, and how a run is shown; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hubcache.app.training import DataChoice
from hubcache.errors import UsageError
from hubcache.train.record import RunRecord

TaskOption = Annotated[
    str, typer.Option("--task", help="A task's name, or a file that defines one (my_task.yaml, tasks.py).")
]
DataOption = Annotated[
    str | None, typer.Option("--data", "--data-dir", help="The rows: a file, a folder, or a cached data set.")
]
ConfigOption = Annotated[str, typer.Option("--config", help="Which config of the data set.")]
ColumnOption = Annotated[
    list[str] | None, typer.Option("--column", help="text=COLUMN, label=COLUMN: where columns are not found.")
]
SettingOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; --dry-run lists them.")
]
TaskSettingOption = Annotated[
    list[str] | None, typer.Option("--task-set", metavar="KEY=VALUE", help="Change the task: metrics, options.stride.")
]


def pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """Read `key=value` texts.

    Raises:
        UsageError: one has no `=`.
    """
    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} takes KEY=VALUE, not {text!r}")
        found[key.strip()] = value.strip()
    return found


def typed_pairs(texts: Sequence[str] | None, option: str) -> dict[str, Any]:
    """Read `key=value` texts whose values are YAML: numbers, true and false, [lists], words.

    Raises:
        UsageError: one has no `=`, or is no YAML.
    """
    import yaml  # 12 ms that --help need not pay

    try:
        return {key: yaml.safe_load(value) for key, value in pairs(texts, option).items()}
    except yaml.YAMLError as error:
        raise UsageError(f"{option}: {error}") from error


def data_choice(source: str | None, config: str, splits: Mapping[str, str], columns: list[str] | None) -> DataChoice:
    """Gather what was said of the data."""
    return DataChoice(source, config, splits, pairs(columns, "--column"))


def metric_text(value: float) -> str:
    """Write a metric for people: four digits behind the point below 1, two above."""
    return f"{value:.4f}" if abs(value) <= 1 else f"{value:.2f}"


def record_lines(record: RunRecord) -> list[str]:
    """Say how a run ended: each split's metrics, and how fast it was."""
    lines = []
    for split, scores in record.metrics.items():
        told = sorted(scores.items(), key=lambda pair: pair[0] == "loss")
        lines.append(f"{split}: " + ", ".join(f"{name} {metric_text(value)}" for name, value in told))
    return [*lines, f"{record.seconds:.0f} s, {record.samples_per_second:.0f} rows/s on {record.device}"]


def record_facts(record: RunRecord) -> dict[str, Any]:
    """Return a run's figures as JSON has them."""
    return {
        "task": record.task,
        "model": {"name": record.model.name, "digest": record.model.digest},
        "data": [{"name": each.name, "digest": each.digest} for each in record.data],
        "metrics": {split: dict(scores) for split, scores in record.metrics.items()},
        "best_metric": record.best_metric,
        "best_step": record.best_step,
        "seconds": record.seconds,
        "samples_per_second": record.samples_per_second,
        "peak_memory": record.peak_memory,
        "device": record.device,
    }


def settings_path(text: str | None) -> Path | None:
    """Return the path of a settings file."""
    return None if text is None else Path(text).expanduser()
