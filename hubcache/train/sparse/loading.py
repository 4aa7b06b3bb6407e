"""Folders whose weights were trained quantised, as models again; transformers loads all others."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from hubcache.errors import UsageError
from hubcache.train.sparse.quantization import definitions, has_quantization, load_state
from hubcache.train.sparse.tuning import recipe_beside

SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
OLD, OLD_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def is_quantized_folder(folder: Path) -> bool:
    """Tell whether a folder's weights hold scales of fake quantisation: SparseML's, or ours, which have its names."""
    return folder.is_dir() and has_quantization(weight_names(folder))


def load_quantized(cls: Any, folder: Path, config: Any) -> tuple[Any, tuple[str, ...]]:
    """Make a model of a class, quantised as the folder's recipe says or, without one, as its weights' names tell.

    Return it in float32, and the names of the parameters that were drawn, for the folder does not have them.
    """
    model = drawn(cls, config)
    recipe = recipe_beside(folder)
    return model, tuple(sorted(load_state(model, read_weights(folder), definitions(recipe) if recipe else ())))


def drawn(cls: Any, config: Any) -> Any:
    """Make a model of a class with random weights, in float32."""
    return (cls.from_config if hasattr(cls, "from_config") else cls._from_config)(config, dtype=torch.float32)


def weight_names(folder: Path) -> list[str]:
    """List the tensors of a folder's weights, [] where it has none. Nothing is loaded."""
    for index in (SAFE_INDEX, OLD_INDEX):
        if (folder / index).is_file():
            return list(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"])
    if (folder / SAFE).is_file():
        with (folder / SAFE).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            return [name for name in json.loads(file.read(length)) if name != "__metadata__"]
    return list(_old_weights(folder / OLD)) if (folder / OLD).is_file() else []


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read a folder's weights, in shards or not. Raises: UsageError where there are none."""
    for index in (SAFE_INDEX, OLD_INDEX):
        if (folder / index).is_file():
            names = sorted(set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()))
            return {name: value for shard in names for name, value in _read(folder / shard).items()}
    for name in (SAFE, OLD):
        if (folder / name).is_file():
            return _read(folder / name)
    raise UsageError(f"{folder} has no weights", hint="pull it whole: hubcache pull MODEL")


def _read(path: Path) -> dict[str, Tensor]:
    return load_file(path) if path.suffix == ".safetensors" else _old_weights(path)


def _old_weights(path: Path) -> dict[str, Tensor]:
    # No pickled code runs: with weights_only torch takes tensors alone.
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    except RuntimeError:
        # Files of before torch 1.6 are no archives, and cannot be mapped.
        return dict(torch.load(path, map_location="cpu", weights_only=True))
