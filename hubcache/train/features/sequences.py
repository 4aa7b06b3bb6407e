"""Texts and pairs of texts into token ids with a label, a number, or several labels: one row a text; no decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hubcache.errors import UsageError
from hubcache.train.features.encoded import Encoded, input_features, tokenized, too_long
from hubcache.train.features.relations import entity_tokens, with_marks
from hubcache.train.tasks.labels import LabelNumbers, is_unlabelled, label_cell, row_labels, several
from hubcache.train.tasks.task import Task
from hubcache.train.tasks.template import Row, text_of


def encode_sequences(task: Task, rows: Sequence[Row], tokenizer: Any, limit: int, labelled: bool) -> Encoded:
    """Encode a task of one label (or number, or set of labels) a row; a pair is cut at its longer text.

    `entity_token_idx` [rows, 2, 2] is added where the task's option `positions` asks for it.
    """
    kept, targets = _targets(task, rows) if labelled else (list(range(len(rows))), None)
    chosen = [with_marks(task)(rows[place]) for place in kept]
    texts = [text_of(task.text)(row) for row in chosen]
    pairs = [text_of(task.pair)(row) for row in chosen] if task.pair else None
    special = bool(task.option("special_tokens"))
    batch = tokenized(tokenizer, texts, pairs, truncation=True, max_length=limit, add_special_tokens=special)
    features = input_features(batch)
    if task.kind == "relation-extraction" and task.option("positions"):
        features["entity_token_idx"] = _entities(task, chosen, tokenizer, texts, features["input_ids"].lengths)
    if targets is not None:
        features["labels"] = targets
    full = np.flatnonzero(features["input_ids"].lengths >= limit).tolist()
    cut = too_long(tokenizer, [texts[place] + (pairs[place] if pairs else "") for place in full], limit, special)
    left_out = len(rows) - len(kept)
    return Encoded(features, chosen, np.arange(len(chosen)), cut=cut, left_out=left_out)


def _targets(task: Task, rows: Sequence[Row]) -> tuple[list[int], Any]:
    """Return the rows that have a label, and the labels: int64 [rows], float32 [rows] or [rows, labels]."""
    if task.kind == "regression":
        return _numbers(task, rows)
    if task.kind == "multi-label-classification":
        return _label_sets(task, rows)
    read = row_labels(task)
    found = [(place, number) for place, row in enumerate(rows) if (number := read(row)) is not None]
    return [place for place, _ in found], np.array([number for _, number in found], dtype="int64")


def _numbers(task: Task, rows: Sequence[Row]) -> tuple[list[int], Any]:
    kept: list[int] = []
    values: list[float] = []
    for place, row in enumerate(rows):
        value = label_cell(task, row)
        if value is None or (isinstance(value, str) and is_unlabelled(value)):
            continue
        try:
            values.append(float(value))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{task.name}: {value!r} in {task.label} is no number", hint="a regression's label is one"
            ) from error
        kept.append(place)
    return kept, np.array(values, dtype="float32")


def _label_sets(task: Task, rows: Sequence[Row]) -> tuple[list[int], Any]:
    numbers = LabelNumbers(task.labels, task.codes)
    kept = [place for place, row in enumerate(rows) if label_cell(task, row) is not None]
    hot: Any = np.zeros((len(kept), len(task.labels)), dtype="float32")
    for place, source in enumerate(kept):
        for value in several(label_cell(task, rows[source])):
            number = numbers.number(value)
            if number is not None:
                hot[place, number] = 1
    return kept, hot


def _entities(task: Task, rows: Sequence[Row], tokenizer: Any, texts: Sequence[str], lengths: Any) -> Any:
    """The whole text is encoded again for its characters' places: the batch may be cut before an entity."""
    batch = tokenized(tokenizer, texts, add_special_tokens=bool(task.option("special_tokens")))
    found = [entity_tokens(task, row, batch[place], int(lengths[place])) for place, row in enumerate(rows)]
    return np.array(found, dtype="int64").reshape(-1, 2, 2)
