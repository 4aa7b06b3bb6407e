"""One original checkpoint: planned without reading its weights, then converted tensor by tensor; it publishes nothing.

Every tensor of the original is accounted for: written, or left out with the reason in the report. One that has no
place, is missing or has the wrong shape ends the conversion, with all of them in one error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubcache.convert.configs import Config, label_issues, labels, palm_tokens, repaired
from hubcache.convert.detect import (
    DICTIONARY,
    SAFETENSORS,
    detect_family,
    first_architecture,
    is_converted,
    is_left_behind,
    read_json,
    weight_files,
)
from hubcache.convert.fairseq import read_fairseq
from hubcache.convert.families import FAMILIES, Family, FamilyName
from hubcache.convert.layouts import Comparison, compare
from hubcache.convert.pickles import Pickled, read_pickle
from hubcache.convert.renaming import rename_all
from hubcache.convert.report import Report
from hubcache.convert.safetensors import Serialized, read_safetensors
from hubcache.convert.tensors import StoredTensor
from hubcache.convert.texts import (
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER_CONFIG,
    modelling_code,
    to_json,
    tokenizer_config,
)
from hubcache.core.artifact import RepoPath
from hubcache.errors import IntegrityError

Write = Callable[[RepoPath, Iterable[bytes], int], None]
"""Takes a file: its path in the repo, its bytes in chunks, its size."""

# What stands beside the tensors in checkpoints of training, and no model needs.
_TRAINING = {
    "args", "best_score", "cfg", "config", "criterion", "epoch", "extra_state", "global_step", "iteration",
    "last_optimizer_state", "lr_scheduler", "optimizer", "optimizer_history", "rng_state", "scaler", "scheduler",
    "step", "task_state",
}  # fmt: skip
_SMALL_FILES = 1 << 20


def plan_conversion(files: Mapping[RepoPath, Path], *, name: str, portable: bool = False) -> Checkpoint | None:
    """Recognise an original checkpoint among a repo's files (path in the repo to file); None where there is none.

    Reads config.json and names, no weights. `name` (of the repo, of its source) tells the family where the config
    does not. `portable` adds the modelling code, for machines without hubcache.

    Raises:
        EntryNotFound: config.json cannot be read.
        IntegrityError: config.json is broken, or an index names weights that are not there.
    """
    config = read_json(files[CONFIG]) if CONFIG in files else None
    detected = detect_family(config, files.keys(), name)
    if CONFIG in files and config is None and detect_family({}, files.keys(), name) is not None:
        raise IntegrityError(f"config.json of {name} holds no JSON object")
    if detected is None:
        return None
    family, weights = FAMILIES[detected], weight_files(files)
    if not weights or is_converted(family, config, weights, portable=portable):
        return None
    tokenizer = _tokenizer_config(family, files, portable=portable)
    replaced = {
        CONFIG,
        *weights,
        *([] if tokenizer is None else [TOKENIZER_CONFIG]),
        *(family.modules if portable else ()),
    }
    return Checkpoint(
        family=detected,
        files=dict(files),
        weights=weights,
        kept=tuple(path for path in files if path not in replaced and not is_left_behind(path)),
        config=config,
        tokenizer=tokenizer,
        portable=portable,
    )


def _tokenizer_config(family: Family, files: Mapping[RepoPath, Path], *, portable: bool) -> Config | None:
    original = read_json(files[TOKENIZER_CONFIG]) if TOKENIZER_CONFIG in files else None
    return tokenizer_config(original, family, has_vocabulary=family.vocabulary in files, portable=portable)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is to be converted: all files, which of them hold the weights, and which are kept as they are.

    `config` is None where fairseq's arguments take its place, `tokenizer` where there is nothing to write.
    """

    family: FamilyName
    files: Mapping[RepoPath, Path]
    weights: tuple[RepoPath, ...]
    kept: tuple[RepoPath, ...]
    config: Mapping[str, Any] | None
    tokenizer: Mapping[str, Any] | None
    portable: bool = False

    @property
    def size(self) -> int:
        """Bytes that the new files take, at most."""
        return sum(self.files[path].stat().st_size for path in self.weights) + _SMALL_FILES

    def convert(self, write: Write) -> Report:
        """Hand every new file to `write`; none where there is an issue.

        Raises:
            IntegrityError: the weights cannot be read safely or completely, or are not what their family's are;
                `issues` names each tensor.
        """
        original = _read(self)
        family, changes = FAMILIES[self.family], repaired(original.config)
        renamed = rename_all(original.tensors, family.naming)
        shapes = {name: tensor.shape for name, tensor in renamed.tensors.items()}
        layout = family.layout(changes.config)
        compared = compare(layout, shapes)
        head = _head(family, changes.config, compared)
        self._raise((*original.issues, *renamed.issues, *compared.issues, *label_issues(changes.config, head.labels)))
        weights = Serialized(renamed.tensors)
        texts = self._texts(_config(self, changes.config, head), changes.generation)
        for path, content in texts.items():
            write(path, [content], len(content))
        write(SAFETENSORS, weights, weights.size)
        absent = tuple(name for name in layout.groups if name.endswith(".pooler") and name not in compared.groups)
        return Report(
            renamed=renamed.pairs,
            ignored=(*renamed.ignored, *original.ignored),
            missing=absent,
            left_behind=tuple(path for path in self.files if path not in self.weights and is_left_behind(path)),
            notes=(*original.notes, *changes.notes, *_casts(weights)),
        )

    def _texts(self, config: Config, generation: Config) -> dict[RepoPath, bytes]:
        """Return the small files to write."""
        files = {CONFIG: to_json(config)}
        if self.tokenizer is not None:
            files[TOKENIZER_CONFIG] = to_json(self.tokenizer)
        if generation and GENERATION_CONFIG not in self.kept:
            files[GENERATION_CONFIG] = to_json(generation)
        return {**files, **(modelling_code(FAMILIES[self.family]) if self.portable else {})}

    def _raise(self, issues: tuple[str, ...]) -> None:
        if not issues:
            return
        shown = "; ".join(issues[:3]) + (f"; and {len(issues) - 3} more" if len(issues) > 3 else "")
        raise IntegrityError(f"{', '.join(self.weights)} is no whole {self.family} checkpoint: {shown}", issues=issues)


@dataclass(frozen=True, slots=True)
class _Original:
    """What the files of a checkpoint say, before anything is made of it."""

    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    ignored: tuple[tuple[str, str], ...]
    issues: tuple[str, ...]
    notes: tuple[str, ...] = ()


def _read(checkpoint: Checkpoint) -> _Original:
    tensors: dict[str, StoredTensor] = {}
    others: dict[str, Any] = {}
    issues: list[str] = []
    for path in checkpoint.weights:
        stored = _read_file(path, checkpoint.files[path])
        issues += [f"{name}: in more than one file" for name in stored.tensors.keys() & tensors.keys()]
        tensors |= stored.tensors
        others |= stored.others
    issues += [f"{name}: a {type(value).__name__}" for name, value in others.items() if name not in _TRAINING]
    ignored = tuple((name, "what training needs, and a model does not") for name in others if name in _TRAINING)
    if checkpoint.config is not None:
        return _Original(checkpoint.config, tensors, ignored, tuple(issues))
    made = read_fairseq(Pickled(tensors, others), checkpoint.files[DICTIONARY])
    return _Original(made.config, made.tensors, ignored, tuple(issues), made.notes)


def _read_file(path: RepoPath, file: Path) -> Pickled:
    return Pickled(read_safetensors(file), {}) if path.endswith(".safetensors") else read_pickle(file)


@dataclass(frozen=True, slots=True)
class _Head:
    """The class that loads all of a checkpoint, and the classes that its heads tell apart; None for none."""

    architecture: str
    labels: int | None
    pairs: int | None


def _head(family: Family, config: Mapping[str, Any], compared: Comparison) -> _Head:
    architecture = family.architecture(first_architecture(config), compared.groups)
    lengths = dict(compared.lengths)
    pairs = lengths.pop("cls.seq_relationship", None)
    # One score for each choice: that is no number of classes.
    counted = None if architecture.endswith("ForMultipleChoice") else next(iter(lengths.values()), None)
    return _Head(architecture, counted, pairs)


def _config(checkpoint: Checkpoint, config: Config, head: _Head) -> Config:
    family = FAMILIES[checkpoint.family]
    made = {**config, "model_type": family.model_type, "architectures": [head.architecture], "dtype": "float32"}
    # What the archive calls the tokenizer is in tokenizer_config.json, under today's name.
    made.pop("tokenizer_class", None)
    made |= labels(config, head.labels)
    if head.pairs is not None:
        made["seq_relationship_size"] = head.pairs
    if checkpoint.family == "palm":
        vocabulary = checkpoint.files.get(RepoPath(family.vocabulary))
        made = {**palm_tokens(vocabulary), **made, "is_encoder_decoder": True}
    if checkpoint.portable:
        made["auto_map"] = family.auto_map(head.architecture)
    return made


def _casts(weights: Serialized) -> tuple[str, ...]:
    types = sorted({tensor.dtype for tensor in weights.tensors.values()} - {"F32"})
    return (
        (f"stored as {', '.join(types)}, as published, and computed in float32 (dtype in config.json)",)
        if types
        else ()
    )
