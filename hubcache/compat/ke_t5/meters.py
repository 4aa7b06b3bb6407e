"""The figures of training batches, out of the training step's own answers; the validation split is scored elsewhere.

The original takes them from every print_freq-th batch, too, and so with dropout at work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from accelerate.utils import gather_object

from hubcache.compat.ke_t5.bench import Bench
from hubcache.train.features import Encoded, outcome, scores
from hubcache.train.features.encoded import Ragged


@dataclass(slots=True)
class Meter:
    """Means of figures over batches, weighted by their rows; a figure that a batch does not have counts nowhere."""

    sums: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def add(self, figures: Mapping[str, float], rows: int) -> None:
        """Take in a batch's figures; NaN is none, as a correlation of one row."""
        for name, value in figures.items():
            if not np.isnan(value):
                self.sums[name] = self.sums.get(name, 0.0) + value * rows
                self.rows[name] = self.rows.get(name, 0) + rows

    @property
    def means(self) -> dict[str, float]:
        """The figures so far."""
        return {name: value / self.rows[name] for name, value in self.sums.items()}


def batch_figures(bench: Bench, rows: Encoded, numbers: Sequence[int], outputs: Any) -> dict[str, float]:
    """Score what a training step answered to the rows of these numbers, over all processes as one mean.

    Texts are read with their targets given, as the original does while it trains.
    """
    part = part_of(rows, numbers)
    figures = scores(bench.task, outcome(bench.task, part, answers(bench.task.kind, outputs, part), bench.tokenizer))
    figures = {"loss": float(outputs["loss"].detach()), **figures}
    if bench.place.processes == 1:
        return figures
    meter = Meter()
    for theirs, count in gather_object([(figures, len(numbers))]):
        meter.add(theirs, count)
    return meter.means


def answers(kind: str, outputs: Any, part: Encoded) -> Any:
    """Return a model's outputs as what is scored: logits [rows, labels], or a row of label or token numbers each."""
    logits = outputs["logits"].detach().float()
    if kind not in {"token-classification", "text-to-text"}:
        return logits.flatten(1).cpu().numpy()
    column = part.features["input_ids" if kind == "token-classification" else "labels"]
    made = logits.argmax(dim=-1).cpu().numpy()
    return [row[: len(column[number])] for number, row in enumerate(made)]


def part_of(rows: Encoded, numbers: Sequence[int]) -> Encoded:
    """Return the rows of these numbers; of a text in windows each window is a row of its own."""
    sources = [rows.rows[place] for place in np.asarray(rows.row_of)[list(numbers)].tolist()]
    features, extras = (
        {name: _chosen(column, numbers) for name, column in columns.items()} for columns in (rows.features, rows.extras)
    )
    return Encoded(features, sources, np.arange(len(numbers)), extras, rows.choices)


def _chosen(column: Any, numbers: Sequence[int]) -> Any:
    if isinstance(column, Ragged):
        return Ragged.of([column[number] for number in numbers], str(column.values.dtype))
    return np.asarray(column)[list(numbers)]
