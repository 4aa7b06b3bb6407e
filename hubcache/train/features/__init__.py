"""Turns a task's rows into what models take, and what models give into predictions; it holds no model.

encode() makes the rows' numbers, make_collator() their batches, outcome() the predictions and scores() the figures.
torch is imported when the first batch is made and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hubcache.errors import UsageError
from hubcache.train.features.answers import encode_answers
from hubcache.train.features.check import Finding, check_task
from hubcache.train.features.choices import encode_choices, most_choices
from hubcache.train.features.collate import Collator, make_collator
from hubcache.train.features.encoded import Encoded, joined
from hubcache.train.features.outcome import Outcome, outcome, scores
from hubcache.train.features.sequences import encode_sequences
from hubcache.train.features.texts import encode_texts
from hubcache.train.features.tokens import encode_tokens
from hubcache.train.tasks.task import Task
from hubcache.train.tasks.template import Row

__all__ = [
    "Collator",
    "Encoded",
    "Finding",
    "Outcome",
    "check_task",
    "encode",
    "make_collator",
    "outcome",
    "scores",
]

# How many rows are tokenised at once: what the tokenizer returns is some 50 times what is kept of it.
_ROWS, _QUESTIONS = 8192, 1024


def encode(
    task: Task, rows: Sequence[Row], tokenizer: Any, *, labelled: bool = True, decoder_start: int | None = None
) -> Encoded:
    """Encode a split for its task, at most `max_length` (and `max_target_length`) tokens, the task's options.

    labelled False leaves labels and their checks out, for data to predict; else rows without a label are left out,
    unless the task counts them as something (`unlabelled`). decoder_start is the model's decoder_start_token_id, for
    tasks that generate. Raises: UsageError for a label, index or column that is not as the task says.
    """
    encoder = _encoder(task, rows, tokenizer, (labelled, decoder_start))
    size = _QUESTIONS if task.kind == "question-answering" else _ROWS
    parts = [rows[begin : begin + size] for begin in range(0, len(rows), size)] or [rows]
    try:
        return joined([encoder(part) for part in parts])
    except KeyError as error:
        raise UsageError(f"{task.name}: a row has no column {error}", hint="check_task tells which rows") from error


def _encoder(
    task: Task, rows: Sequence[Row], tokenizer: Any, how: tuple[bool, int | None]
) -> Callable[[Sequence[Row]], Encoded]:
    """Return the kind's encoder of a part of the rows; only the number of choices is a matter of them all."""
    labelled, start = how
    limit = int(task.option("max_length"))
    if task.generates:
        limits = (limit, int(task.option("max_target_length")))
        return lambda part: encode_texts(task, part, tokenizer, limits, labelled, start)
    if task.kind == "token-classification":
        return lambda part: encode_tokens(task, part, tokenizer, limit, labelled)
    if task.kind == "question-answering":
        return lambda part: encode_answers(task, part, tokenizer, limit, labelled)
    if task.kind == "multiple-choice":
        most = most_choices(rows)
        return lambda part: encode_choices(task, part, tokenizer, limit, labelled, most)
    return lambda part: encode_sequences(task, part, tokenizer, limit, labelled)
