"""Rows as numbers, held compactly: one array of all tokens and where each row begins; no tensor is made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from hubcache.train.tasks.template import Row

IGNORED = -100


class Ragged:
    """Rows of numbers of different lengths, `values` [all] and `starts` [rows + 1]."""

    def __init__(self, values: Any, starts: Any) -> None:
        self.values = values
        self.starts = starts

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], dtype: str = "int32") -> Ragged:
        """Return the rows, of one number type."""
        lengths = np.fromiter((len(row) for row in rows), dtype="int64", count=len(rows))
        values = np.fromiter(chain.from_iterable(rows), dtype=dtype, count=int(lengths.sum()))
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> Any:
        return self.values[self.starts[row] : self.starts[row + 1]]

    @property
    def lengths(self) -> Any:
        """The rows' lengths, [rows]."""
        return np.diff(self.starts)

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """Return the rows of several, one after the other."""
        lengths = np.concatenate([part.lengths for part in parts])
        values = np.concatenate([part.values for part in parts])
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]))


@dataclass(frozen=True, slots=True)
class Encoded:
    """The rows of a split as a model takes them; an indexable data set for Trainer and DataLoader.

    features  what the collator pads and stacks: `input_ids` (Ragged), `labels`, `entity_token_idx`… [rows, …]; with
              `choices` above 1, that many rows of `input_ids` make one row
    rows      the source rows of those that were kept, for references and predictions
    row_of    [rows of features]: which source row each came from (windows of a long text share one)
    extras    what decoding predictions needs and the model does not take: offsets, word numbers…
    cut       how many rows were longer than the limit
    left_out  how many source rows have no label and were left out
    """

    features: Mapping[str, Any]
    rows: Sequence[Row]
    row_of: Any
    extras: Mapping[str, Any] = field(default_factory=dict)
    choices: int = 1
    cut: int = 0
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.row_of)

    def __getitem__(self, place: int) -> dict[str, Any]:
        if place < 0:
            place += len(self)
        if not 0 <= place < len(self):
            raise IndexError(place)
        return {name: self._cell(values, place) for name, values in self.features.items()}

    @property
    def lengths(self) -> Any:
        """The number of input tokens of each row [rows] (the longest choice's), to group rows by length."""
        lengths = self.features["input_ids"].lengths
        return lengths.reshape(-1, self.choices).max(axis=1) if self.choices > 1 else lengths

    def _cell(self, values: Any, place: int) -> Any:
        if self.choices > 1 and isinstance(values, Ragged):
            return [values[place * self.choices + choice] for choice in range(self.choices)]
        return values[place]

    def __iter__(self) -> Any:
        return (self[place] for place in range(len(self)))


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Return the rows of several parts of a split as one; at least one part."""
    if len(parts) == 1:
        return parts[0]
    before = np.cumsum([0, *(len(part.rows) for part in parts[:-1])])
    row_of = np.concatenate([part.row_of + shift for part, shift in zip(parts, before, strict=True)])
    rows = [row for part in parts for row in part.rows]
    features = _joined_columns([part.features for part in parts])
    extras = _joined_columns([part.extras for part in parts])
    cut, left_out = sum(part.cut for part in parts), sum(part.left_out for part in parts)
    return Encoded(features, rows, row_of, extras, parts[0].choices, cut, left_out)


def _joined_columns(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Token types may be all 0, and so absent, in some parts only."""
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        cells = [part[name] if name in part else _zeros_like(part["input_ids"]) for part in parts]
        columns[name] = Ragged.joined(cells) if isinstance(cells[0], Ragged) else np.concatenate(cells)
    return columns


def _zeros_like(rows: Ragged) -> Ragged:
    return Ragged(np.zeros(len(rows.values), dtype="int8"), rows.starts)


def tokenized(tokenizer: Any, texts: Sequence[Any], pairs: Sequence[str] | None = None, **settings: Any) -> Any:
    """Call a tokenizer on many texts without padding or mask; an empty batch gives empty lists."""
    if not len(texts):
        return {"input_ids": []}
    arguments = (list(texts),) if pairs is None else (list(texts), list(pairs))
    return tokenizer(*arguments, return_attention_mask=False, verbose=False, **settings)


def input_features(batch: Any) -> dict[str, Any]:
    """Return the token columns of a tokenizer's batch; token types only where any is not 0."""
    features = {"input_ids": Ragged.of(batch["input_ids"])}
    if any(chain.from_iterable(batch.get("token_type_ids", ()))):
        features["token_type_ids"] = Ragged.of(batch["token_type_ids"], "int8")
    return features


def too_long(tokenizer: Any, texts: Iterable[str], limit: int, special: bool = True) -> int:
    """Count the texts whose tokens are more than `limit`; short texts are not tokenised."""
    long = [text for text in texts if len(text) >= limit // 2]
    return sum(len(ids) > limit for ids in tokenized(tokenizer, long, add_special_tokens=special)["input_ids"])
