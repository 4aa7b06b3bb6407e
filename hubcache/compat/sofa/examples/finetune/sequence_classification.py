"""SOFA's run_classification_hf: its arguments, files and labels over hubcache's models, metrics and Child-Tuning.

It is for scripts that were written for SOFA; new ones use `hubcache finetune`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForSequenceClassification, set_seed

from hubcache.compat.sofa.rows import (
    TEXT,
    Files,
    Row,
    Taken,
    label_maps,
    label_names,
    prepared,
    read_cached,
    read_files,
    take,
)
from hubcache.compat.sofa.training import (
    OLD_ARGUMENTS,
    ChildTuning,
    load_model,
    load_tokenizer,
    train_and_evaluate,
)
from hubcache.compat.sofa.utils.tasks import TaskType
from hubcache.train.metrics.labels import accuracy, multilabel_exact_match
from hubcache.train.metrics.values import mse

SINGLE = TaskType.single_label_classification.value
MULTI = TaskType.multi_label_classification.value
REGRESSION = "regression"


def run_classification_hf(
    pretrain_model_path: str | Path,
    output_dir: str | Path,
    task_type: str | TaskType,
    first_sequence: Taken,
    label: Taken,
    train_file_path: Files | None = None,
    dataset_name: str = TEXT,
    train_dataset_config: str | None = None,
    eval_dataset_config: str | None = None,
    second_sequence: Taken | None = None,
    dev_file_path: Files | None = None,
    child_tuning_type: str | None = None,
    reserve_p: float = 0.2,
    label_enumerate_values: Sequence[Any] | str | None = None,
    sequence_length: int = 128,
    map_function: Callable[[Row], Row | None] | None = None,
    filter_function: Callable[[Row], bool] | None = None,
    load_best_model_at_end: bool = True,
    save_strategy: str = "steps",
    save_total_limit: int | None = 1,
    evaluation_strategy: str = "steps",
    seed: int = 42,
    config_args: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> list[dict[str, Any]]:
    """Fine-tune a sequence classifier and evaluate it; checkpoints in `output_dir` are what remains.

    Rows are filtered, then mapped. `kwargs` are training arguments of transformers 4 or 5, others are not read, but
    `cache_dir`. Returns what the Trainer logged (the reference returns None).

    Raises: RuntimeError for a task type that SOFA did not have, UsageError for data that cannot be read.
    """
    task = Task(TaskType.word(task_type), first_sequence, second_sequence, label)
    set_seed(seed)
    train, dev = _read(
        (train_file_path, dev_file_path),
        (dataset_name, train_dataset_config, eval_dataset_config),
        str(kwargs.get("cache_dir", ".cache")),
    )
    train, dev = (prepared(rows, map_function, filter_function) for rows in (train, dev))
    names = task.label_names([*train, *dev], label_enumerate_values)
    settings = {**task.model_settings(names), **(config_args or {})}
    model = load_model(AutoModelForSequenceClassification, pretrain_model_path, settings)
    tokenizer = load_tokenizer(pretrain_model_path, model_max_length=sequence_length)
    told = {
        "output_dir": str(output_dir),
        "load_best_model_at_end": load_best_model_at_end,
        "save_strategy": save_strategy,
        "save_total_limit": save_total_limit,
        "evaluation_strategy": evaluation_strategy,
        "seed": seed,
        **{name: value for name, value in kwargs.items() if name in OLD_ARGUMENTS},
    }
    parts = {
        "train_dataset": task.encode(train, tokenizer, names),
        "eval_dataset": task.encode(dev, tokenizer, names) if dev else None,
        "compute_metrics": task.metrics,
    }
    return train_and_evaluate(model, told, ChildTuning(child_tuning_type, reserve_p), parts)


@dataclass(frozen=True, slots=True)
class Task:
    """What is classified: the kind, and how a row's texts and label are found. Raises: RuntimeError for the kind."""

    kind: str
    first: Taken
    second: Taken | None
    label: Taken

    def __post_init__(self) -> None:
        if self.kind not in (SINGLE, MULTI, REGRESSION):
            raise RuntimeError(f"Unsupported task type:{self.kind}")

    def label_names(self, rows: Sequence[Row], named: Sequence[Any] | str | None) -> list[str]:
        """Return the classes in order, none for a regression."""
        if self.kind == REGRESSION:
            return []
        return label_names(named, {name for row in rows for name in self.labels(row)})

    def labels(self, row: Row) -> list[str]:
        """Return a row's labels as texts."""
        found = take(row, self.label)
        several = self.kind == MULTI and isinstance(found, Sequence) and not isinstance(found, str)
        return [str(each) for each in (found if several else [found])]

    def model_settings(self, names: Sequence[str]) -> dict[str, Any]:
        """Return what the model's configuration is to say."""
        if self.kind == REGRESSION:
            return {"num_labels": 1, "problem_type": REGRESSION}
        return {"num_labels": len(names), "problem_type": self.kind, **label_maps(names)}

    def encode(self, rows: Sequence[Row], tokenizer: Any, names: Sequence[str]) -> list[Row]:
        """Return the rows with `label_map` (what was found), `label` (what is learned) and the tokenizer's columns."""
        numbers = {name: number for number, name in enumerate(names)}
        return [{**row, **self._target(row, numbers), **self._tokens(row, tokenizer)} for row in rows]

    def metrics(self, made: Any) -> dict[str, float]:
        """Score the logits [rows, labels] of the Trainer."""
        logits, references = made.predictions, made.label_ids
        logits = logits[0] if isinstance(logits, tuple) else logits
        if self.kind == REGRESSION:
            return {"mse": mse(logits.reshape(-1), references)}
        if self.kind == MULTI:
            return {"accuracy": multilabel_exact_match((logits > 0).astype(int), references.astype(int))}
        return {"accuracy": accuracy(np.argmax(logits, axis=-1), references)}

    def _target(self, row: Row, numbers: Mapping[str, int]) -> Row:
        found = take(row, self.label)
        if self.kind == REGRESSION:
            return {"label": float(found)}
        own = {numbers[name] for name in self.labels(row)}
        if self.kind == MULTI:
            return {"label_map": found, "label": [float(number in own) for number in range(len(numbers))]}
        return {"label_map": str(found), "label": own.pop()}

    def _tokens(self, row: Row, tokenizer: Any) -> Row:
        texts = [take(row, taken) for taken in (self.first, self.second) if taken is not None]
        return dict(tokenizer(*texts, padding="max_length", truncation=True))


def _read(
    files: tuple[Files | None, Files | None], named: tuple[str, str | None, str | None], cache_dir: str
) -> tuple[list[Row], list[Row]]:
    """Return the rows to train on and those to evaluate on, from files or from a data set by name."""
    dataset, train_config, dev_config = named
    if dataset != TEXT and train_config:
        split = "validation_matched" if dev_config == "mnli" else "validation"
        dev = read_cached(dataset, dev_config, split, cache_dir) if dev_config else []
        return read_cached(dataset, train_config, "train", cache_dir), dev
    train_files, dev_files = files
    if train_files is None:
        raise ValueError("train_file_path, or dataset_name with train_dataset_config, has to say what to train on")
    return read_files(train_files, dataset), read_files(dev_files, dataset) if dev_files else []
