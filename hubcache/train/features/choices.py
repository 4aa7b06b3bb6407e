"""A text with each of its choices into rows of token ids, all choices of a row together; it scores none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hubcache.errors import UsageError
from hubcache.train.features.encoded import Encoded, input_features, tokenized
from hubcache.train.tasks.labels import is_unlabelled, label_cell
from hubcache.train.tasks.task import Task
from hubcache.train.tasks.template import Row, as_text, text_of


def encode_choices(
    task: Task, rows: Sequence[Row], tokenizer: Any, limit: int, labelled: bool, most: int = 0
) -> Encoded:
    """Encode the pairs (text, choice), as many a row as the row with the most has, or `most`.

    Rows with fewer get empty choices, which are never right.
    """
    kept = [row for row in rows if not (labelled and is_unlabelled(label_cell(task, row)))]
    choices = [choices_of(row) for row in kept]
    most = max(most, *(len(each) for each in choices), 1)
    texts = [text for row in kept for text in [text_of(task.text)(row)] * most]
    pairs = [choice for each in choices for choice in (*each, *[""] * (most - len(each)))]
    batch = tokenized(tokenizer, texts, pairs, truncation=True, max_length=limit)
    features = input_features(batch)
    if labelled:
        features["labels"] = np.array([_right(task, row) for row in kept], dtype="int64")
    return Encoded(features, kept, np.arange(len(kept)), choices=most, left_out=len(rows) - len(kept))


def most_choices(rows: Sequence[Row]) -> int:
    """Return how many choices the row with the most has."""
    return max((len(choices_of(row)) for row in rows), default=1)


def choices_of(row: Row) -> list[str]:
    """Return a row's choices: its column `choices`, or `choice1`, `choice2`… (`choice0`, `ending0`… likewise).

    Raises: UsageError where there are none.
    """
    listed = row.get("choices")
    if isinstance(listed, dict) and isinstance(listed.get("text"), list):
        listed = listed["text"]
    if isinstance(listed, list | tuple) and listed:
        return [as_text(choice) for choice in listed]
    named = [name for name in row if name.startswith(("choice", "ending", "option")) and name[-1:].isdigit()]
    if named:
        return [as_text(row[name]) for name in sorted(named)]
    raise UsageError("a row has no choices", hint="give `choices`: [text, …], or choice1, choice2, …")


def _right(task: Task, row: Row) -> int:
    """The right choice is its number from 0, its text, or a letter from A."""
    choices, value = choices_of(row), label_cell(task, row)
    if isinstance(value, str) and value in choices:
        return choices.index(value)
    if isinstance(value, str) and len(value) == 1 and value.isalpha():
        value = ord(value.upper()) - ord("A")
    try:
        number = int(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{value!r} is no choice", hint="a label is a choice's number, text or letter") from error
    if not 0 <= number < len(choices):
        raise UsageError(f"there is no choice {value!r}: there are {len(choices)}", hint="numbers begin with 0")
    return number
