"""What SOFA's three run_…_hf share: arguments of transformers 4, its AdamW, Child-Tuning; no data is read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

from hubcache.models import PalmForConditionalGeneration
from hubcache.train.child_tuning import (
    TASK_DRIVEN,
    ChildTuningAdamW,
    apply_child_tuning_to_trainer,
    calculate_fisher_of_trainer,
    masks_by_parameter,
)

PALM_WEIGHTS = "palm_model.pt"
REFERENCE_OPTIMIZER = "adamw_hf"
ARGUMENTS = frozenset(one.name for one in fields(TrainingArguments))
"""The arguments that this transformers has."""

RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "push_to_hub_model_id": "hub_model_id",
}
"""Arguments of transformers 4, and what they are called now."""

GONE = frozenset(
    {
        "half_precision_backend",
        "jit_mode_eval",
        "logging_dir",
        "overwrite_output_dir",
        "save_safetensors",
        "tpu_num_cores",
        "use_mps_device",
    }
)
"""Arguments of transformers 4 that chose among what there is one of now."""

OLD_ARGUMENTS = ARGUMENTS | RENAMED.keys() | GONE | {"group_by_length", "warmup_ratio"}
"""All that a script of either age may call a training argument."""


@dataclass(frozen=True, slots=True)
class ChildTuning:
    """How gradients are masked: "ChildTuning-F", "ChildTuning-D" or None, and the share that is kept."""

    mode: str | None = None
    reserve_p: float = 0.2


def training_arguments(told: Mapping[str, Any]) -> TrainingArguments:
    """Make the Trainer's arguments of names old or new. Raises: TypeError for a name of neither age."""
    made: dict[str, Any] = {}
    for name, value in told.items():
        if name in ARGUMENTS:
            made[name] = value
        elif name in RENAMED:
            made[RENAMED[name]] = value
        elif name == "group_by_length":
            made |= {"train_sampling_strategy": "group_by_length"} if value else {}
        elif name not in OLD_ARGUMENTS:
            raise TypeError(f"there is no training argument {name!r}")
    if made.get("optim") == REFERENCE_OPTIMIZER:
        del made["optim"]
    # Below 1 the new argument is a share of the steps; the old share lost against a number of steps.
    if not made.get("warmup_steps") and told.get("warmup_ratio"):
        made["warmup_steps"] = told["warmup_ratio"]
    return TrainingArguments(**made)


def make_trainer(
    model: Any, arguments: TrainingArguments, told: Mapping[str, Any], tuning: ChildTuning, parts: Mapping[str, Any]
) -> Trainer:
    """Put a Trainer together that steps as the reference's: AdamW as transformers 4 had it, unless `told` has `optim`.

    `parts` are the Trainer's other arguments. In mode D the Fisher information is computed here, as it was there.
    """
    if told.get("optim", REFERENCE_OPTIMIZER) != REFERENCE_OPTIMIZER:
        trainer = Trainer(model=model, args=arguments, **parts)
        if tuning.mode is not None:
            apply_child_tuning_to_trainer(trainer, tuning.mode, tuning.reserve_p)
        return trainer
    settings = {
        "lr": arguments.learning_rate,
        "betas": (arguments.adam_beta1, arguments.adam_beta2),
        "eps": arguments.adam_epsilon,
        "mode": tuning.mode,
        "reserve_p": tuning.reserve_p,
    }
    trainer = Trainer(model=model, args=arguments, optimizer_cls_and_kwargs=(ChildTuningAdamW, settings), **parts)
    if tuning.mode == TASK_DRIVEN:
        trainer.add_callback(GradientMasks(calculate_fisher_of_trainer(trainer, tuning.reserve_p)))
    return trainer


def train_and_evaluate(
    model: Any, told: Mapping[str, Any], tuning: ChildTuning, parts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Train by arguments of either age, evaluate at the end where `parts` have an eval_dataset; return what was logged.

    Without an eval_dataset nothing is evaluated on the way either: the reference stopped there.
    """
    has_dev = bool(parts.get("eval_dataset"))
    told = told if has_dev else {**told, "evaluation_strategy": "no", "load_best_model_at_end": False}
    trainer = make_trainer(model, training_arguments(told), told, tuning, parts)
    trainer.train()
    if has_dev:
        trainer.evaluate()
    return list(trainer.state.log_history)


class GradientMasks(TrainerCallback):
    """Hand the masks of mode D to the optimizer, which exists only when training begins."""

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self.masks = masks

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the masks, through accelerate's wrapper."""
        optimizer = kwargs["optimizer"]
        optimizer = getattr(optimizer, "optimizer", optimizer)
        optimizer.set_gradient_mask(masks_by_parameter(kwargs["model"], self.masks))


def load_model(auto: Any, path: str | Path, settings: Mapping[str, Any]) -> Any:
    """Load a model by an Auto class, in float32 as the reference computed; `settings` go into its configuration.

    A folder of PALM's archive, with palm_model.pt, is read as it is.
    """
    folder = Path(path)
    if (folder / PALM_WEIGHTS).is_file() and not (folder / "model.safetensors").is_file():
        return _load_palm(folder, settings)
    return auto.from_pretrained(str(path), **{"dtype": torch.float32, "trust_remote_code": False, **settings})


def load_tokenizer(path: str | Path, **settings: Any) -> Any:
    """Load a folder's (or cached repo's) tokenizer."""
    return AutoTokenizer.from_pretrained(str(path), trust_remote_code=False, **settings)


def _load_palm(folder: Path, settings: Mapping[str, Any]) -> PalmForConditionalGeneration:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **settings)
    model = PalmForConditionalGeneration(config)
    weights = torch.load(folder / PALM_WEIGHTS, map_location="cpu", weights_only=True)
    model.model.load_state_dict(weights, strict=True)
    return model
