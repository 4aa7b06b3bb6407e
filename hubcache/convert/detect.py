"""Which family a repo's files belong to and which of them hold the weights, by config and names; reads no weights."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hubcache.convert.families import Family, FamilyName
from hubcache.convert.layouts import T5_ARCHITECTURES
from hubcache.core.artifact import RepoPath
from hubcache.errors import EntryNotFound, IntegrityError

SAFETENSORS = RepoPath("model.safetensors")
DICTIONARY = RepoPath("dict.txt")
_FAIRSEQ = RepoPath("model.pt")

# In order of preference; an index names its shards.
_WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "palm_model.pt", "pytorch_model.bin",
    "pytorch_model.bin.index.json", "best_model.pth", "weights/best_model.pth", "checkpoint.pth",
    "weights/checkpoint.pth", "model.pt",
)  # fmt: skip
_INDEX = ".index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

_OWN: Mapping[str, FamilyName] = {"sbert": "sbert", "palm": "palm", "veco": "veco", "veco_nlg": "veco_nlg"}
# What an original's config may say that it is, where its name says that it is ours.
_FOREIGN: Mapping[str, FamilyName] = {"bert": "sbert", "xlm-roberta": "veco", "roberta": "veco"}
_CLASSES: Mapping[str, FamilyName] = {"Sbert": "sbert", "Palm": "palm", "Veco": "veco"}
_NAMES: Mapping[FamilyName, re.Pattern[str]] = {
    "sbert": re.compile(r"(?<![a-z])(struct|s)bert(?![a-z])"),
    "palm": re.compile(r"(?<![a-z])palm(?![a-z])"),
    "veco": re.compile(r"(?<![a-z])veco(?![a-z])"),
}
# Sentence-BERT is called SBERT, too.
_SENTENCE_BERT = {"modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"}


def detect_family(config: Mapping[str, Any] | None, paths: Collection[RepoPath], name: str) -> FamilyName | None:
    """Name the family, None where it is none of ours; `name` tells where the config does not."""
    if config is None:
        return "veco_nlg" if {_FAIRSEQ, DICTIONARY} <= set(paths) else None
    architecture, model_type = first_architecture(config), config.get("model_type")
    if not isinstance(model_type, str | None):
        return None
    if architecture in T5_ARCHITECTURES and model_type in {"t5", "t5_encoder"}:
        return "t5_encoder"
    if model_type is not None and model_type in _OWN:
        return _OWN[model_type]
    named = _named_family(f"{name} {' '.join(paths)}".lower(), paths)
    if model_type is not None:
        return named if named is not None and _FOREIGN.get(model_type) == named else None
    told = next((family for prefix, family in _CLASSES.items() if architecture.startswith(prefix)), None)
    return told or ("palm" if RepoPath("palm_model.pt") in paths else named)


def _named_family(text: str, paths: Collection[RepoPath]) -> FamilyName | None:
    found = next((family for family, pattern in _NAMES.items() if pattern.search(text)), None)
    return None if found == "sbert" and _SENTENCE_BERT & set(paths) else found


def first_architecture(config: Mapping[str, Any]) -> str:
    """Return the class that a config names, "" where it names none."""
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    return first if isinstance(first, str) else ""


def is_converted(
    family: Family, config: Mapping[str, Any] | None, weights: Collection[RepoPath], *, portable: bool
) -> bool:
    """Tell whether from_pretrained loads the files as they are, and with their own code where that is wanted."""
    if config is None or not all(path.endswith(".safetensors") for path in weights):
        return False
    is_ours = config.get("model_type") == family.model_type and first_architecture(config) != ""
    return is_ours and ("auto_map" in config or not portable)


def weight_files(files: Mapping[RepoPath, Path]) -> tuple[RepoPath, ...]:
    """Return the files that hold the weights: one, the shards that an index names, or none.

    Raises:
        IntegrityError: a shard that the index names is not there.
    """
    found = next((RepoPath(name) for name in _WEIGHTS if name in files), None)
    if found is None:
        return ()
    if not found.endswith(_INDEX):
        return (found,)
    names = (read_json(files[found]) or {}).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise IntegrityError(f"{found} has no weight_map")
    shards = tuple(sorted({RepoPath(name) for name in names.values()}))
    if missing := [shard for shard in shards if shard not in files]:
        raise IntegrityError(f"{found} names files that are not there: {', '.join(missing)}", issues=missing)
    return shards


def is_left_behind(path: RepoPath) -> bool:
    """Tell whether a converted repo does without this file: a pickle, code, or an index of shards."""
    return path.endswith((*_PICKLES, ".py")) or (path.endswith(_INDEX) and "/" not in path)


def read_json(file: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where the file holds anything else.

    Raises:
        EntryNotFound: the file cannot be read.
    """
    try:
        value = json.loads(file.read_bytes())
    except OSError as error:
        raise EntryNotFound(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
