"""Evaluate a model on one split: a folder and rows in, predictions.jsonl and run.json out; nothing is trained."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from hubcache.errors import UsageError
from hubcache.train.adapters.tuning import load_adapted
from hubcache.train.device import Place, peak_memory, place, versions
from hubcache.train.features import encode
from hubcache.train.heads import Loaded, config_of, label_columns, limited, load
from hubcache.train.record import Input, RunRecord
from hubcache.train.scoring import Scored, reading_for, score
from hubcache.train.settings import TrainSettings
from hubcache.train.tasks import Row, Task
from hubcache.train.tasks.template import has_cell
from hubcache.train.zeroshot import entailment_of, score_by_entailment

PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """What is scored on what.

    task      bound to the rows' columns, with its labels
    split     the name of the split that the rows are
    output    the folder for predictions.jsonl and run.json
    settings  precision, eval_batch_size, max_length, target_length and generate hold; off, a model that generates is
              given the target's tokens (teacher forcing)
    base, any_base  what an adapter in `model` was trained over, and whether it may be any other
    zero_shot a text classifier for entailment scores each label as a hypothesis, instead of a head of the task's
    """

    model: Path
    task: Task
    rows: Sequence[Row]
    split: str
    output: Path
    settings: TrainSettings = field(default_factory=TrainSettings)
    base: Path | None = None
    any_base: bool = False
    zero_shot: bool = False
    hypothesis: str = "This example is {}."
    model_input: Input = field(default_factory=lambda: Input("", ""))
    data_inputs: tuple[Input, ...] = ()
    command: str = ""
    say: Callable[[str], object] = len


def evaluate(request: EvaluateRequest) -> RunRecord:
    """Run the model over the rows, score the whole split, and write predictions and record to `output`.

    Raises: UsageError for a folder without a trained head for the task, or with other labels.
    """
    if not request.rows:
        raise UsageError(f"the split {request.split} has no rows", hint="name another: --split NAME")
    where = place(request.settings.precision)
    task = limited(request.task, request.settings)
    request = replace(request, task=task)
    started = time.perf_counter()
    loaded, scored = _zero_shot(request, where) if request.zero_shot else _by_head(request, where)
    seconds = time.perf_counter() - started
    record = _record(request, where, scored, seconds)
    if where.is_first:
        request.say(f"{type(loaded.model).__name__} on {len(scored.rows)} rows, {where.told}, {seconds:.1f} s")
        request.output.mkdir(parents=True, exist_ok=True)
        write_predictions(request.output / PREDICTIONS, scored.rows)
        record.write(request.output)
    if where.processes > 1:
        torch.distributed.barrier()
    return record


def write_predictions(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, the file being there whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    os.replace(partial, path)


def _by_head(request: EvaluateRequest, where: Place) -> tuple[Loaded, Scored]:
    task = request.task
    columns = label_columns(config_of(request.model), task)
    if request.base is not None:
        loaded = load_adapted(request.model, request.base, task, any_base=request.any_base)
    else:
        loaded = load(request.model, task, trained=True)
    start = getattr(loaded.model.config, "decoder_start_token_id", None)
    encoded = encode(task, request.rows, loaded.tokenizer, labelled=_is_labelled(request), decoder_start=start)
    # What is quantised rounds in float32.
    where = replace(where, bf16=where.bf16 and not loaded.is_quantized)
    reading = replace(reading_for(task, request.settings, where), columns=columns)
    return loaded, score(task, loaded.model.to(where.device), loaded.tokenizer, encoded, reading)


def _zero_shot(request: EvaluateRequest, where: Place) -> tuple[Loaded, Scored]:
    loaded, entailment = entailment_of(request.model, request.task)
    loaded.model.to(where.device)
    encoded = encode(request.task, request.rows, loaded.tokenizer, labelled=_is_labelled(request))
    reading = reading_for(request.task, request.settings, where)
    return loaded, score_by_entailment(request.task, loaded, encoded, reading, (entailment, request.hypothesis))


def _is_labelled(request: EvaluateRequest) -> bool:
    """Tell whether any row has what the task's label is made of; a test split often has none."""
    return any(all(has_cell(row, column) for column in request.task.label_columns) for row in request.rows)


def _record(request: EvaluateRequest, where: Place, scored: Scored, seconds: float) -> RunRecord:
    return RunRecord(
        task=request.task.name,
        model=request.model_input,
        data=request.data_inputs,
        settings=request.settings.told(),
        command=request.command,
        metrics={request.split: scored.metrics},
        best_metric=request.task.better_by,
        labels=request.task.labels,
        confusion=scored.confusion,
        mistakes=scored.mistakes,
        device=where.told,
        seconds=seconds,
        samples_per_second=len(scored.rows) / seconds,
        peak_memory=peak_memory(where.device),
        versions=versions(),
    )
