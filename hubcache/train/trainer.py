"""transformers' Trainer as this project needs it: order of rows, evaluation, checkpoints and progress are its own.

No data is read here and no model chosen; how a model is scored is given to it as a function.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hubcache.notebook import new_bar, shows_bars
from hubcache.train.graphs import StepGraphs
from hubcache.train.metrics import Metric, is_better
from hubcache.train.sparse.quantization import restore_structure
from hubcache.train.sparse.tuning import Tuning

DONE_FILE = "complete.json"
NEVER = 10**9
"""A step that no run comes to."""
_POOL = 50

Feature = Mapping[str, Any]
Collate = Callable[[Sequence[Feature]], Mapping[str, Any]]
Scorer = Callable[[Any], Mapping[str, float]]
"""Scores a model on the validation split: figure by metric, `loss` among them."""


class LossWithTeacher(Protocol):
    """What makes a loss of a model's outputs and a batch, asking a teacher."""

    def loss(self, outputs: Any, inputs: Mapping[str, Any], /) -> Any:
        """Return the loss of one batch."""


class RowOrder(Sampler):
    """The order of the rows of an epoch, which the seed and the epoch alone decide: a resumed run meets it again.

    With `grouped`, rows are drawn into pools of 50 steps, and each pool is sorted by length and cut into steps, which
    are shuffled: a step's rows (over all processes and accumulated batches) are of like length.
    """

    def __init__(self, lengths: Any, step_rows: int, seed: int, *, grouped: bool) -> None:
        self.lengths = torch.as_tensor(lengths)
        self.step_rows = step_rows
        self.seed = seed
        self.grouped = grouped
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        if not self.grouped:
            return iter(order.tolist())
        pools = [pool[self.lengths[pool].argsort(stable=True)] for pool in order.split(_POOL * self.step_rows)]
        steps = torch.cat(pools).split(self.step_rows)
        # A step that is not full has to stay the last, or the batches after it would straddle the steps.
        full = len(steps) - (len(steps[-1]) < self.step_rows)
        shuffled = [steps[number] for number in torch.randperm(full, generator=generator).tolist()]
        return iter(torch.cat([*shuffled, *steps[full:]]).tolist())


class FineTuner(Trainer):
    """A Trainer that meets rows in a RowOrder, scores by `scorer` and learns from a teacher where there is one.

    `token_losses` says that the model's loss is a mean over its labelled tokens, which may then be taken over all
    accumulated batches; any other loss is averaged over them. `graphed` replays steps as CUDA graphs. `tuning` says
    that a recipe rules: it chooses the precision step by step, and until it has changed all no evaluation counts.
    """

    def __init__(
        self,
        model: Any,
        args: Any,
        *,
        features: Any,
        collate: Collate,
        scorer: Scorer | None,
        order: RowOrder,
        token_losses: bool = False,
        graphed: bool = False,
        tuning: Tuning | None = None,
    ) -> None:
        # The Trainer insists on a set to evaluate on, which the scorer alone knows: any will do.
        super().__init__(model, args, train_dataset=features, eval_dataset=features, data_collator=collate)
        self.remove_callback(PrinterCallback)
        self.order = order
        self.scorer = scorer
        self.teacher: LossWithTeacher | None = None
        self.tuning = tuning
        if not token_losses:
            self.model_accepts_loss_kwargs = False
        self.graphs = StepGraphs(self.loss_of, model.parameters()) if graphed else None

    def teach(self, teacher: LossWithTeacher | None) -> None:
        """Take a teacher's part in the loss from now on."""
        self.teacher = teacher
        if teacher is not None:
            self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> Any:
        """Return the batches of an epoch, for this process."""
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            sampler=self.order,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            persistent_workers=self.args.dataloader_num_workers > 0,
            pin_memory=self.args.device.type == "cuda",
        )
        return self.accelerator.prepare(loader)

    def loss_of(self, inputs: Any) -> Any:
        """Return the loss of a batch, computed in the precision of the training."""
        with self.compute_loss_context_manager():
            return self.compute_loss(self.model_wrapped, dict(inputs))

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Fill the gradients of a batch, by a recorded graph where there is one; return the loss."""
        if self.graphs is not None and model.training:
            loss = self.graphs.step(inputs)
            if loss is not None:
                return loss
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss_context_manager(self) -> ExitStack:
        """Return the context of a forward pass: under a recipe, half precision as long as nothing is quantised."""
        stack = super().compute_loss_context_manager()
        if self.tuning is not None and self.tuning.is_half(self.state.global_step):
            stack.enter_context(torch.autocast(self.args.device.type, torch.bfloat16))
        return stack

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load a checkpoint's weights into a model of the structure that it had by then."""
        if self.tuning is not None:
            step = int(Path(resume_from_checkpoint).name.rpartition("-")[2])
            restore_structure(self.model, self.tuning.begun(step))
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Take note of a best evaluation, if it counts."""
        return self.counts(self.state.global_step) and super()._determine_best_metric(metrics, trial)

    def counts(self, steps: int) -> bool:
        """Tell whether a model may be kept as the best after so many steps."""
        return self.tuning is None or self.tuning.is_whole(steps)

    def floating_point_ops(self, inputs: Any) -> int:
        """Count nothing: the Trainer's count walks through the whole model at every step."""
        return 0

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a batch, with the teacher's part in it."""
        if self.teacher is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(**inputs)
        loss = self.teacher.loss(outputs, inputs)
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Score the model, log the figures and tell the callbacks."""
        if self.scorer is None:
            return {}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.scorer(self.model).items()}
        self.model.train()
        self.log(dict(metrics))
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


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
