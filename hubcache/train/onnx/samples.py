"""Inputs and the answers a model gives to them, one file each, as the original exporter leaves them beside a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hubcache.train.onnx.inputs import Graph, Shape

TEXTS = (
    "A small model answers without a network.",
    "The film is long, quiet and worth every minute.",
    "Where does the river meet the sea?",
    "It rained.",
)
"""What samples are made of where there is a tokenizer."""

_LENGTHS = (12, 9, 5, 3)
_LONGEST = 128


def write_samples(graph: Graph, tokenizer: Any, folder: Path) -> int:
    """Write sample-inputs/inp-0000.npz and sample-outputs/out-0000.npz, … into a folder; return how many.

    Each holds one text without its batch: [seq] of int64 under the inputs' names, and the outputs. A causal model's
    past is empty and left out, an encoder-decoder's target is in `decoder_input_ids`.
    """
    count = 0
    for number, tensors in enumerate(_examples(graph, tokenizer)):
        with torch.no_grad():
            told = graph.module(*tensors)
        _write(folder / "sample-inputs" / f"inp-{number:04}.npz", zip(graph.inputs, tensors, strict=True))
        _write(folder / "sample-outputs" / f"out-{number:04}.npz", zip(graph.outputs, told, strict=True))
        count += 1
    return count


def feeds_of(graph: Graph, tokenizer: Any, texts: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Make a graph's inputs of each text, a batch of one: numpy arrays by name."""
    for text in texts:
        tensors = _of_text(graph, tokenizer, text)
        yield {name: tensor.numpy() for name, tensor in zip(graph.inputs, tensors, strict=True)}


def _examples(graph: Graph, tokenizer: Any) -> Iterator[tuple[torch.Tensor, ...]]:
    if tokenizer is None or not _is_text(graph):
        for length in _LENGTHS:
            yield graph.example(Shape(1, length, 3 if "decoder" in graph.name else 0))
        return
    for text in TEXTS:
        yield _of_text(graph, tokenizer, text)


def _is_text(graph: Graph) -> bool:
    return {name for name in graph.inputs if not name.startswith("past_key_values.")} <= {
        "input_ids", "attention_mask", "token_type_ids",
    } and len(graph.axes["input_ids"]) == 2  # fmt: skip


def _of_text(graph: Graph, tokenizer: Any, text: str) -> tuple[torch.Tensor, ...]:
    made = tokenizer(text, return_tensors="pt", truncation=True, max_length=_LONGEST)
    ids = made["input_ids"].long()
    # A small model may stand beside a vocabulary larger than its own.
    known: Mapping[str, Any] = {"attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids), **made}
    past = graph.example(Shape(1, 1, 0))
    return tuple(known[name].long() if name in known else past[place] for place, name in enumerate(graph.inputs))


def _write(path: Path, named: Iterable[tuple[str, torch.Tensor]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: tensor.numpy() for name, tensor in named if not name.startswith(("past_key_values.", "present."))}
    np.savez(path, **{name: array[0] for name, array in arrays.items()})
