"""A transformers pipeline run in batches of like length, in the order that was asked; its three stages stay its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from transformers.pipelines.base import ChunkPipeline

from hubcache.errors import UsageError
from hubcache.train.device import attention_without_plans

TOKENS_ON_CPU = 1_024
TOKENS_ON_GPU = 65_536
MOST_ROWS = 512
WINDOW = 2_048
"""How many inputs of a stream are sorted together; a first answer waits for no more than FIRST_WINDOW."""
FIRST_WINDOW = 64

_PADDING = {"attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1, "offset_mapping": 0}

Features = dict[str, Any]


class ByLength:
    """What comes before a transformers Pipeline in a class's bases, to batch by length instead of by order.

    A `batch_size` above 1 bounds the rows of a batch, which else as many tokens as suit the device do. Outputs by
    token are cut to each text's own length, so that nothing said over padding is seen.
    """

    by_token = False
    """Whether the outputs have a row for each token."""
    same_length = False
    """Whether only texts of one length share a batch: what a model that continues texts needs."""
    plain = False
    """Whether preprocess() does nothing but call the tokenizer, which then takes many texts at once."""

    tokenizer: Any
    device: Any

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Do what transformers does, for columns of data sets and iterators, too; nothing is said to no texts."""
        first, *others = inputs or (None,)
        if isinstance(first, Sequence) and not isinstance(first, (str, bytes, tuple)):
            first = list(first)
            if not first:
                return []
        elif isinstance(first, Iterator):
            # transformers knows generators by their type.
            first = (each for each in first)
        return super().__call__(first, *others, **options) if inputs else super().__call__(**options)  # type: ignore[misc]  # the Pipeline's

    def check_model_type(self, supported_models: Any) -> None:
        """Take any: whether a model fits was judged when it was loaded, and transformers knows no graphs."""

    def get_inference_context(self) -> Any:
        """Compute without a record for gradients."""
        return torch.inference_mode

    def stream(self, inputs: Any, **options: Any) -> Iterator[Any]:
        """Yield a result for each of the inputs, in order, reading no more of them than a window ahead."""
        batch_size = options.pop("batch_size", None) or getattr(self, "_batch_size", None) or 1
        given = self._sanitize_parameters(**options)  # type: ignore[attr-defined]  # the Pipeline's
        kept = (self._preprocess_params, self._forward_params, self._postprocess_params)  # type: ignore[attr-defined]
        parameters = [{**ours, **new} for ours, new in zip(kept, given, strict=True)]
        return self.get_iterator(inputs, 0, batch_size, *parameters)

    def get_iterator(  # transformers' interface
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: Mapping[str, Any],
        forward_params: Mapping[str, Any],
        postprocess_params: Mapping[str, Any],
    ) -> Iterator[Any]:
        """Yield the results in order; called by transformers for every list, generator and data set."""
        source = iter(inputs if not hasattr(inputs, "__getitem__") else (inputs[at] for at in range(len(inputs))))
        size = WINDOW if hasattr(inputs, "__len__") else FIRST_WINDOW
        while window := list(islice(source, size)):
            encoded = self.encoded(window, preprocess_params)
            outputs = self.outputs([chunk for chunks in encoded for chunk in chunks], batch_size, forward_params)
            for chunks in encoded:
                said = [outputs[chunk["place"]] for chunk in chunks]
                one = said if isinstance(self, ChunkPipeline) else said[0]
                yield self.postprocess(one, **postprocess_params)  # type: ignore[attr-defined]
            size = WINDOW

    def encoded(self, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> list[list[Features]]:
        """Return the features of each input: one or, of a ChunkPipeline, several; `place` numbers them all."""
        found: list[list[Features]] = []
        if self.plain and all(isinstance(each, str) for each in inputs):
            batch = self.tokenizer(list(inputs), **parameters)
            found = [[{name: rows[at] for name, rows in batch.items()}] for at in range(len(inputs))]
        elif isinstance(self, ChunkPipeline):
            found = [[dict(chunk) for chunk in self.preprocess(each, **parameters)] for each in inputs]
        else:
            found = [[dict(self.preprocess(each, **parameters))] for each in inputs]  # type: ignore[attr-defined]
        for place, chunk in enumerate(chunk for chunks in found for chunk in chunks):
            chunk["place"] = place
        return found

    def outputs(self, chunks: Sequence[Features], batch_size: int, parameters: Mapping[str, Any]) -> list[Any]:
        """Return what the model says to each of the features."""
        said: list[Any] = [None] * len(chunks)
        lengths = [_length(chunk) for chunk in chunks]
        with attention_without_plans():
            for places in self.batches(lengths, batch_size):
                for place, one in zip(places, self._batch([chunks[at] for at in places], parameters), strict=True):
                    said[place] = one
        return said

    def batches(self, lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
        """Group places by length, the longest first, each group as many tokens as suit the device or fewer."""
        budget = TOKENS_ON_CPU if self.device.type == "cpu" else TOKENS_ON_GPU
        can_pad = not self.same_length and getattr(self.tokenizer, "pad_token_id", None) is not None
        group: list[int] = []
        for place in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
            longest = lengths[group[0]] if group else lengths[place]
            rows = batch_size if batch_size > 1 else max(1, min(MOST_ROWS, budget // max(longest, 1)))
            if group and (len(group) >= rows or (not can_pad and lengths[place] != longest)):
                yield group
                group = []
            group.append(place)
        if group:
            yield group

    def _batch(self, chunks: Sequence[Features], parameters: Mapping[str, Any]) -> list[Any]:
        """Run a batch, in halves where the device's memory is too small for the whole."""
        named = [{name: value for name, value in chunk.items() if name != "place"} for chunk in chunks]
        try:
            outputs = self.forward(_collated(named, self.tokenizer), **parameters)  # type: ignore[attr-defined]
        except torch.OutOfMemoryError:
            if len(chunks) == 1:
                raise
            torch.cuda.empty_cache()
            half = len(chunks) // 2
            return self._batch(chunks[:half], parameters) + self._batch(chunks[half:], parameters)
        except (IndexError, RuntimeError) as error:
            self._check_lengths(chunks, error)
            raise
        lengths = [_length(chunk) for chunk in chunks]
        is_left = getattr(self.tokenizer, "padding_side", "right") == "left"
        return [
            _row(outputs, row, (length, max(lengths), is_left) if self.by_token else None)
            for row, length in enumerate(lengths)
        ]

    def _check_lengths(self, chunks: Sequence[Features], error: Exception) -> None:
        """What torch says of places that a model has not tells nobody that a text is too long."""
        most = getattr(self.tokenizer, "model_max_length", None)
        longest = max(_length(chunk) for chunk in chunks)
        if most is not None and longest > most:
            raise UsageError(
                f"a text has {longest} tokens, the model reads {most}", hint="shorten it, or set truncation=True"
            ) from error


def _length(chunk: Features) -> int:
    ids = chunk.get("input_ids", ())
    return int(ids.shape[-1]) if isinstance(ids, torch.Tensor) else len(ids)


def _collated(chunks: Sequence[Features], tokenizer: Any) -> Features:
    """Make tensors [batch, seq] of what is by token, and lists of all else."""
    longest = max(_length(chunk) for chunk in chunks)
    found: Features = {}
    for name, first in chunks[0].items():
        values = [chunk[name] for chunk in chunks]
        by_token = name == "input_ids" or name in _PADDING
        if by_token and isinstance(first, (list, torch.Tensor)):
            filler = tokenizer.pad_token_id if name == "input_ids" else _PADDING[name]
            found[name] = _padded(values, longest, filler or 0, getattr(tokenizer, "padding_side", "right"))
        elif isinstance(first, torch.Tensor):
            found[name] = torch.cat(values)
        else:
            found[name] = values
    return found


def _padded(rows: Sequence[Any], longest: int, filler: int, side: str) -> Any:
    if isinstance(rows[0], list):
        padded = [
            [filler] * (longest - len(row)) + row if side == "left" else row + [filler] * (longest - len(row))
            for row in rows
        ]
        return torch.tensor(padded)
    shape = (len(rows), longest, *rows[0].shape[2:])
    whole = torch.full(shape, filler, dtype=rows[0].dtype)
    for place, row in enumerate(rows):
        part = slice(longest - row.shape[1], None) if side == "left" else slice(row.shape[1])
        whole[place, part] = row[0]
    return whole


def _row(outputs: Any, row: int, cut: tuple[int, int, bool] | None) -> Any:
    """Return one row of a batch's outputs in their own type, cut to its length where they are by token."""
    if isinstance(outputs, torch.Tensor):
        return _cut(outputs[row : row + 1], cut)
    found = {}
    for name, value in outputs.items():
        if isinstance(value, torch.Tensor):
            found[name] = _cut(value[row : row + 1], cut) if value.ndim else value
        elif isinstance(value, tuple) and all(isinstance(each, torch.Tensor) for each in value):
            found[name] = tuple(each[row : row + 1] for each in value)
        elif isinstance(value, list):
            found[name] = value[row]
        elif value is None:
            found[name] = None
    return type(outputs)(found)


def _cut(value: Any, cut: tuple[int, int, bool] | None) -> Any:
    """A pooled vector [1, hidden] may be as wide as the batch is long: floating numbers by token have three sizes."""
    if cut is None or value.ndim < 2 or (value.ndim == 2 and value.is_floating_point()) or value.shape[1] != cut[1]:
        return value
    length, _, is_left = cut
    return value[:, -length:] if is_left else value[:, :length]
