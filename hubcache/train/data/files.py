"""Which files of a folder hold which split: by their names, or as a data set's card says; none is read but the card."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from hubcache.errors import UsageError
from hubcache.train.data.reading import READERS
from hubcache.train.tasks.nearest import nearest

_SPLITS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development", "testa"),
    "test": ("test", "testing", "testb"),
}
_WORDS = {word: split for split, words in _SPLITS.items() for word in words}
_BESIDE = re.compile(
    r"(?i)^(readme|license|licence|provenance|dataset_infos?|dataset_dict|state|config)\b|_answer\.json$"
)


def files_by_split(folder: Path, config: str = "") -> dict[str, list[Path]]:
    """Return the data files of each split, in the order of their names.

    The data set's card (README.md) decides where it names files; else the names do (`train.jsonl`,
    `data/train-00000-of-00002.parquet`, `x_dev.tsv`, `eng.testa`), in the folder, in `data`, or in a folder named like
    the config. Files that no name puts into a split are all training data. Raises: UsageError, with the configs.
    """
    carded = _carded(folder, config)
    if carded:
        return carded
    places = [folder / config] if config and (folder / config).is_dir() else [folder, folder / "data"]
    for place in places:
        found = _named(place)
        if found:
            return found
    configs = (
        sorted(each.name for each in folder.iterdir() if each.is_dir() and _named(each)) if folder.is_dir() else []
    )
    if len(configs) == 1 and not config:
        return _named(folder / configs[0])
    if configs:
        hint = nearest(config, configs) if config else f"name one: --config {configs[0]} (of {', '.join(configs)})"
        raise UsageError(f"{folder} has {len(configs)} configs and none is named", hint=hint)
    raise UsageError(f"{folder} has no data file", hint=f"files that are read end in {', '.join(READERS)}")


def split_of(name: str) -> str:
    """Return the split that a file's name says, "" where it says none."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    split = next((_WORDS[word] for word in words if word in _WORDS), "")
    if split and "mismatched" in words:
        return f"{split}_mismatched"
    return f"{split}_matched" if split and "matched" in words else split


def _named(place: Path) -> dict[str, list[Path]]:
    if not place.is_dir():
        return {}
    files = sorted(path for path in place.iterdir() if path.is_file() and not _is_beside(path))
    known = [path for path in files if path.suffix.lower() in READERS]
    split: dict[str, list[Path]] = {}
    for path in known or [path for path in files if split_of(path.name)]:
        split.setdefault(split_of(path.name), []).append(path)
    unnamed = split.pop("", [])
    if not split and unnamed:
        split = {"train": unnamed}
    for name, paths in split.items():
        endings = {path.suffix.lower() for path in paths}
        if len(endings) > 1:
            listed = ", ".join(path.name for path in paths)
            raise UsageError(f"{place} has {name} in several formats: {listed}", hint="name the files: --data FILE")
    return dict(sorted(split.items(), key=lambda pair: list(_SPLITS).index(pair[0].split("_")[0])))


def _is_beside(path: Path) -> bool:
    return path.name.startswith(".") or bool(_BESIDE.search(path.name))


def _carded(folder: Path, config: str) -> dict[str, list[Path]]:
    """Read `configs:` of the card, as the hub's data set viewer does."""
    configs = [one for one in card(folder).get("configs") or [] if isinstance(one, dict) and one.get("data_files")]
    if not configs:
        return {}
    names = [str(one.get("config_name", "default")) for one in configs]
    if config and config not in names:
        raise UsageError(f"{folder} has no config {config!r}", hint=nearest(config, names))
    default = next((place for place, one in enumerate(configs) if one.get("default")), None)
    if not config and len(names) > 1 and default is None and "default" not in names:
        raise UsageError(
            f"{folder} has {len(names)} configs", hint=f"name one: --config {names[0]} (of {', '.join(names)})"
        )
    place = names.index(config or "default") if (config or "default") in names else default or 0
    return _matching(folder, configs[place]["data_files"])


def _matching(folder: Path, data_files: Any) -> dict[str, list[Path]]:
    if isinstance(data_files, str):
        data_files = [{"split": "train", "path": data_files}]
    entries = [one if isinstance(one, dict) else {"split": "train", "path": one} for one in data_files]
    found: dict[str, list[Path]] = {}
    everything = sorted(path for path in folder.rglob("*") if path.is_file())
    for entry in entries:
        patterns = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
        paths = [path for path in everything if _is_matched(path.relative_to(folder).as_posix(), patterns)]
        if paths:
            found[str(entry.get("split", "train"))] = paths
    return found


def _is_matched(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern.replace("**/", "*")) for pattern in patterns)


def card(folder: Path) -> dict[str, Any]:
    """Return what stands between the dashes at the head of a folder's README.md; {} where there is nothing."""
    path = folder / "README.md"
    if not path.is_file():
        return {}
    parts = path.read_text("utf-8", errors="replace").split("\n---", 1)
    if not parts[0].startswith("---") or len(parts) < 2:
        return {}
    try:
        content = yaml.safe_load(parts[0].removeprefix("---"))
    except yaml.YAMLError:
        # A card that does not parse is no reason not to read the data: file names decide.
        return {}
    return content if isinstance(content, dict) else {}


def card_class_names(folder: Path, config: str = "") -> dict[str, tuple[str, ...]]:
    """Return the class names that a card's `dataset_info` gives for each column."""
    described = card(folder).get("dataset_info") or []
    entries = described if isinstance(described, list) else [described]
    named = [one for one in entries if isinstance(one, dict) and (not config or one.get("config_name") == config)]
    features = named[0].get("features") if named else None
    found: dict[str, tuple[str, ...]] = {}
    for feature in features if isinstance(features, list) else []:
        if not isinstance(feature, dict):
            continue
        names = _names(feature)
        if names:
            found[str(feature.get("name"))] = names
    return found


def _names(feature: dict[str, Any]) -> tuple[str, ...]:
    """The names are `dtype: {class_label: {names: {'0': neg}}}`, within `sequence` or `list` for a list's members."""
    kind = feature.get("dtype") or feature.get("sequence") or feature.get("list")
    if isinstance(kind, dict) and isinstance(kind.get("class_label"), dict):
        names = kind["class_label"].get("names") or {}
        ordered = [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else names
        return tuple(str(name) for name in ordered)
    return _names(kind) if isinstance(kind, dict) else ()
