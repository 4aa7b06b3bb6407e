"""The small files of a converted repo: configs as JSON, and for portable ones the modelling code; no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubcache.convert.families import Family
from hubcache.core.artifact import RepoPath

CONFIG = RepoPath("config.json")
TOKENIZER_CONFIG = RepoPath("tokenizer_config.json")
GENERATION_CONFIG = RepoPath("generation_config.json")

_MODELS = Path(__file__).parents[1] / "models"
_OURS = ("Sbert", "Palm", "Veco")
# Today's class of this name reads blanks otherwise than VECO's originals did.
_REPLACED = {"VecoTokenizer": ("XLMRoberta",), "VecoNlgTokenizer": ("XLMRoberta",)}


def to_json(value: Mapping[str, Any]) -> bytes:
    """Write JSON in one way only, so that the same content gives the same commit."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def modelling_code(family: Family) -> dict[RepoPath, bytes]:
    """Read the files that trust_remote_code runs."""
    return {RepoPath(name): (_MODELS / name).read_bytes() for name in family.modules}


def tokenizer_config(
    original: Mapping[str, Any] | None, family: Family, *, has_vocabulary: bool, portable: bool
) -> dict[str, Any] | None:
    """Return the tokenizer_config.json to write; None where the original's stays, or where there is no tokenizer.

    Without a vocabulary there is none to configure: transformers would make one of five words.
    """
    if original is None and not (family.tokenizer and has_vocabulary):
        return None
    wanted = str(family.tokenizer.get("tokenizer_class", ""))
    # Code of the archive's own is not carried over, and must not be named.
    made = {key: value for key, value in (original or family.tokenizer).items() if key != "auto_map"}
    named = str(made.get("tokenizer_class") or _OURS[0])
    if wanted and named.startswith((*_OURS, *_REPLACED.get(wanted, ()))):
        made["tokenizer_class"] = wanted
    if portable and wanted.startswith(_OURS) and made.get("tokenizer_class") == wanted:
        made["auto_map"] = {"AutoTokenizer": [f"{family.modules[0].removesuffix('.py')}.{wanted}", None]}
    return None if made == original else made
