"""Batches: rows padded to the longest of them, stacked into tensors under the names that the model heads take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubcache.errors import UsageError
from hubcache.train.features.encoded import IGNORED
from hubcache.train.tasks.task import Task


@dataclass(frozen=True, slots=True)
class Collator:
    """Pad on the right and stack; a row is what Encoded gives, a batch [rows, seq] (choices: [rows, choices, seq]).

    multiple_of pads to a multiple (8 for tensor cores), `to` (for targets `label_to`) at least to that length;
    label_padding is what labels a token are padded with. The attention mask is made here: 1 where a token is.
    """

    padding: int
    type_padding: int = 0
    label_padding: int = IGNORED
    multiple_of: int = 1
    to: int = 0
    label_to: int = 0
    labels_like_inputs: bool = False

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the tensors of a batch: int64 for ids and labels, float32 for numbers and label sets."""
        import torch

        batch = {name: torch.from_numpy(values) for name, values in self.arrays(rows).items()}
        for name in ("labels", "start_positions", "end_positions"):
            if name in batch and not batch[name].is_floating_point():
                batch[name] = batch[name].long()
        return batch

    def arrays(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the same batch as numpy arrays."""
        batch: dict[str, Any] = {}
        for name in rows[0]:
            cells = [row[name] for row in rows]
            if name == "input_ids":
                batch[name], batch["attention_mask"] = self._inputs(cells)
            elif name == "token_type_ids":
                batch[name] = self._padded(cells, self.type_padding, self.to)
            elif name == "labels" and np.ndim(cells[0]) == 1 and cells[0].dtype.kind == "i":
                width = batch["input_ids"].shape[1] if self.labels_like_inputs else self.label_to
                batch[name] = self._padded(cells, self.label_padding, width)
            else:
                batch[name] = np.stack([np.asarray(cell) for cell in cells])
        return batch

    def _inputs(self, cells: list[Any]) -> tuple[Any, Any]:
        ids = self._padded(cells, self.padding, self.to)
        return ids, self._padded([_ones(cell) for cell in cells], 0, self.to)

    def _padded(self, cells: list[Any], padding: int, to: int) -> Any:
        if isinstance(cells[0], list):
            choices = len(cells[0])
            flat = self._padded([one for cell in cells for one in cell], padding, to)
            return flat.reshape(len(cells), choices, -1)
        longest = max(len(cell) for cell in cells)
        width = max(to, -(-longest // self.multiple_of) * self.multiple_of)
        padded: Any = np.full((len(cells), width), padding, dtype="int64")
        for place, cell in enumerate(cells):
            padded[place, : len(cell)] = cell
        return padded


def _ones(cell: Any) -> Any:
    return [_ones(one) for one in cell] if isinstance(cell, list) else np.ones(len(cell), "int64")


def make_collator(task: Task, tokenizer: Any, multiple_of: int = 1) -> Collator:
    """Return the collator of a task. Raises: UsageError for a tokenizer without padding token."""
    if tokenizer.pad_token_id is None:
        raise UsageError(
            f"{task.name}: the tokenizer has no padding token",
            hint="set one: tokenizer.pad_token = tokenizer.eos_token, and save it",
        )
    counts = task.as_published and task.generates
    return Collator(
        tokenizer.pad_token_id,
        getattr(tokenizer, "pad_token_type_id", 0) or 0,
        tokenizer.pad_token_id if counts else IGNORED,
        multiple_of,
        labels_like_inputs=task.kind == "token-classification",
    )
