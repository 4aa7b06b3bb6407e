"""A fine-tuning request, and what it is once model and data are loaded; nothing is trained here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from hubcache.errors import BadConfig, UsageError
from hubcache.train.adapters import lora
from hubcache.train.adapters.tuning import attach
from hubcache.train.arguments import steps_an_epoch, total_steps
from hubcache.train.device import Place, place
from hubcache.train.features import Encoded, encode
from hubcache.train.heads import Loaded, limited, load
from hubcache.train.metrics import Metric, metric
from hubcache.train.record import Input
from hubcache.train.settings import TrainSettings
from hubcache.train.sparse.quantization import definitions
from hubcache.train.sparse.recipe import Recipe
from hubcache.train.sparse.tuning import changed_until, epochs_of, rates_of, resulting, sparsity_of
from hubcache.train.tasks import Row, Task

CHECKPOINTS = ".checkpoints"
LOSS = replace(metric("mse"), name="loss")
"""What chooses the checkpoint of a task without a metric: the less the better; it is the model that computes it."""

SPARSE = 0.05
"""From this share of zeros on a model is taken for a pruned one."""

SMOOTHED = ("text-classification", "relation-extraction", "token-classification", "text-to-text")
"""The kinds whose loss is over one label a row or token, which label smoothing spreads."""

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class FinetuneRequest:
    """What is trained on what.

    task      bound to the rows' columns, with its labels
    splits    rows by split: train, and validation and test where there are any
    settings  all of them: TrainSettings.for_task(…) changed by what the user said
    output    an empty folder, or one that the same request was killed in, which is then resumed
    model_config  what the model's configuration says otherwise than the folder's
    keep_decoder_layers  the decoder's layers that are kept, () for all (VECO)
    recipe    what changes the model while it trains (sparse/recipe), and `recipe_arguments` what it was told
    teacher_word  "self" or "disable" instead of a teacher's folder, for a recipe that distils
    logs      the folder of TensorBoard's logs; None writes none
    model_input, data_inputs, teacher_input, command  what the record says of where all this came from
    """

    model: Path
    task: Task
    splits: Mapping[str, Sequence[Row]]
    output: Path
    settings: TrainSettings
    teacher: Path | None = None
    model_config: Mapping[str, Any] = field(default_factory=dict)
    keep_decoder_layers: tuple[int, ...] = ()
    logs: Path | None = None
    model_input: Input = field(default_factory=lambda: Input("", ""))
    data_inputs: tuple[Input, ...] = ()
    teacher_input: Input | None = None
    recipe: Recipe | None = None
    recipe_input: Input | None = None
    recipe_arguments: Mapping[str, Any] = field(default_factory=dict)
    teacher_word: str = ""
    command: str = ""
    say: Say = len


@dataclass(frozen=True, slots=True)
class Run:
    """A request that is set up: where it computes, the model with its head, and the encoded splits."""

    request: FinetuneRequest
    place: Place
    loaded: Loaded
    encoded: Mapping[str, Encoded]

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are while it runs."""
        return self.request.output.resolve() / CHECKPOINTS

    @property
    def chosen(self) -> tuple[str, Metric] | None:
        """The log's key and the metric that choose the checkpoint, None where no split is there to choose by."""
        if self.request.settings.evaluate == "no" or "validation" not in self.encoded:
            return None
        name = self.request.settings.metric or self.request.task.better_by or LOSS.name
        if name == LOSS.name and self.generates:
            return None
        return f"eval_{name}", LOSS if name == LOSS.name else metric(name)

    @property
    def generates(self) -> bool:
        """Tell whether the model is scored by what it generates, which has no loss."""
        return self.request.task.generates and self.request.settings.generate

    def say(self, line: str) -> None:
        """Say something once, however many processes there are."""
        if self.place.is_first:
            self.request.say(line)


def check_settings(request: FinetuneRequest) -> None:
    """Refuse settings that this task cannot use. Raises: BadConfig."""
    settings, task = request.settings, request.task
    known = (*task.metrics, LOSS.name)
    if settings.metric and settings.metric not in known:
        raise BadConfig(f"the task {task.name} has no metric {settings.metric!r}", hint=f"it has {', '.join(known)}")
    if settings.metric == LOSS.name and task.generates and settings.generate:
        raise BadConfig("generated texts have no loss to choose by", hint="set generate=false, or another metric")
    is_taught = request.teacher is not None or request.teacher_word == "self"
    if settings.label_smoothing and (task.kind not in SMOOTHED or is_taught):
        raise BadConfig(
            f"label_smoothing spreads one label a row or token: {task.kind}{' with a teacher' * is_taught}"
            " has no such loss"
        )
    if settings.adapter and (settings.freeze_backbone or request.keep_decoder_layers or settings.child_tuning):
        raise BadConfig("an adapter has its own choice of what trains, over the base as it is: no other goes with it")
    if settings.adapter in lora.KINDS:
        lora.require_peft()
    if settings.adapter and request.recipe is not None:
        raise BadConfig("a recipe changes the model's own weights, which an adapter leaves as they are")
    if not request.splits.get("train"):
        raise UsageError(f"the task {task.name} has no training rows", hint="name the split: --split train=NAME")


def prepare(request: FinetuneRequest) -> Run:
    """Load the model with the task's head and encode all splits; the seed decides what is drawn for the head."""
    where = place(request.settings.precision)
    if where.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where.device)
    set_seed(request.settings.seed)
    request = replace(request, task=limited(request.task, request.settings))
    if where.processes > 1 and request.recipe is not None and definitions(request.recipe):
        raise BadConfig("a recipe that quantises trains in one process: each of several would see scales of its own")
    resulting(request.model, request.recipe)  # which fails now rather than at the end
    loaded = load(request.model, request.task, changes=request.model_config)
    if request.keep_decoder_layers:
        loaded.model.keep_decoder_layers(request.keep_decoder_layers)
    start = getattr(loaded.model.config, "decoder_start_token_id", None)
    encoded = {
        split: encode(request.task, rows, loaded.tokenizer, decoder_start=start)
        for split, rows in request.splits.items()
        if rows
    }
    if request.settings.adapter:
        attach(loaded, request.settings)
    run = Run(request, where, loaded, encoded)
    tell(run)
    return run


def tell(run: Run) -> None:
    """Say the facts before the first step."""
    settings, loaded, rows = run.request.settings, run.loaded, len(run.encoded["train"])
    steps = total_steps(settings, rows, run.place.processes)
    processes = f", {run.place.processes} processes" if run.place.processes > 1 else ""
    run.say(f"device: {run.place.told}{processes}")
    run.say(f"model: {type(loaded.model).__name__}, {loaded.parameters / 1e6:.1f} million parameters")
    if settings.adapter:
        free = sum(each.numel() for each in loaded.model.parameters() if each.requires_grad)
        run.say(f"adapter: {settings.adapter}, {free} parameters train, {100 * free / loaded.parameters:.2f} % of all")
    if loaded.new:
        run.say(f"new, drawn from seed {settings.seed}: {', '.join(loaded.new)}")
    run.say(f"rows: {', '.join(f'{split} {len(each)}' for split, each in run.encoded.items())}")
    run.say(f"steps: {steps}, {steps_an_epoch(settings, rows, run.place.processes)} an epoch")
    for line in (*recipe_lines(run), *notes(run)):
        run.say(line)


def recipe_lines(run: Run) -> list[str]:
    """Return what the recipe changes of the run, and whether it keeps the zeros that the model has."""
    recipe, zeros = run.request.recipe, sparsity_of(run.loaded.model).get("total", 0.0)
    told = [f"sparsity: {100 * zeros:.1f} % of the model's prunable weights are zero"] if zeros >= SPARSE else []
    if recipe is None:
        return told
    wanted, last = epochs_of(recipe), changed_until(recipe)
    if wanted and wanted != run.request.settings.epochs and not run.request.settings.max_steps:
        told.append(f"epochs: {run.request.settings.epochs:g} as set, the recipe has {wanted:g}")
    if rates_of(recipe):
        told.append("learning rate: the recipe's")
    if run.chosen is not None and last > 0:
        told.append(f"best checkpoint: chosen from epoch {last:g} on, when the recipe has changed all")
    return told


def notes(run: Run) -> list[str]:
    """Return what happened to rows on their way, a line each."""
    cut = [f"{split}: {each.cut} rows are longer than the limit" for split, each in run.encoded.items() if each.cut]
    left = [f"{split}: {each.left_out} rows have no label" for split, each in run.encoded.items() if each.left_out]
    return [*cut, *left]


def request_digest(run: Run) -> str:
    """Return what tells requests apart: settings, task, inputs and every encoded training row."""
    request = run.request
    layout = request.task.layout if isinstance(request.task.layout, str) else request.task.layout.__qualname__
    told = [
        request.settings.told(),
        str(replace(request.task, layout=layout)),
        [sorted(request.model_config.items()), request.keep_decoder_layers],
        [request.recipe.to_yaml() if request.recipe else "", request.teacher_word],
        [str(each) for each in (request.model_input, *request.data_inputs, request.teacher_input)],
        [run.place.processes, run.place.bf16, run.place.device.type, run.loaded.parameters],
    ]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    for values in run.encoded["train"].features.values():
        digest.update(np.ascontiguousarray(getattr(values, "values", values)))
    return digest.hexdigest()
