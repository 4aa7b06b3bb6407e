"""transformers' Trainer as this project needs it: order of rows, evaluation and the teacher are its own.

No data is read here and no model chosen; how a model is scored is given to it as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Sampler
from transformers import PrinterCallback, Trainer

from hubcache.train.graphs import StepGraphs
from hubcache.train.sparse.quantization import restore_structure
from hubcache.train.sparse.tuning import Tuning

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
