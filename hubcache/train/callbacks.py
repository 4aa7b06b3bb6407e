"""What watches over a training: rows, patience, clock, checkpoints, progress; it computes no loss and no score."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hubcache.notebook import new_bar, shows_bars
from hubcache.train.metrics import Metric, is_better
from hubcache.train.trainer import RowOrder

DONE_FILE = "complete.json"
NEVER = 10**9
"""A step that no run comes to."""


class Rows(TrainerCallback):
    """Tell the order which epoch begins; accelerate's loader loses it where it skips batches on several processes."""

    def __init__(self, order: RowOrder) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the epoch that the state has come to, which on resuming is not the first."""
        self.order.set_epoch(int(state.epoch or 0))


class Patience(TrainerCallback):
    """End a training that got no better for some evaluations, which the log alone tells: a resumed run knows them."""

    def __init__(self, chosen: Metric, key: str, evaluations: int, counts: Callable[[int], bool]) -> None:
        self.chosen = chosen
        self.key = key
        self.evaluations = evaluations
        self.counts = counts

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the evaluations since the best."""
        best, since = None, 0
        for row in state.log_history:
            if self.key in row and self.counts(row["step"]):
                better = is_better(self.chosen, row[self.key], best)
                best, since = (row[self.key], 0) if better else (best, since + 1)
        control.should_training_stop = control.should_training_stop or since >= self.evaluations


class Clock(TrainerCallback):
    """Measure the seconds of training alone, without evaluating and saving; `before` is what came before a resume."""

    def __init__(self, before: float = 0.0) -> None:
        self.seconds = before
        self._mark = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start."""
        self._restart()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add what went by."""
        now = time.perf_counter()
        self.seconds += now - self._mark
        self._mark = now

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget what the evaluation took."""
        self._restart()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget what saving took."""
        self._restart()

    def _restart(self) -> None:
        self._mark = time.perf_counter()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was written whole, by the request of that digest, after so many seconds of training."""

    folder: Path
    request: str
    seconds: float


class Checkpoints(TrainerCallback):
    """Save each best checkpoint, mark what was saved whole, and keep the best and the last alone.

    A run that is killed while it saves leaves a folder without the mark, which is never resumed from. `counts` tells
    whether a model may be the best after so many steps.
    """

    def __init__(self, request: str, clock: Clock, chosen: tuple[str, Metric] | None, counts: Callable[[int], bool]):
        self.request = request
        self.clock = clock
        self.chosen = None if chosen is None else chosen[1]
        self.key = "" if chosen is None else chosen[0]
        self.counts = counts

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log wherever we save or evaluate: the mean loss since the last log row is in no checkpoint."""
        # The Trainer saves at the last step whatever the strategy: what is not asked for is left out.
        control.should_save = control.should_save and args.save_steps != NEVER
        control.should_log = control.should_log or control.should_save or control.should_evaluate

    on_epoch_end = on_step_end

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint of what is the best so far."""
        score = kwargs["metrics"].get(self.key)
        if self.chosen is None or score is None or not self.counts(state.global_step):
            return
        if is_better(self.chosen, score, state.best_metric):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint, then delete the ones before it."""
        if args.world_size > 1:
            torch.distributed.barrier()
        if not state.is_world_process_zero:
            return
        folder = _checkpoint(args, state.global_step)
        write_whole(folder / DONE_FILE, {"request": self.request, "seconds": self.clock.seconds})
        kept = {folder, _checkpoint(args, state.best_global_step or state.global_step)}
        for other in Path(args.output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
            if other not in kept:
                shutil.rmtree(other)


def last_checkpoint(folder: Path, request: str) -> Checkpoint | None:
    """Return the last whole checkpoint that the same request left in `folder`, None where there is none."""
    found = []
    for mark in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{DONE_FILE}"):
        with suppress(ValueError, KeyError, TypeError):
            told = json.loads(mark.read_text(encoding="utf-8"))
            checkpoint = Checkpoint(mark.parent, told["request"], float(told["seconds"]))
            if checkpoint.request == request:
                found.append((int(mark.parent.name.rpartition("-")[2]), checkpoint))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def write_whole(path: Path, told: Mapping[str, Any]) -> None:
    """Write JSON that is there whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(told, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _checkpoint(args: Any, step: int) -> Path:
    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"


class Progress(TrainerCallback):
    """Show a bar with loss and remaining time on a terminal; elsewhere say one line an evaluation."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._bar: Any = None
        self._loss = math.nan

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar at the step that a resumed run has come to."""
        if state.is_world_process_zero and shows_bars():
            self._bar = new_bar(total=state.max_steps, initial=state.global_step, unit="step")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move on."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the loss."""
        self._loss = kwargs["logs"].get("loss", self._loss)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{self._loss:.4f}", refresh=False)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say the figures."""
        if not state.is_world_process_zero:
            return
        told = ", ".join(f"{name.removeprefix('eval_')} {value:.4f}" for name, value in kwargs["metrics"].items())
        line = f"step {state.global_step}/{state.max_steps}, training loss {self._loss:.4f}; validation: {told}"
        if self._bar is not None:
            self._bar.clear()
        self.say(line)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
