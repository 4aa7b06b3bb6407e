"""What would fail or starve in a fine-tuning run, found in seconds before it; no weights are loaded here."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hubcache.errors import HubcacheError
from hubcache.train.device import Place, free_memory, place
from hubcache.train.features import Finding, check_task
from hubcache.train.heads import class_of, config_of, label_columns, limited, tokenizer_of
from hubcache.train.settings import TrainSettings
from hubcache.train.setup import FinetuneRequest, check_settings
from hubcache.train.sparse.findings import recipe_findings
from hubcache.train.tasks import Task, head_of

STATES = 4
"""Copies of the parameters that training with AdamW keeps: weights, gradients, mean and square."""

SAVED_STATES = 3
"""Copies of the parameters in a checkpoint: weights, mean and square."""

_FLOAT = 4


def check(request: FinetuneRequest) -> list[Finding]:
    """Return everything that is wrong (fatal) or worth knowing before a run, the fatal first, each with its cure."""
    found: list[Finding] = []
    task = limited(request.task, request.settings)
    config, tokenizer = _model(request.model, task, request.model_config, found)
    limit = None if config is None else model_limit(config, tokenizer)
    found += check_task(task, request.splits, tokenizer, limit)
    found += _refused(lambda: check_settings(request), "change the settings")
    if request.teacher is not None:
        found += _teacher(request.teacher, task)
    if config is not None:
        found += recipe_findings(request, task, config)
    parameters = parameters_in(request.model)
    if config is not None:
        found += _generation(config, task)
    if parameters and config is not None:
        found += _disk(request.output, parameters)
        found += _memory(request, config, parameters)
    return sorted(found, key=lambda one: not one.fatal)


def model_limit(config: Any, tokenizer: Any = None) -> int | None:
    """Return the most tokens that a model takes, None where nothing limits it (T5)."""
    limits = []
    positions = getattr(config, "max_position_embeddings", None)
    if positions and not config.model_type.startswith("t5"):
        # RoBERTa counts positions from behind the padding's number.
        is_shifted = any(name in config.model_type for name in ("roberta", "veco"))
        limits.append(positions - (config.pad_token_id or 0) - 1 if is_shifted else positions)
    told = getattr(tokenizer, "model_max_length", None)
    if told and told < 1_000_000 and not config.model_type.startswith("t5"):
        limits.append(told)
    return min(limits) if limits else None


def parameters_in(folder: Path) -> int:
    """Return how many numbers the weight files of a folder hold, 0 where there are none; nothing is loaded."""
    shards = sorted(folder.glob("*.safetensors"))
    if shards:
        return sum(_numbers(shard) for shard in shards)
    return sum(path.stat().st_size // _FLOAT for path in folder.glob("pytorch_model*.bin"))


def memory_needed(task: Task, config: Any, settings: TrainSettings, parameters: int, length: int) -> int:
    """Return about how many bytes a training step of that many tokens a row takes, activations included.

    Per layer, token and hidden value 34 bytes in half precision, twice that in float32, and 5 bytes a head and pair of
    tokens where attention keeps its weights. Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4.1.
    """
    text = config.get_text_config()
    hidden = getattr(text, "hidden_size", 768)
    layers = getattr(text, "num_hidden_layers", 12) * (2 if task.generates else 1)
    heads = getattr(text, "num_attention_heads", 12)
    tokens = settings.batch_size * length
    if settings.gradient_checkpointing:
        activations = tokens * hidden * (2 * _FLOAT * layers + 68)
    else:
        activations = layers * tokens * (68 * hidden + 10 * heads * length)
    scores = 3 * _FLOAT * settings.batch_size * int(task.option("max_target_length")) * text.vocab_size
    states = 1 if settings.freeze_backbone or settings.adapter else STATES
    return _FLOAT * parameters * states + activations + (scores if task.generates else 0)


def _model(folder: Path, task: Task, changes: Mapping[str, Any], found: list[Finding]) -> tuple[Any, Any]:
    config = tokenizer = None
    try:
        config = config_of(folder, task, changes)
        class_of(head_of(task, config.model_type))
        tokenizer = tokenizer_of(folder)
    except HubcacheError as error:
        found.append(_finding(error, "pull the model again: hubcache pull MODEL"))
    if not parameters_in(folder):
        found.append(Finding(f"{folder} has no weights", "pull it whole: hubcache pull MODEL"))
    return config, tokenizer


def _generation(config: Any, task: Task) -> Iterator[Finding]:
    """A model of many languages is told by its first token which one to write; without, it cannot begin."""
    begins = (getattr(config, name, None) for name in ("decoder_start_token_id", "bos_token_id"))
    if task.generates and config.is_encoder_decoder and all(token is None for token in begins):
        yield Finding(
            f"a {config.model_type} model writes nothing before it knows its first token, as that of a language",
            "--model-set decoder_start_token_id=ID",
        )


def _teacher(folder: Path, task: Task) -> list[Finding]:
    if not parameters_in(folder):
        return [Finding(f"the teacher {folder} has no weights", "pull it whole: hubcache pull TEACHER")]
    return _refused(lambda: label_columns(config_of(folder), task), "take another teacher")


def _refused(attempt: Any, cure: str) -> list[Finding]:
    try:
        attempt()
    except HubcacheError as error:
        return [_finding(error, cure)]
    return []


def _finding(error: HubcacheError, cure: str) -> Finding:
    return Finding(error.message, error.hint or cure)


def _disk(output: Path, parameters: int) -> Iterator[Finding]:
    """The best checkpoint, the last and the one being written stand beside each other, and the model at the end."""
    needed = _FLOAT * parameters * (3 * SAVED_STATES + 1)
    there = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        yield Finding(
            f"checkpoints take up to {_gib(needed)}, {there} has {_gib(free)} free",
            "make room, or write elsewhere: --output-dir DIR",
        )


def _memory(request: FinetuneRequest, config: Any, parameters: int) -> Iterator[Finding]:
    where = place(request.settings.precision)
    free = free_memory(where.device)
    task = limited(request.task, request.settings)
    needed = memory_needed(task, config, request.settings, parameters, int(task.option("max_length")))
    if free is not None and needed > free:
        yield Finding(
            f"a step at the longest takes about {_gib(needed)}, {_device(where)} has {_gib(free)} free",
            f"--set batch_size={max(1, request.settings.batch_size // 4)} --set gradient_accumulation="
            f"{request.settings.gradient_accumulation * 4} or --set gradient_checkpointing=true",
            # Rows are seldom all as long as they may be.
            fatal=_FLOAT * parameters * STATES > free,
        )


def _device(where: Place) -> str:
    return "the GPU" if where.device.type == "cuda" else "this machine"


def _numbers(shard: Path) -> int:
    """Read the sizes from the header: 8 bytes of its length, then JSON."""
    with shard.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
