"""Checkpoints in ke-t5-downstreams' format, written whole or not at all, and read without running what is in them."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hubcache.errors import UsageError


def save_checkpoint(path: Path, told: Mapping[str, Any]) -> None:
    """Write a checkpoint: epoch (the next one), state_dict, best_score, optimizer, scheduler, pre_trained_model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    torch.save(dict(told), partial)
    os.replace(partial, path)


def copy_whole(path: Path, to: Path) -> None:
    """Copy a file that is there whole or not at all."""
    partial = to.with_name(f"{to.name}.partial")
    shutil.copyfile(path, partial)
    os.replace(partial, to)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, of any number of processes (the original's keep DDP's `module.`). Raises: UsageError."""
    try:
        told: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise UsageError(f"{path} is no checkpoint that can be read: {error}") from error
    told["state_dict"] = {name.removeprefix("module."): value for name, value in told["state_dict"].items()}
    return told


def load_weights(model: Any, weights: Mapping[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into a model. Raises: UsageError for a checkpoint of another model."""
    try:
        found = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise UsageError(f"{path} is of another model than {type(model).__name__}: {error}") from error
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = set(found.missing_keys) - tied
    if missing:
        raise UsageError(
            f"{path} is of another model than {type(model).__name__}: it lacks {', '.join(sorted(missing)[:3])}",
            hint="name the class it was trained with: --model_name module:Class",
        )
