"""Adapters in a fine-tuning run: put on a loaded model by the settings, written as a folder, and loaded for scoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubcache.errors import UsageError
from hubcache.train.adapters import adapted, lora, prompts
from hubcache.train.adapters.base import AdapterFile, base_of_folder, check_base
from hubcache.train.adapters.bottleneck import BottleneckConfig
from hubcache.train.adapters.switching import fill
from hubcache.train.heads import Loaded, load
from hubcache.train.record import Input
from hubcache.train.settings import TrainSettings
from hubcache.train.tasks import Task


def attach(loaded: Loaded, settings: TrainSettings) -> int:
    """Put the settings' adapter on a model and freeze the rest but the head; return how many parameters train."""
    adapted.add(loaded.model, adapted.DEFAULT, choice_by(settings))
    return adapted.train_only(loaded.model, [adapted.DEFAULT], loaded.new)


def choice_by(settings: TrainSettings) -> adapted.Choice:
    """Return the adapter that the settings ask for; its rank is the number of a prompt's or a prefix's vectors.

    Raises: UsageError for a prefix whose activations would be computed twice: it is not there the second time.
    """
    if settings.adapter in prompts.KINDS:
        if settings.adapter == "prefix" and settings.gradient_checkpointing:
            raise UsageError(
                "a prefix does not go with gradient_checkpointing", hint="--adapter prompt, or leave it out"
            )
        return prompts.PromptChoice(settings.adapter, settings.adapter_rank)
    targets = tuple(name.strip() for name in settings.adapter_targets.split(",") if name.strip())
    if settings.adapter in lora.KINDS:
        rank, alpha = settings.adapter_rank, settings.adapter_alpha
        return lora.PeftChoice(settings.adapter, rank, alpha, settings.adapter_dropout, targets)
    return BottleneckConfig(
        settings.adapter, settings.adapter_reduction, settings.adapter_activation, settings.adapter_dropout
    )


def write(loaded: Loaded, folder: Path, model: Path, named: Input) -> None:
    """Write the trained adapter, its head, and the configuration that knows the labels; `named` is the base."""
    reference, _, is_cached = named.name.partition("@")
    base = base_of_folder(model, reference, named.digest if is_cached else "")
    adapted.save(loaded.model, folder, adapted.DEFAULT, base, also=loaded.new)
    loaded.model.config.save_pretrained(folder)
    if getattr(loaded.model, "generation_config", None) is not None and loaded.model.can_generate():
        loaded.model.generation_config.save_pretrained(folder)


def load_adapted(
    folder: Path, base: Path, task: Task, *, any_base: bool = False, changes: Mapping[str, Any] | None = None
) -> Loaded:
    """Load an adapter's folder over its base's, active and with the task's head.

    Raises: UsageError for another base (`any_base` takes it), or a head that the adapter did not train.
    """
    if not any_base:
        check_base(AdapterFile.read(folder).base, base_of_folder(base))
    loaded = load(folder, task, changes=changes or {}, weights=base)
    name, beside = adapted.load(loaded.model, folder)
    adapted.activate(loaded.model, [name])
    fill(loaded.model, beside)
    missing = sorted(set(loaded.new) - set(beside))
    if missing:
        raise UsageError(
            f"{folder} has no trained {loaded.head} for the task {task.name}: {', '.join(missing[:3])} would be random",
            hint=f"fine-tune it first: hubcache finetune MODEL --task {task.name}",
        )
    return replace(loaded, new=())
