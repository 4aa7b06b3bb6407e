"""Our settings in the words of transformers' Trainer, and the steps that they come to; it trains nothing."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from hubcache.train.callbacks import NEVER
from hubcache.train.device import Place
from hubcache.train.metrics import Metric
from hubcache.train.settings import TrainSettings

LOGS_AN_EPOCH = 20
_NAMES = {one.name for one in fields(TrainingArguments)}
# What transformers 5.23 calls otherwise than 5.17.
_RECOMPUTING = "activation_checkpointing" if "activation_checkpointing" in _NAMES else "gradient_checkpointing"
_OPTIMIZERS = {"adamw": "adamw_torch_fused", "adafactor": "adafactor", "sgd": "sgd"}


def steps_an_epoch(settings: TrainSettings, rows: int, processes: int) -> int:
    """Return how many steps read all rows once."""
    batches = math.ceil(math.ceil(rows / settings.batch_size) / processes)
    return max(1, math.ceil(batches / settings.gradient_accumulation))


def total_steps(settings: TrainSettings, rows: int, processes: int) -> int:
    """Return how many steps a whole run takes."""
    return settings.max_steps or math.ceil(settings.epochs * steps_an_epoch(settings, rows, processes))


def training_arguments(
    settings: TrainSettings, folder: Path, where: Place, rows: int, chosen: tuple[str, Metric] | None
) -> TrainingArguments:
    """Return the Trainer's arguments; `chosen` is the log's key of the figure that chooses the checkpoint."""
    steps = steps_an_epoch(settings, rows, where.processes)
    evaluating: dict[str, Any] = {"eval_strategy": "no"}
    if chosen is not None:
        evaluating = {
            "eval_strategy": settings.evaluate,
            "eval_steps": settings.evaluate_steps,
            "metric_for_best_model": chosen[0],
            "greater_is_better": chosen[1].greater_is_better,
        }
    # The Trainer knows no best checkpoint without a save strategy: `no` is one whose step never comes.
    saving = {"save_strategy": settings.save, "save_steps": settings.save_steps}
    if settings.save == "no":
        saving = {"save_strategy": "steps", "save_steps": NEVER}
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        lr_scheduler_type=settings.schedule,
        optim=_OPTIMIZERS[settings.optimizer],
        weight_decay=settings.weight_decay,
        adam_beta1=settings.adam_beta1,
        adam_beta2=settings.adam_beta2,
        adam_epsilon=settings.adam_epsilon,
        max_grad_norm=settings.max_grad_norm,
        label_smoothing_factor=settings.label_smoothing,
        bf16=where.bf16,
        logging_steps=settings.log_steps or max(1, steps // LOGS_AN_EPOCH),
        # A loss that is not a number has to be seen, and looking for one makes a GPU wait at every step.
        logging_nan_inf_filter=False,
        dataloader_num_workers=settings.workers,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        seed=settings.seed,
        use_cpu=where.device.type == "cpu",
        ddp_backend="gloo" if where.device.type == "cpu" and where.processes > 1 else None,
        **evaluating,
        **saving,
        **({_RECOMPUTING: True} if settings.gradient_checkpointing else {}),
    )
    if where.device.type == "cpu" and where.processes > 1:
        # transformers 5.17 takes the device for cpu:0 then, and torch restores no optimizer to a numbered CPU.
        vars(arguments)["_setup_devices"] = where.device
    return arguments
