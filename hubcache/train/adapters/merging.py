"""An adapter and its base as one model folder without adapters; the cache is not known here."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig

from hubcache.errors import BadConfig, UsageError
from hubcache.train.adapters import adapted, lora
from hubcache.train.adapters.base import AdapterFile, base_of_folder, check_base
from hubcache.train.adapters.switching import fill
from hubcache.train.heads import class_of, quietly, tokenizer_of


def write_merged(folder: Path, base: Path, output: Path, *, any_base: bool = False) -> None:
    """Write the sum of an adapter and its base, with the adapter's head, labels and tokenizer.

    Raises: UsageError for a bottleneck adapter or a prompt, or another base (`any_base` takes it).
    """
    file = AdapterFile.read(folder)
    if not file.is_peft:
        raise UsageError(
            f"{folder} is a {file.told.get('adapter')} adapter: it has a non-linearity of its own, which no weight of"
            " the base can take up",
            hint="use it over its base, as hubcache evaluate does, or train --adapter lora",
        )
    if file.is_prompt:
        raise UsageError(
            f"{folder} is a prompt or a prefix: it stands before the input, and no weight of the base can take it up",
            hint="use it over its base, as hubcache evaluate does, or train --adapter lora",
        )
    lora.require_peft()
    if not any_base:
        check_base(file.base, base_of_folder(base))
    with quietly():
        config = AutoConfig.from_pretrained(
            folder if (folder / "config.json").is_file() else base, local_files_only=True, trust_remote_code=False
        )
        if not config.architectures:
            raise BadConfig(f"the config.json in {folder} names no architecture")
        model = class_of(config.architectures[0]).from_pretrained(
            base, config=config, dtype=torch.float32, local_files_only=True, ignore_mismatched_sizes=True
        )
        name, beside = adapted.load(model, folder)
        fill(model, beside)
        adapted.activate(model, [name])
        lora.merge(model)
        model.save_pretrained(output)
        tokenizer_of(folder if (folder / "tokenizer_config.json").is_file() else base).save_pretrained(output)
