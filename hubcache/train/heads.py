"""Model folders as models: the head that a task needs on the weights that are there; it trains none of them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from hubcache.errors import BadConfig, UsageError
from hubcache.train.settings import TrainSettings
from hubcache.train.sparse.loading import is_quantized_folder, load_quantized
from hubcache.train.sparse.quantization import is_quantized
from hubcache.train.tasks import Task, changed, head_of

CRF_HEAD = "T5EncoderForEntityRecognitionWithCRF"
TEXT_HEAD = "AutoModelForSeq2SeqLM"
_BARE_BACKBONE = ("encoder.", "decoder.", "shared.", "embed_tokens.")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model with its tokenizer; `new` are the parameters that the folder does not have and that were drawn."""

    model: Any
    tokenizer: Any
    head: str
    new: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """How many numbers the model holds."""
        return sum(int(parameter.numel()) for parameter in self.model.parameters())

    @property
    def is_quantized(self) -> bool:
        """Tell whether the model is quantised now."""
        return is_quantized(self.model)


def load(
    folder: Path,
    task: Task,
    *,
    trained: bool = False,
    changes: Mapping[str, Any] = MappingProxyType({}),
    weights: Path | None = None,
) -> Loaded:
    """Load a model folder with the task's head, in float32; `trained` says that the head must be in the folder.

    `changes` are laid over its configuration; `weights` is where the weights are, if not beside it (an adapter's).

    Raises: UsageError for a folder that holds no model for it.
    """
    config = config_of(folder, task, changes)
    head = head_of(task, config.model_type)
    model, new = model_of(class_of(head), weights or folder, config)
    _tell_generation(model, changes)
    _check_backbone(model, new, folder)
    if trained and new:
        raise UsageError(
            f"{folder} has no trained {head} for the task {task.name}: {', '.join(new[:3])} would be random",
            hint=f"fine-tune it first: hubcache finetune MODEL --task {task.name}",
        )
    return Loaded(model, tokenizer_of(folder), head, new)


def model_of(cls: Any, folder: Path, config: Any) -> tuple[Any, tuple[str, ...]]:
    """Make a model of a class and a folder's weights, in float32, quantised where they are.

    Return it, and the names of the parameters that the folder does not have.
    """
    with quietly():
        if is_quantized_folder(folder):
            return load_quantized(cls, folder, config)
        model, found = cls.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    return model, tuple(sorted({*found["missing_keys"], *(mismatch[0] for mismatch in found["mismatched_keys"])}))


def _tell_generation(model: Any, changes: Mapping[str, Any]) -> None:
    """Lay the changes over the generation's configuration, too: transformers makes it of the folder's files alone."""
    generation = getattr(model, "generation_config", None)
    for name, value in changes.items():
        if generation is not None and hasattr(generation, name):
            setattr(generation, name, value)


def config_of(folder: Path, task: Task | None = None, changes: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Return the folder's configuration, with what the task says of labels and problem. Raises: BadConfig."""
    importlib.import_module("hubcache.models")  # which tells the Auto classes of our families
    if not (folder / "config.json").is_file():
        raise BadConfig(f"{folder} is no model folder: it has no config.json", hint="hubcache ls shows what is cached")
    said = {**(task.model_config() if task else {}), **changes}
    try:
        with quietly():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **said)
    except (ValueError, KeyError, OSError) as error:
        raise BadConfig(f"the config.json in {folder} cannot be read: {error}") from error
    if task and head_of(task, config.model_type) == CRF_HEAD:
        config.crf_scores = True
    return config


def tokenizer_of(folder: Path) -> Any:
    """Return the folder's tokenizer. Raises: BadConfig."""
    try:
        with quietly():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise BadConfig(f"{folder} has no tokenizer that can be loaded: {error}") from error


def freeze_backbone(loaded: Loaded) -> int:
    """Exclude what the folder brought from training, the new head stays; return how many parameters still train.

    Raises: UsageError where nothing would.
    """
    for name, parameter in loaded.model.named_parameters():
        parameter.requires_grad_(name in loaded.new or not is_backbone(loaded.model, name))
    left = sum(int(parameter.numel()) for parameter in loaded.model.parameters() if parameter.requires_grad)
    if not left:
        raise UsageError(
            f"{loaded.head} has no head beside its backbone: frozen, nothing would train",
            hint="leave freeze_backbone out",
        )
    return left


def label_columns(config: Any, task: Task) -> tuple[int, ...]:
    """Return which of a trained model's outputs each of the task's labels is; () where they are in the same order.

    Names count whatever their case; a model without names (LABEL_0, …) is taken to have the task's order.
    Raises: UsageError where the model knows other labels.
    """
    names = [str(config.id2label[number]).lower() for number in sorted(config.id2label)]
    wanted = [name.lower() for name in task.labels]
    unnamed = all(name == f"label_{number}" for number, name in enumerate(names))
    if not wanted or task.generates or names == wanted or (unnamed and len(names) == len(wanted)):
        return ()
    if sorted(names) != sorted(wanted):
        raise UsageError(
            f"the model tells {len(names)} labels apart ({', '.join(names[:6])}), the task {task.name} {len(wanted)}"
            f" ({', '.join(wanted[:6])})",
            hint=f"fine-tune it first: hubcache finetune MODEL --task {task.name}",
        )
    return tuple(names.index(name) for name in wanted)


def limited(task: Task, settings: TrainSettings) -> Task:
    """Return the task with the settings' limits of length, where they set any."""
    limits = {"options.max_length": settings.max_length, "options.max_target_length": settings.target_length}
    return changed(task, {name: limit for name, limit in limits.items() if limit})


@contextmanager
def quietly() -> Iterator[None]:
    """Hold back transformers' reports and bars of loading and saving: what is new is told by us."""
    log = transformers.utils.logging
    level, has_bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if has_bars:
            log.enable_progress_bar()


def class_of(head: str) -> Any:
    """Return the class of that name, transformers' or ours. Raises: UsageError."""
    for module in (transformers, importlib.import_module("hubcache.models")):
        if hasattr(module, head):
            return getattr(module, head)
    raise UsageError(f"there is no model class {head}", hint="an Auto class of transformers or one of hubcache.models")


def _check_backbone(model: Any, new: Sequence[str], folder: Path) -> None:
    backbone = [name for name, _ in model.named_parameters() if is_backbone(model, name)]
    lost = [name for name in backbone if name in set(new)]
    # A pooler may be new; half a backbone is a folder of some other model.
    if len(lost) > len(backbone) / 2:
        raise UsageError(
            f"the weights in {folder} are not {type(model).__name__}'s: {len(lost)} of {len(backbone)} are missing,"
            f" as {lost[0]}",
            hint="hubcache verify tells whether the folder is whole",
        )


def is_backbone(model: Any, name: str) -> bool:
    """Tell whether a parameter of that name is the backbone's, not the head's."""
    if model.base_model is not model:
        return name.startswith(f"{model.base_model_prefix}.")
    return name.startswith(_BARE_BACKBONE)
