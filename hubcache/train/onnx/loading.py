"""A model's folder loaded with the head that is exported, every weight of it from the folder; nothing is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

import hubcache.models
from hubcache.errors import BadConfig, UsageError
from hubcache.train.adapters import adapted
from hubcache.train.adapters.switching import fill
from hubcache.train.heads import CRF_HEAD, config_of, model_of, quietly, tokenizer_of
from hubcache.train.pipelines.tasks import TASKS, PipelineTask, find_task
from hubcache.train.sparse.loading import is_quantized_folder, load_quantized

ALIASES = {
    "mlm": "fill-mask",
    "masked-language-modeling": "fill-mask",
    "masked-lm": "fill-mask",
    "qa": "question-answering",
    "glue": "text-classification",
    "sequence-classification": "text-classification",
    "causal-lm": "text-generation",
    "seq2seq-lm": "text2text-generation",
    "default": "feature-extraction",
}
"""What the original's and optimum's exporters call a task, beside the pipelines' own names and aliases."""


def task_named(text: str) -> PipelineTask:
    """Return the task of a name; blanks and underscores count as hyphens. Raises: UsageError."""
    name = text.strip().lower().replace("_", "-").replace(" ", "-")
    return find_task(ALIASES.get(name, name))


def load(folder: Path, task: str | None = None) -> Any:
    """Load a folder's model in float32, for evaluation, with the task's head, else the one its config.json names.

    A checkpoint of quantisation-aware training gets its fake quantisation back.
    Raises:
        UsageError: a weight of that head is not in the folder.
        BadConfig: the folder holds no model for it.
    """
    config = config_of(folder)
    cls = head_class(config, task_named(task) if task else None)
    if not cls.__name__.startswith("AutoModel"):
        # A T5 head's config.json may say that it is T5's.
        config = cls.config_class.from_pretrained(folder, local_files_only=True)
    if cls.__name__ == CRF_HEAD:
        config.crf_scores = False
    model, new = _read(cls, folder, config)
    _refuse_random(model, new, folder)
    return model.eval()


def load_over(folder: Path, base: Path, task: str | None = None) -> Any:
    """Load an adapter's folder over its base's, active, as load() does a model's.

    Raises:
        UsageError: a weight of the head is neither the adapter's nor the base's.
        BadConfig: the folder holds no adapter of this base.
    """
    config = config_of(folder)
    cls = head_class(config, task_named(task) if task else None)
    model, new = model_of(cls, base, config)
    name, head = adapted.load(model, folder)
    adapted.activate(model, [name])
    fill(model, head)
    _refuse_random(model, tuple(sorted(set(new) - set(head))), folder)
    return model.eval()


def tokenizer_if_any(folder: Path) -> Any:
    """Return the folder's tokenizer, None where it has none that can be loaded."""
    try:
        return tokenizer_of(folder)
    except BadConfig:
        return None


def head_class(config: Any, task: PipelineTask | None) -> Any:
    """Return the class to export: the architecture's where it has the task's head, else the Auto class's."""
    names = [str(name) for name in getattr(config, "architectures", None) or ()]
    if task is None and any(name.endswith("ForPreTraining") for name in names):
        task = TASKS["fill-mask"]
    for name in names:
        fits = task is None or (task.name != "feature-extraction" and name.endswith(task.heads))
        known = next((module for module in (hubcache.models, transformers) if hasattr(module, name)), None)
        if known is not None and fits and not name.endswith("ForPreTraining"):
            return getattr(known, name)
    return getattr(transformers, task.auto_class if task else "AutoModel")


def _read(cls: Any, folder: Path, config: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the model, and the weights of it that the folder does not have."""
    try:
        if is_quantized_folder(folder):
            return load_quantized(cls, folder, config)
        with quietly():
            model, found = cls.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                **({"trust_remote_code": False} if cls.__name__.startswith("AutoModel") else {}),
            )
    except (ValueError, OSError, RuntimeError) as error:
        raise BadConfig(f"{folder} has no model that {cls.__name__} loads: {error}") from error
    new = [*found["missing_keys"], *(mismatch[0] for mismatch in found["mismatched_keys"])]
    return model, tuple(sorted(new))


def _refuse_random(model: Any, new: tuple[str, ...], folder: Path) -> None:
    # A pooler that feeds no output may be new: AutoModel adds one to what was trained without it.
    random = [name for name in new if "pooler." not in name or _has_head(model)]
    if random:
        raise UsageError(
            f"{folder} has no trained {type(model).__name__}: {', '.join(random[:3])} would be random",
            hint="name the task it was trained for: --task, or fine-tune it first: hubcache finetune MODEL --task TASK",
        )


def _has_head(model: Any) -> bool:
    return model.base_model is not model
