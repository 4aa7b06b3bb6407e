"""Sources and targets of text-to-text tasks into token ids; generating and scoring are elsewhere.

Targets end with the tokenizer's end token, also when they are cut. Padding of labels is -100 and counts in no loss;
`task.as_published` pads with the padding token instead, as KE-T5 does, whose loss counts it (its published figures of
the `_gen` tasks come from such runs, at full length).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hubcache.train.features.encoded import Encoded, Ragged, input_features, tokenized, too_long
from hubcache.train.features.relations import with_marks
from hubcache.train.tasks.labels import LabelNumbers, label_cell
from hubcache.train.tasks.task import Task
from hubcache.train.tasks.template import Row, as_text, columns_of, has_cell, text_of


def encode_texts(
    task: Task, rows: Sequence[Row], tokenizer: Any, limits: tuple[int, int], labelled: bool, start: int | None = None
) -> Encoded:
    """Encode sources to `input_ids` and targets to `labels`, cut at limits (source, target) tokens.

    start is the model's decoder_start_token_id: a target that the tokenizer begins with it (PALM's [CLS]) loses it, for
    the model puts it before the labels itself.
    """
    targets = target_texts(task, rows) if labelled else [""] * len(rows)
    kept = [place for place, target in enumerate(targets) if target is not None]
    chosen = [with_marks(task)(rows[place]) for place in kept]
    sources = [text_of(task.text)(row) for row in chosen]
    special = bool(task.option("special_tokens"))
    batch = tokenized(tokenizer, sources, truncation=True, max_length=limits[0], add_special_tokens=special)
    features = input_features(batch)
    if labelled:
        features["labels"] = _labels(tokenizer, [as_text(targets[place]) for place in kept], limits[1], start)
    full = np.flatnonzero(features["input_ids"].lengths >= limits[0]).tolist()
    cut = too_long(tokenizer, [sources[place] for place in full], limits[0], special)
    return Encoded(features, chosen, np.arange(len(chosen)), cut=cut, left_out=len(rows) - len(kept))


def target_texts(task: Task, rows: Sequence[Row]) -> list[str | None]:
    """Return each row's target: its label's name where the task has labels, else its text; None has no target."""
    if task.labels:
        numbers = LabelNumbers(task.labels, task.codes)
        found = [numbers.number(label_cell(task, row)) for row in rows]
        missing = None if task.unlabelled is None else str(task.unlabelled)
        return [missing if number is None else task.labels[number] for number in found]
    return [_target(task, row) for row in rows]


def accepted_targets(task: Task, row: Row) -> list[str]:
    """Return all texts that count as right for a row: `accepted`, the members of a target list, or the one target."""
    if "accepted" in row:
        return [as_text(text) for text in row["accepted"]]
    value = label_cell(task, row) if "{" not in task.label else None
    if isinstance(value, list | tuple):
        return [as_text(text) for text in value]
    target = target_texts(task, [row])[0]
    return [] if target is None else [target]


def _target(task: Task, row: Row) -> str | None:
    if not all(has_cell(row, column) for column in columns_of(task.label)):
        return None
    if "{" in task.label:
        return text_of(task.label)(row)
    value = label_cell(task, row)
    if isinstance(value, list | tuple):
        return as_text(value[0]) if value else None
    return None if value is None else as_text(value)


def _labels(tokenizer: Any, targets: list[str], limit: int, start: int | None) -> Ragged:
    if not targets:
        return Ragged.of([])
    settings = {"truncation": True, "max_length": limit, "return_attention_mask": False}
    rows = tokenizer(text_target=targets, **settings)["input_ids"]
    if start is not None:
        # Never an end token: T5's start is its padding, BART's its end, and neither begins a target.
        rows = [row[1:] if row[:1] == [start] else row for row in rows]
    return Ragged.of(rows)
