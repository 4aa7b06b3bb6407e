"""A model on an encoded split, scored: figures of the whole corpus, predictions row by row, confusion and mistakes.

No file is written here and no model loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubcache.train.device import Place
from hubcache.train.features import Encoded, make_collator, outcome, scores
from hubcache.train.features.choices import choices_of
from hubcache.train.predictions import Outputs, Reading, read
from hubcache.train.record import Mistake
from hubcache.train.settings import TrainSettings
from hubcache.train.tasks import Row, Task
from hubcache.train.tasks.template import as_text, text_of

FEW_LABELS = 40
MOST_MISTAKES = 50


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of a split.

    metrics    the task's, and `loss` where there are labels and they were not generated
    rows       a dictionary a row: id, texts, prediction, and reference and score where there are any
    confusion  [reference, predicted] counts, where the labels are few
    mistakes   the rows that are wrong, the surest first
    """

    metrics: Mapping[str, float]
    rows: Sequence[Row]
    confusion: tuple[tuple[int, ...], ...]
    mistakes: tuple[Mistake, ...]


def score(task: Task, model: Any, tokenizer: Any, encoded: Encoded, reading: Reading) -> Scored:
    """Run a model over an encoded split and score what it says."""
    return scored_of(task, encoded, read(model, encoded, make_collator(task, tokenizer), reading), tokenizer)


def scored_of(task: Task, encoded: Encoded, outputs: Outputs, tokenizer: Any) -> Scored:
    """Score what a model said to an encoded split."""
    found = outcome(task, encoded, _as_taken(task, outputs), tokenizer)
    metrics = scores(task, found) if found.pairs else {}
    if not np.isnan(outputs.loss):
        metrics = {"loss": outputs.loss, **metrics}
    rows = [
        {"id": source.get("id", source.get("guid", number)), "texts": texts_of(task, source), **row}
        for number, (source, row) in enumerate(zip(encoded.rows, found.rows, strict=True))
    ]
    for row, confidence in zip(rows, outputs.confidences, strict=False):
        row.setdefault("score", confidence)
    return Scored(metrics, rows, confusion(task, found.pairs), mistakes(task, rows))


def reading_for(task: Task, settings: TrainSettings, where: Place) -> Reading:
    """Return how a model is run for a task under some settings."""
    return Reading(
        kind=task.kind,
        device=where.device,
        bf16=where.bf16,
        batch_size=settings.eval_batch_size,
        generation=generation_of(task) if task.generates and settings.generate else None,
        process=where.process,
        processes=where.processes,
    )


def generation_of(task: Task) -> dict[str, Any]:
    """Return what generate() is called with: the task's, with `early_stopping` only where there are beams to stop."""
    told = dict(task.generation)
    if "max_length" not in told and "max_new_tokens" not in told:
        told["max_new_tokens"] = int(task.option("max_target_length"))
    if told.get("num_beams", 1) == 1:
        told = {name: value for name, value in told.items() if name not in ("early_stopping", "length_penalty")}
    return told


def texts_of(task: Task, row: Row) -> tuple[str, ...]:
    """Return a row's texts as a person reads them: question, text, second text or choices."""
    texts = tuple(as_text(text_of(template)(row)) for template in (task.question, task.text, task.pair) if template)
    return (*texts, *choices_of(row)) if task.kind == "multiple-choice" else texts


def confusion(task: Task, pairs: Mapping[str, tuple[Any, Any]]) -> tuple[tuple[int, ...], ...]:
    """Count [reference, predicted] labels; tags are counted one by one. () where there are no labels, or many."""
    counts: Any = np.zeros((len(task.labels), len(task.labels)), dtype=int)
    if not task.labels or len(task.labels) > FEW_LABELS:
        return ()
    if "labels" in pairs:
        predicted, true = pairs["labels"]
        for made, reference in zip(predicted, true, strict=True):
            if made >= 0 and reference >= 0:
                counts[reference, made] += 1
    elif "tag_rows" in pairs:
        number = {name: place for place, name in enumerate(task.labels)}
        for made, reference in zip(*pairs["tag_rows"], strict=True):
            for one, right in zip(made, reference, strict=False):
                counts[number[right], number[one]] += 1
    else:
        return ()
    return tuple(tuple(row) for row in counts.tolist())


def mistakes(task: Task, rows: Sequence[Row]) -> tuple[Mistake, ...]:
    """Return up to 50 rows that are wrong, the surest first; of numbers, the furthest off."""
    wrong = [row for row in rows if "reference" in row and not _is_right(row)]
    if task.kind == "regression":
        wrong.sort(key=lambda row: -abs(row["prediction"] - row["reference"]))
    else:
        wrong.sort(key=lambda row: -(_confidence(row) or 0.0))
    return tuple(
        Mistake(tuple(row["texts"]), _shown(row["reference"]), _shown(row["prediction"]), _confidence(row))
        for row in wrong[:MOST_MISTAKES]
    )


def _as_taken(task: Task, outputs: Outputs) -> Any:
    if task.kind == "question-answering":
        return [pair[0] for pair in outputs.by_feature], [pair[1] for pair in outputs.by_feature]
    return outputs.by_feature


def _is_right(row: Row) -> bool:
    predicted, reference = row["prediction"], row["reference"]
    if isinstance(reference, list) and isinstance(predicted, str):
        return predicted in reference if reference else not predicted
    return bool(predicted == reference)


def _confidence(row: Row) -> float | None:
    value = row.get("score")
    if isinstance(value, list):
        return min(value) if value else None
    return None if value is None else float(value)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return ", ".join(value) if isinstance(value, list) and "O" not in value else as_text(value)
