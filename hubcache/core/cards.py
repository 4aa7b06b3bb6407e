"""What a hub's answer, a model card and a config.json tell of a repo, made into one About; no file is opened here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from hubcache.core.about import About
from hubcache.core.artifact import Kind
from hubcache.core.plainyaml import parse_yaml

LARGEST_TOLD = 64 << 10
"""Bytes of JSON that are kept of what a hub told."""

_DEEPEST = 16
_GATE = "extra_gated_"
_CLOSING = re.compile(r"^---[ \t]*$", re.MULTILINE)
_EMPTY: Mapping[str, Any] = MappingProxyType({})

_LIBRARIES = {
    "adapter_config.json": "peft",
    "model_index.json": "diffusers",
    "config_sentence_transformers.json": "sentence-transformers",
}
_FORMATS = {".safetensors": "safetensors", ".onnx": "onnx", ".gguf": "gguf"}
_TASKS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForImageClassification": "image-classification",
    "ForCTC": "automatic-speech-recognition",
}
# What becomes `key:value` among the tags; a model's languages stand there bare.
_MODEL_KEYS = {"language": "", "datasets": "dataset:", "base_model": "base_model:", "license": "license:"}
_OTHER_KEYS = {
    key: f"{key}:"
    for key in (
        *("task_categories", "task_ids", "language", "license", "size_categories", "multilinguality"),
        *("annotations_creators", "language_creators", "source_datasets"),
    )
}


@dataclass(frozen=True, slots=True)
class Card:
    """The front matter of a README.md, and whether it asks for conditions: the Hub makes such a repo gated."""

    front: Mapping[str, Any] = field(default_factory=dict)
    is_gated: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """What the cache itself shows of a commit: its card, config.json, file names and times in unix seconds."""

    card: Card = field(default_factory=Card)
    config: Mapping[str, Any] = field(default_factory=dict)
    paths: Collection[str] = ()
    created: float | None = None
    modified: float | None = None


def parse_date(text: object) -> float | None:
    """Read an ISO date, UTC where it names no zone, as unix seconds; None for anything else, and before 1970."""
    if not isinstance(text, str) or len(text) > 40:
        return None
    try:
        date = datetime.fromisoformat(text)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if seconds >= 0 else None


def select_told(answer: object) -> dict[str, Any] | None:
    """Pick out of a hub's answer what lasts, as plain JSON of bounded size; None where it tells nothing.

    What has the wrong type is left out, but a repo that is closed in whatever words stays closed.
    Counts of downloads and likes are no part of it: they differ with every answer.
    """
    if not isinstance(answer, Mapping):
        return None
    told = {key: value for key, read in _TOLD.items() if (value := read(answer.get(key))) is not None}
    for key in ("cardData", "tags"):
        if len(json.dumps(told)) > LARGEST_TOLD:
            told.pop(key, None)
    return told or None


def parse_card(text: str) -> Card:
    """Read a README's front matter; one that cannot be read tells nothing, but may still ask for conditions."""
    text = text.removeprefix("\ufeff").lstrip().replace("\r\n", "\n").replace("\r", "\n")
    opening, _, rest = text.partition("\n")
    if opening.rstrip() != "---":
        return Card()
    closing = _CLOSING.search(rest)
    block = rest[: closing.start()] if closing else rest
    try:
        front = _plain(parse_yaml(block)) if closing else None
    except ValueError:
        front = None
    if not isinstance(front, dict):
        return Card(is_gated=_GATE in block)
    return Card(front, any(key.startswith(_GATE) for key in front))


def select_config(config: object) -> dict[str, Any]:
    """Pick model_type and architectures out of a config.json."""
    if not isinstance(config, Mapping):
        return {}
    found = {"model_type": _text(config.get("model_type")), "architectures": _texts(config.get("architectures"))}
    return {key: value for key, value in found.items() if value}


def about_of(kind: Kind, hub: str, told: Mapping[str, Any], newest: Mapping[str, Any], held: Held) -> About:
    """Combine what the hub told of the commit with what the cache shows; where both speak, the hub is right.

    Who may have a repo is no matter of one commit: what was told last of any of them (`newest`) closes this one, too.
    """
    card = told.get("cardData") or held.card.front
    library = told.get("library_name") or (_library(card, held) if kind == "model" else None)
    task = told.get("pipeline_tag") or (_task(card, held) if kind == "model" else None)
    gated = held.card.is_gated and "manual" if told.get("gated") is None else told["gated"]
    created, modified = parse_date(told.get("createdAt")), parse_date(told.get("lastModified"))
    return About(
        hub=hub,
        private=bool(told.get("private") or newest.get("private")),
        gated=gated or newest.get("gated") or False,
        created=held.created if created is None else created,
        modified=held.modified if modified is None else modified,
        tags=tuple(told.get("tags") or _tags(kind, card, held, (library, task))),
        pipeline_tag=task,
        library=library,
        sdk=told.get("sdk") or _text(card.get("sdk")),
        card=MappingProxyType(dict(card)),
        config=MappingProxyType(dict(held.config)),
    )


def _library(card: Mapping[str, Any], held: Held) -> str | None:
    found = [library for name, library in _LIBRARIES.items() if name in held.paths]
    return _text(card.get("library_name")) or next(iter(found), "transformers" if held.config else None)


def _task(card: Mapping[str, Any], held: Held) -> str | None:
    names = held.config.get("architectures", ())
    found = [task for ending, task in _TASKS.items() if any(name.endswith(ending) for name in names)]
    return _text(card.get("pipeline_tag")) or next(iter(found), None)


def _tags(kind: Kind, card: Mapping[str, Any], held: Held, first: Iterable[str | None]) -> Iterable[str]:
    """Write the tags as the Hub derives them."""
    formats = [tag for ending, tag in _FORMATS.items() if any(path.endswith(ending) for path in held.paths)]
    model_type = held.config.get("model_type") if kind == "model" else None
    tags = [*first, model_type, *(formats if kind == "model" else ()), *_texts(card.get("tags"))]
    for key, prefix in (_MODEL_KEYS if kind == "model" else _OTHER_KEYS).items():
        tags += [prefix + value for value in _texts(card.get(key))]
    return dict.fromkeys(tag for tag in tags if tag)


def _plain(value: object, depth: int = 0) -> Any:
    """Copy what is plain JSON and no deeper than it has reason to be; None for the rest."""
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int) or depth >= _DEEPEST:
        return value if isinstance(value, bool | int) else None
    if isinstance(value, Mapping):
        return {_encodable(str(key)): _plain(each, depth + 1) for key, each in value.items()}
    return [_plain(each, depth + 1) for each in value] if isinstance(value, list) else None


def _encodable(text: str) -> str:
    """Replace half characters, which JSON can name and UTF-8 cannot write."""
    return text.encode("utf-8", "replace").decode()


def _text(value: object) -> str | None:
    return _encodable(value) if isinstance(value, str) and 0 < len(value) <= 256 else None


def _texts(value: object) -> list[str]:
    """Read a text, or a list of them; what is none of a list is left out."""
    values = value if isinstance(value, list) else [value]
    return [text for each in values if (text := _text(each)) is not None]


def _list(value: object) -> list[str] | None:
    return _texts(value) if isinstance(value, list) else None


def _switch(value: object) -> bool | None:
    return None if value is None else bool(value)


def _gate(value: object) -> bool | str | None:
    if not value:
        return None if value is None else False
    return str(value) if value in ("auto", "manual") else "manual"


def _date(value: object) -> str | None:
    return str(value) if parse_date(value) is not None else None


def _mapping(value: object) -> dict[str, Any] | None:
    return _plain(value) or None if isinstance(value, Mapping) else None


_TOLD: dict[str, Callable[[object], Any]] = {
    "private": _switch,
    "gated": _gate,
    "disabled": _switch,
    "tags": _list,
    "pipeline_tag": _text,
    "library_name": _text,
    "createdAt": _date,
    "lastModified": _date,
    "cardData": _mapping,
    "sdk": _text,
}
