"""A pipeline from a model's folder: class, weights, tokenizer and device; nothing is looked up online."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

import hubcache.models
from hubcache.errors import BadConfig, UsageError
from hubcache.train.device import place
from hubcache.train.heads import CRF_HEAD, config_of, model_of, quietly, tokenizer_of
from hubcache.train.pipelines import answers, delegated, texts
from hubcache.train.pipelines.graphs import TORCH
from hubcache.train.pipelines.registry import Custom, custom
from hubcache.train.pipelines.tasks import PipelineTask, find_task, other_task
from hubcache.train.sparse.loading import is_quantized_folder, load_quantized

CLASSES: Mapping[str, Any] = {
    "feature-extraction": delegated.FeatureExtraction,
    "fill-mask": delegated.FillMask,
    "token-classification": delegated.TokenClassification,
    "text-classification": delegated.TextClassification,
    "zero-shot-classification": delegated.ZeroShotClassification,
    "text-generation": delegated.TextGeneration,
    "question-answering": answers.QuestionAnswering,
    "summarization": texts.TextToText,
    "text2text-generation": texts.TextToText,
    "translation": texts.Translation,
}
_TRUNCATED = ("text-classification", "feature-extraction")
_UNBOUNDED = 10**9
_FEW = 200
"""Tokens below which a vocabulary is looked at; T5's has a hundred special ones."""


def build(
    task: str,
    model: Any,
    tokenizer: Any = None,
    *,
    device: Any = None,
    options: Mapping[str, Any] | None = None,
    backend: str = TORCH,
) -> Any:
    """Make a task's pipeline of a model or its folder, on the device that is there unless one is named.

    The backend is torch, onnx or a folder's ONNX file, which computes on the CPU.
    Raises:
        UsageError: there is no such task or device, or the folder's model is another task's.
        BadConfig: the folder holds no model or tokenizer for it.
    """
    made = custom(task)
    known = None if made else find_task(task)
    where = _device(device, backend)
    if isinstance(model, (str, Path)):
        folder = Path(model)
        model = load_model(folder, known, made) if backend == TORCH else _load_graph(folder, known, backend)
        tokenizer = folder if tokenizer is None else tokenizer
    if isinstance(tokenizer, (str, Path)):
        tokenizer = _tokenizer(Path(tokenizer))
    _bound(tokenizer, model)
    said = dict(options or {})
    if known is not None and tokenizer is None:
        raise UsageError("a model in memory comes without a tokenizer", hint="give tokenizer=, too")
    if known is None:
        return made.made_by(model=model, tokenizer=tokenizer, task=task, device=where, **said)  # type: ignore[union-attr]
    if known.name in _TRUNCATED and _is_bounded(tokenizer):
        said.setdefault("truncation", True)
    name = task if known.name == "translation" else known.name
    with quietly():
        return CLASSES[known.name](model=model.eval(), tokenizer=tokenizer, task=name, device=where, **said)


def _tokenizer(folder: Path) -> Any:
    """Load a tokenizer that knows words: without its files transformers 5 makes one of special tokens alone."""
    found = tokenizer_of(folder)
    if found is not None and len(found) < _FEW and len(set(found.get_vocab()) - set(found.all_special_tokens)) <= 1:
        raise BadConfig(f"{folder} has no vocabulary", hint="hubcache verify tells whether the folder is whole")
    return found


def change_type(pipe: Any, dtype: Any) -> None:
    """Let a pipeline compute in another type of numbers, a torch.dtype or its name. Raises: UsageError."""
    kind = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise UsageError(f"{dtype} is no type that a model computes in", hint="float16, bfloat16 or float32")
    if not isinstance(pipe.model, torch.nn.Module):
        raise UsageError("an ONNX graph has its type already", hint="leave the dtype out")
    pipe.model.to(kind)


def _load_graph(folder: Path, task: PipelineTask | None, backend: str) -> Any:
    if task is None:
        raise UsageError("a registered pipeline runs on torch only", hint="leave the backend out")
    from hubcache.train.pipelines.onnx import load_onnx  # onnxruntime, of another extra

    return load_onnx(folder, task, backend)


def _device(device: Any, backend: str) -> Any:
    if backend == TORCH:
        return place("fp32").device if device is None else _known_device(device)
    if device not in (None, -1) and torch.device(device).type != "cpu":
        raise UsageError(f"an ONNX graph is run on the CPU, not on {device}", hint="leave the device or backend out")
    return torch.device("cpu")


def _known_device(device: Any) -> Any:
    """Refuse a device that this machine does not have before a model is loaded for it."""
    if isinstance(device, int) and device < 0:
        return device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        # torch without CUDA says so by an assertion.
        raise UsageError(f"there is no device {device} here", hint="cpu, or leave it out") from error
    return device


def load_model(folder: Path, task: PipelineTask | None, made: Custom | None = None) -> Any:
    """Load a folder's model with the task's head, in float32 and for evaluation. Raises: BadConfig."""
    cls, config = _class_and_config(folder, task, made)
    if task is not None:
        _check_task(folder, task, config)
    try:
        model, new = _loaded(cls, folder, config)
    except (ValueError, OSError, RuntimeError, SafetensorError, struct.error) as error:
        known = _first_line(error)
        raise BadConfig(f"{folder} has no model for {task.name if task else 'this pipeline'}: {known}") from error
    if task is not None:
        _check_head(folder, task, new)
    return model.eval()


def _loaded(cls: Any, folder: Path, config: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the model, and its parameters that the folder does not have; a pooler is no task's."""
    if is_quantized_folder(folder):
        model, missing = load_quantized(cls, folder, config)
    else:
        with quietly():
            model, found = cls.from_pretrained(
                folder, config=config, dtype=torch.float32, local_files_only=True, trust_remote_code=False,
                output_loading_info=True,
            )  # fmt: skip
        missing = found["missing_keys"]
    own = {name for name, _ in model.named_parameters() if "pooler" not in name}
    return model, tuple(sorted(own & set(missing)))


def _check_task(folder: Path, task: PipelineTask, config: Any) -> None:
    other = other_task(task, {"architectures": getattr(config, "architectures", None)})
    if other:
        raise UsageError(f"{folder} is a model for {other}, not for {task.name}", hint=f"hubcache predict {other} …")


def _check_head(folder: Path, task: PipelineTask, new: Sequence[str]) -> None:
    """transformers warns and answers with numbers that were drawn; nobody can use them."""
    if new:
        raise UsageError(
            f"{folder} has no trained head for {task.name}: {', '.join(new[:3])} would be random",
            hint="name a model for it, or fine-tune this one: hubcache finetune",
        )


def _first_line(error: Exception) -> str:
    """transformers lists two hundred classes behind the first sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def load_adapted(folder: Path, base: Path, task: PipelineTask) -> Any:
    """Load an adapter's folder over its base's, active, with its head and labels.

    Raises: UsageError for another base than the adapter's, or a head that neither has.
    """
    from hubcache.train.adapters import adapted  # only where there is an adapter: every answer waits for imports
    from hubcache.train.adapters.base import AdapterFile, base_of_folder, check_base
    from hubcache.train.adapters.switching import fill

    check_base(AdapterFile.read(folder).base, base_of_folder(base))
    cls, config = _class_and_config(folder, task, None)
    model, new = model_of(cls, base, config)
    name, head = adapted.load(model, folder)
    adapted.activate(model, [name])
    fill(model, head)
    missing = sorted(set(new) - set(head))
    if missing:
        raise UsageError(f"{folder} has no trained head for {task.name}: {', '.join(missing[:3])} would be random")
    return model.eval()


def _class_and_config(folder: Path, task: PipelineTask | None, made: Custom | None) -> tuple[Any, Any]:
    config = config_of(folder)
    cls = _class_of(config, task, made)
    if cls.__name__ == CRF_HEAD:
        config = cls.config_class.from_pretrained(folder, local_files_only=True)
        config.crf_scores = True
    elif not cls.__name__.startswith("AutoModel"):
        config = cls.config_class.from_pretrained(folder, local_files_only=True)
    if getattr(config, "id2label", None) and getattr(config, "label2id", None) is None:
        config.label2id = {label: number for number, label in config.id2label.items()}
    return cls, config


def _class_of(config: Any, task: PipelineTask | None, made: Custom | None) -> Any:
    """Ours where the configuration names one that has the task's head: KE-T5's files say they are T5's."""
    if made is not None and made.auto_class is not None:
        return made.auto_class
    names = [str(name) for name in getattr(config, "architectures", None) or ()]
    for name in names:
        fits = task is None or (task.name != "feature-extraction" and name.endswith(task.heads))
        if fits and hasattr(hubcache.models, name):
            return getattr(hubcache.models, name)
        if task is None and hasattr(transformers, name):
            return getattr(transformers, name)
    return getattr(transformers, task.auto_class if task else "AutoModel")


def _bound(tokenizer: Any, model: Any) -> None:
    """Old folders do not say how much a model reads: its places do; RoBERTa's first two are never used."""
    places = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if tokenizer is None or not isinstance(places, int) or getattr(tokenizer, "model_max_length", 0) < _UNBOUNDED:
        return
    module = model if next(model.children(), None) is not None else _skeleton(model.config)
    embeddings = [module for name, module in module.named_modules() if name.endswith("position_embeddings")]
    padding = getattr(embeddings[0], "padding_idx", None) if embeddings else None
    tokenizer.model_max_length = places - (padding + 1 if padding is not None else 0)


def _skeleton(config: Any) -> Any:
    """The model that a graph was made of, without weights."""
    with torch.device("meta"):
        return transformers.AutoModel.from_config(config)


def _is_bounded(tokenizer: Any) -> bool:
    return getattr(tokenizer, "model_max_length", _UNBOUNDED) < _UNBOUNDED
