"""What a model says to encoded rows, batched by length; scores nothing and reads no text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

from hubcache.train.device import attention_without_plans
from hubcache.train.features.encoded import Encoded
from hubcache.train.heads import CRF_HEAD

Feature = Mapping[str, Any]
Collate = Callable[[Sequence[Feature]], Mapping[str, Any]]

TOKENS_ON_CPU = 4_096
TOKENS_ON_GPU = 65_536
MOST_ROWS = 512
_LABELS = ("labels", "start_positions", "end_positions")


@dataclass(frozen=True, slots=True)
class Reading:
    """How a model is run: on which device and in which precision, and what is done with a batch.

    kind        the task's
    generation  what generate() is called with; None teacher-forces the labels, where the kind is text-to-text
    batch_size  rows of a batch; 0 takes as many as fit a budget of tokens
    process, processes  this process's number of all; each reads its share and gets the outputs of all
    columns     which of the model's outputs each label is, where they are in another order; the loss is then left out
    """

    kind: str
    device: torch.device
    bf16: bool = False
    batch_size: int = 0
    generation: Mapping[str, Any] | None = None
    process: int = 0
    processes: int = 1
    columns: tuple[int, ...] = ()
    on_batch: Callable[[int], object] = int

    def precision(self) -> AbstractContextManager[Any]:
        """Return the context that the model runs in."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model said to each feature, in their order, and the mean loss (NaN where there are no labels).

    An output is an array of logits: [labels] for a row, [choices], [2, tokens] for the start and end of a span; for
    tags the label of each token, and for text the ids of its tokens. Tags have a confidence, the mean over tokens.
    """

    by_feature: tuple[Any, ...]
    confidences: tuple[float, ...]
    loss: float


def read(model: Any, features: Encoded, collate: Collate, reading: Reading) -> Outputs:
    """Run a model over all features, in evaluation mode and without gradients."""
    model.eval()
    said: list[tuple[int, Any, float]] = []
    losses: list[tuple[float, int]] = []
    batches = batches_by_length(features.lengths, reading)
    with torch.no_grad(), attention_without_plans():
        for numbers in batches[reading.process :: reading.processes]:
            for part, outputs, confidences, loss in _read_batch(model, features, collate, reading, numbers):
                said += zip(part, outputs, confidences, strict=True)
                losses.append((loss, len(part)))
                reading.on_batch(len(part))
    if reading.processes > 1:
        said, losses = gather_object(said), gather_object(losses)
    said.sort(key=lambda one: one[0])
    rows = sum(count for _, count in losses)
    mean = sum(loss * count for loss, count in losses) / rows if rows else float("nan")
    certain = tuple(confidence for _, _, confidence in said if not np.isnan(confidence))
    return Outputs(tuple(output for _, output, _ in said), certain, mean)


def batches_by_length(lengths: Any, reading: Reading) -> list[list[int]]:
    """Put row numbers into batches of like length, the longest first, so that what does not fit shows at once."""
    budget = TOKENS_ON_CPU if reading.device.type == "cpu" else TOKENS_ON_GPU
    batches: list[list[int]] = []
    for number in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        longest = int(lengths[batches[-1][0] if batches else number])
        rows = reading.batch_size or max(1, min(MOST_ROWS, budget // max(longest, 1)))
        if batches and len(batches[-1]) < rows:
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches


_Said = tuple[list[int], list[Any], list[float], float]


def _read_batch(
    model: Any, features: Encoded, collate: Collate, reading: Reading, numbers: list[int]
) -> Iterator[_Said]:
    """Read a batch, in halves where the device's memory is too small for the whole."""
    parts = [numbers]
    while parts:
        part = parts.pop()
        chosen = [features[number] for number in part]
        try:
            batch = {name: value.to(reading.device, non_blocking=True) for name, value in collate(chosen).items()}
            with reading.precision():
                outputs, confidences, loss = _said(model, batch, reading)
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
            torch.cuda.empty_cache()
            parts += [part[: len(part) // 2], part[len(part) // 2 :]]
            continue
        yield part, _trimmed(outputs, chosen, reading), confidences, loss


def _said(model: Any, batch: Mapping[str, Any], reading: Reading) -> tuple[Any, list[float], float]:
    """Return a batch's outputs as one array, its confidences (NaN: none), and its loss per row."""
    unsure = [float("nan")] * len(batch["input_ids"])
    if reading.kind == "text-to-text" and reading.generation is not None:
        inputs = {name: value for name, value in batch.items() if name in ("input_ids", "attention_mask")}
        return model.generate(**inputs, **reading.generation).cpu().numpy(), unsure, float("nan")
    if reading.columns:
        batch = {name: value for name, value in batch.items() if name != "labels"}
    outputs = model(**batch)
    loss = _loss(model, batch, outputs)
    if reading.kind == "question-answering":
        spans = torch.stack([outputs["start_logits"], outputs["end_logits"]], dim=1)
        return spans.float().cpu().numpy(), unsure, loss
    logits = outputs["logits"][..., reading.columns] if reading.columns else outputs["logits"]
    if reading.kind == "text-to-text":
        return logits.argmax(dim=-1).cpu().numpy(), unsure, loss
    if reading.kind == "token-classification":
        likeliest = logits.float().softmax(dim=-1).max(dim=-1)
        kept = batch["attention_mask"]
        means = (likeliest.values * kept).sum(dim=1) / kept.sum(dim=1)
        return likeliest.indices.cpu().numpy(), means.tolist(), loss
    return logits.flatten(1).float().cpu().numpy(), unsure, loss


def _loss(model: Any, batch: Mapping[str, Any], outputs: Any) -> float:
    if not any(name in batch for name in _LABELS) or outputs.get("loss") is None:
        return float("nan")
    # The CRF's loss is a sum over the batch, all others are means.
    return float(outputs["loss"]) / (len(batch["input_ids"]) if type(model).__name__ == CRF_HEAD else 1)


def _trimmed(outputs: Any, features: Iterable[Feature], reading: Reading) -> list[Any]:
    """Cut each output to its feature's own length: what stands over padding says nothing."""
    if reading.kind in {"token-classification", "question-answering"}:
        return [output[..., : len(feature["input_ids"])] for output, feature in zip(outputs, features, strict=True)]
    if reading.kind == "text-to-text" and reading.generation is None:
        return [output[: len(feature["labels"])] for output, feature in zip(outputs, features, strict=True)]
    return list(np.asarray(outputs))
