"""Fine-tune a model: a folder and rows in, a folder with the best model and run.json out.

It fetches nothing, knows no cache and prints nothing: what is to be said goes to the request's `say`.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers.integrations import TensorBoardCallback

from hubcache.train import graphs
from hubcache.train.arguments import steps_an_epoch, training_arguments
from hubcache.train.callbacks import (
    Checkpoint,
    Checkpoints,
    Clock,
    Patience,
    Progress,
    Rows,
    last_checkpoint,
)
from hubcache.train.child_tuning import apply_child_tuning_to_trainer
from hubcache.train.device import attention_without_plans
from hubcache.train.distill import Teacher, check_same_tokens
from hubcache.train.features import make_collator
from hubcache.train.heads import CRF_HEAD, config_of, freeze_backbone, label_columns, load, quietly
from hubcache.train.predictions import Reading
from hubcache.train.publish import load_best, make_record, publish
from hubcache.train.record import RunRecord
from hubcache.train.scoring import reading_for, score
from hubcache.train.setup import CHECKPOINTS, FinetuneRequest, Run, check_settings, prepare, request_digest
from hubcache.train.sparse.callback import RecipeCallback
from hubcache.train.sparse.distillation import RecipeTeacher, find_teacher
from hubcache.train.sparse.tuning import Tuning, distillers
from hubcache.train.trainer import FineTuner, LossWithTeacher, RowOrder

__all__ = ["CHECKPOINTS", "FinetuneRequest", "Run", "finetune", "make_trainer", "prepare"]

TOKEN_LOSSES = ("token-classification", "text-to-text")
"""The kinds whose loss is a mean over labelled tokens."""


def finetune(request: FinetuneRequest) -> RunRecord:
    """Train, keep the best checkpoint, score it on every split but train, and write model and record to `output`.

    A run that was killed goes on from its last checkpoint when the same request comes again, and on a CPU ends with
    the same bits. With several processes (torchrun) the first one writes. Raises: UsageError, BadConfig.
    """
    check_settings(request)
    run = prepare(request)
    request = run.request
    clock, trainer, resumed = make_trainer(run)
    if request.settings.child_tuning:
        apply_child_tuning_to_trainer(trainer, request.settings.child_tuning, request.settings.reserve_p)
    with quietly(), attention_without_plans():
        trainer.train(resume_from_checkpoint=str(resumed.folder) if resumed else None)
    if trainer.graphs is not None and trainer.graphs.refused:
        run.say(f"steps were not replayed as CUDA graphs: {trainer.graphs.refused}")
    load_best(run, trainer)
    scored = {
        split: score(request.task, trainer.model, run.loaded.tokenizer, encoded, reading_of(run))
        for split, encoded in run.encoded.items()
        if split != "train"
    }
    record = make_record(run, trainer, clock, scored)
    if run.place.is_first:
        publish(run, trainer, record)
    if run.place.processes > 1:
        torch.distributed.barrier()
    return record


def make_trainer(run: Run) -> tuple[Clock, FineTuner, Checkpoint | None]:
    """Put the Trainer together; the checkpoint is the one to resume from, if the same request left one."""
    request, settings, train = run.request, run.request.settings, run.encoded["train"]
    if settings.freeze_backbone:
        run.say(f"frozen backbone: {freeze_backbone(run.loaded)} parameters train")
    digest = request_digest(run)
    resumed = find_checkpoint(run, digest)
    tuning = tuning_of(run)
    # Under a recipe half precision is the trainer's, to end where quantisation begins; what is quantised has none.
    where = replace(run.place, bf16=run.place.bf16 and tuning is None and not run.loaded.is_quantized)
    trainer = FineTuner(
        run.loaded.model,
        training_arguments(settings, run.checkpoints, where, len(train), run.chosen),
        features=train,
        collate=make_collator(request.task, run.loaded.tokenizer, padded_to(run)),
        scorer=scorer_of(run),
        order=RowOrder(
            train.lengths,
            settings.batch_size * settings.gradient_accumulation * run.place.processes,
            settings.seed,
            grouped=settings.length_grouping,
        ),
        token_losses=takes_token_losses(run),
        graphed=is_graphed(run),
        tuning=tuning,
    )
    trainer.teach(load_teacher(run, trainer))
    clock = Clock(resumed.seconds if resumed else 0.0)
    add_callbacks(run, trainer, clock, digest)
    return clock, trainer, resumed


def takes_token_losses(run: Run) -> bool:
    """Tell whether the mean loss is to be taken over the tokens of several batches, not over the batches."""
    several = run.request.settings.gradient_accumulation > 1 or run.place.processes > 1
    return several and run.request.task.kind in TOKEN_LOSSES and run.loaded.head != CRF_HEAD


def is_graphed(run: Run) -> bool:
    """Tell whether steps are replayed as CUDA graphs: on one GPU, a batch a step, and a model small enough."""
    settings = run.request.settings
    is_plain = settings.gradient_accumulation == 1 and run.place.processes == 1 and not settings.gradient_checkpointing
    if run.request.recipe is not None or run.loaded.is_quantized:
        return False
    is_small = run.loaded.parameters <= graphs.MOST_PARAMETERS
    return settings.cuda_graphs and run.place.device.type == "cuda" and is_plain and is_small


def padded_to(run: Run) -> int:
    """Return the number of tokens that batches are padded to a multiple of."""
    return max(run.request.settings.pad_to, graphs.PADDED_TO if is_graphed(run) else 1)


def add_callbacks(run: Run, trainer: FineTuner, clock: Clock, digest: str) -> None:
    """Add what watches over the training; the order matters: the clock runs before anything is saved."""
    key, chosen = run.chosen or ("", None)
    trainer.add_callback(clock)
    trainer.add_callback(Rows(trainer.order))
    if trainer.tuning is not None:
        trainer.add_callback(RecipeCallback(trainer.tuning.recipe, trainer.tuning.steps_per_epoch, run.say))
    trainer.add_callback(Checkpoints(digest, clock, run.chosen, trainer.counts))
    trainer.add_callback(Progress(run.say))
    if chosen is not None and run.request.settings.early_stopping:
        trainer.add_callback(Patience(chosen, key, run.request.settings.early_stopping, trainer.counts))
    has_tensorboard = importlib.util.find_spec("tensorboard") is not None
    if run.request.logs and run.request.settings.tensorboard and has_tensorboard and run.place.is_first:
        from torch.utils.tensorboard import SummaryWriter

        trainer.add_callback(TensorBoardCallback(SummaryWriter(log_dir=str(run.request.logs))))


def tuning_of(run: Run) -> Tuning | None:
    """Return what the run's recipe rules, None where there is none."""
    if run.request.recipe is None:
        return None
    steps = steps_an_epoch(run.request.settings, len(run.encoded["train"]), run.place.processes)
    return Tuning(run.request.recipe, steps, run.place.bf16 and not run.loaded.is_quantized)


def reading_of(run: Run) -> Reading:
    """Return how the model is read when it is scored: quantised, in float32."""
    where = replace(run.place, bf16=run.place.bf16 and not run.loaded.is_quantized)
    return reading_for(run.request.task, run.request.settings, where)


def scorer_of(run: Run) -> Callable[[Any], Mapping[str, float]] | None:
    """Return what scores the model on the validation split while it trains."""
    if run.chosen is None:
        return None
    task, tokenizer, encoded = run.request.task, run.loaded.tokenizer, run.encoded["validation"]
    # A figure that cannot be computed, as where no row has a label, is never the best.
    nothing = {run.chosen[0].removeprefix("eval_"): math.nan}
    return lambda model: {**nothing, **score(task, model, tokenizer, encoded, reading_of(run)).metrics}


def load_teacher(run: Run, trainer: FineTuner) -> LossWithTeacher | None:
    """Load the teacher, where there is one, to the device that trains; a recipe that distils rules the loss.

    Raises: UsageError where it does not fit, BadConfig where the recipe distils and there is none.
    """
    request, tuning = run.request, trainer.tuning
    distilling = distillers(request.recipe) if request.recipe is not None else ()
    if request.teacher is None and not distilling:
        return None
    model, columns = (None, ()) if request.teacher is None else load_other(run, request.teacher)
    if not distilling or tuning is None:
        return Teacher(model, request.settings.distill_alpha, request.settings.distill_temperature, columns)
    found = find_teacher(request.teacher_word or model, run.loaded.model)
    if found is None:
        run.say("the recipe distils, and the teacher is disabled: the labels alone are learned from")
        return None
    epoch = lambda: tuning.epoch(trainer.state.global_step)  # noqa: E731  # read anew at every step
    return RecipeTeacher(distilling, found.to(run.place.device), epoch, columns)


def load_other(run: Run, folder: Path) -> tuple[Any, tuple[int, ...]]:
    """Load a teacher's folder; return it, and which of its outputs each label is. Raises: UsageError."""
    columns = label_columns(config_of(folder), run.request.task)
    teacher = load(folder, run.request.task, trained=True)
    check_same_tokens(run.loaded.tokenizer, teacher.tokenizer)
    run.say(f"teacher: {type(teacher.model).__name__}, {teacher.parameters / 1e6:.1f} million parameters")
    return teacher.model.to(run.place.device), columns


def find_checkpoint(run: Run, digest: str) -> Checkpoint | None:
    """Return the checkpoint to go on from; those of another request are deleted, and that is said."""
    found = last_checkpoint(run.checkpoints, digest)
    if run.place.processes > 1:
        torch.distributed.barrier()
    if found is not None:
        run.say(f"resumed from {found.folder.name}")
    elif run.checkpoints.exists() and run.place.is_first:
        run.say("the checkpoints here are of another request: starting over")
        shutil.rmtree(run.checkpoints)
    return found
