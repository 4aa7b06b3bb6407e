"""A model class, a task and its rows put together as the two command lines name them; nothing is trained here."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, set_seed

from hubcache.compat.ke_t5 import load_model
from hubcache.compat.ke_t5.bindings import get_dataset, get_vocabulary, read_bindings
from hubcache.compat.ke_t5.places import data_folder, model_folder
from hubcache.errors import BadReference, HubcacheError
from hubcache.models.t5_encoder import T5EncoderRelationHead
from hubcache.train.data.prepare import Choices, TaskData, read_task_data
from hubcache.train.device import Place, place
from hubcache.train.features import Encoded, encode, make_collator
from hubcache.train.features.collate import Collator
from hubcache.train.heads import CRF_HEAD, quietly, tokenizer_of
from hubcache.train.predictions import read
from hubcache.train.scoring import Scored, reading_for, scored_of
from hubcache.train.settings import TrainSettings
from hubcache.train.tasks import Row, Task, changed, load_task


@dataclass(frozen=True, slots=True)
class Bench:
    """What a command works on: where it computes, the task with its lengths, model, tokenizer and batches."""

    place: Place
    task: Task
    model: Any
    tokenizer: Any
    batch_size: int

    @property
    def collate(self) -> Collator:
        """What makes batches; those of a relation head are padded in full, for its scores count the padding."""
        made = make_collator(self.task, self.tokenizer)
        padded = isinstance(self.model, T5EncoderRelationHead)
        return replace(made, to=int(self.task.option("max_length"))) if padded else made

    def encoded(self, rows: Sequence[Row]) -> Encoded:
        """Return rows as the model takes them."""
        start = getattr(self.model.config, "decoder_start_token_id", None)
        return encode(self.task, rows, self.tokenizer, decoder_start=start)

    def score(self, encoded: Encoded, generation: Mapping[str, Any] | None = None) -> Scored:
        """Score rows over all processes as one corpus; without `generation` texts are read with their targets given."""
        settings = TrainSettings(eval_batch_size=self.batch_size, generate=False)
        reading = replace(reading_for(self.task, settings, self.place), generation=generation)
        return scored_of(self.task, encoded, read(self.model, encoded, self.collate, reading), self.tokenizer)

    def say(self, line: str) -> None:
        """Say something once, however many processes there are."""
        if self.place.is_first:
            print(line, file=sys.stderr, flush=True)


def start(options: argparse.Namespace) -> Task:
    """Import what the user named, read the gin bindings and return the task by its lengths. Raises: UsageError."""
    for name in options.module_import:
        import_module(name)
    read_bindings(options.gin_file, options.gin_param, options.module_import)
    lengths = get_dataset()
    limits = {"options.max_length": lengths["inputs"], "options.max_target_length": lengths["targets"]}
    return changed(load_task(options.task), limits)


def import_module(name: str) -> None:
    """Import a user's module, found from the current folder as well. Raises: BadReference."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise
        raise BadReference(f"there is no module {name}", hint="run from the folder that holds it") from error


def read_rows(task: Task, root: str, splits: Mapping[str, str]) -> TaskData:
    """Read a task's rows by role (train, validation, test)."""
    return read_task_data(task, data_folder(task, Path(root)), Choices(splits=splits))


def make_bench(options: argparse.Namespace, task: Task, weights: str) -> Bench:
    """Load the class that --model_name says from `weights`, a repo or folder, with the task's labels."""
    set_seed(options.seed)
    with quietly():
        model = load_weights_of(options.model_name, weights, task)
    where = place("fp32")
    tokenizer = tokenizer_of(model_folder(get_vocabulary() or weights))
    bench = Bench(where, task, model.to(where.device), tokenizer, options.batch_size)
    for note in options.notes:
        bench.say(note)
    return bench


def load_weights_of(model_name: str, weights: str, task: Task) -> Any:
    """Return the model in float32; a head that the weights lack is drawn from the seed. Raises: UsageError."""
    cls: Any = load_model(model_name)
    folder = model_folder(weights)
    kind = getattr(cls, "config_class", None) or AutoConfig
    config = kind.from_pretrained(folder, local_files_only=True, **task.model_config())
    if cls.__name__ == CRF_HEAD:
        config.crf_scores = True
    return cls.from_pretrained(
        folder, config=config, dtype=torch.float32, local_files_only=True, ignore_mismatched_sizes=True
    )


def run_command(command: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> int:
    """Run a command and return its exit code: 1 with the message on stderr for what the user can mend."""
    try:
        command(arguments)
    except HubcacheError as error:
        print(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    finally:
        if torch.distributed.is_initialized():
            with suppress(RuntimeError):
                torch.distributed.destroy_process_group()
    return 0


def tell_scores(task: Task, metrics: Mapping[str, float], rows: int) -> None:
    """Print the figures as one JSON line."""
    print(json.dumps({"task": task.name, "rows": rows, "metrics": dict(metrics)}, ensure_ascii=False), flush=True)
