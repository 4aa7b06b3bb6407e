"""The training loop of train_ddp: epochs, checkpoints, the best of them, alone or under torchrun; it reads no data."""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Sampler

from hubcache.compat.ke_t5.bench import Bench
from hubcache.compat.ke_t5.bindings import get_optimizer
from hubcache.compat.ke_t5.checkpoints import copy_whole, load_weights, read_checkpoint, save_checkpoint
from hubcache.compat.ke_t5.meters import Meter, batch_figures
from hubcache.compat.ke_t5.places import RunFolder
from hubcache.train.features import Encoded
from hubcache.train.metrics import is_better, metric
from hubcache.train.trainer import RowOrder


class Share(Sampler):
    """This process's share of an order of rows; the first rows fill up so that all shares are of one length."""

    def __init__(self, order: RowOrder, process: int, processes: int) -> None:
        self.order = order
        self.process = process
        self.processes = processes

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.processes)

    def __iter__(self) -> Iterator[int]:
        rows = list(self.order)
        filled = (rows * self.processes)[: len(self) * self.processes]
        return iter(filled[self.process :: self.processes])


@dataclass(slots=True)
class Training:
    """A model that trains; its epoch is the next one, and `best_score` is what the best checkpoint has."""

    bench: Bench
    folder: RunFolder
    options: argparse.Namespace
    rows: Encoded
    order: RowOrder
    loader: Any
    optimizer: Any
    scheduler: Any = None
    epoch: int = 0
    best_score: float | None = None
    wrapped: Any = None
    writer: Any = field(default=None)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint; the original's, which tells no best score by number, begins with none."""
        found = read_checkpoint(path)
        load_weights(self.bench.model, found["state_dict"], path)
        self.optimizer.load_state_dict(found["optimizer"])
        if self.scheduler is not None and found.get("scheduler"):
            self.scheduler.load_state_dict(found["scheduler"])
        self.epoch = int(found["epoch"])
        score = found.get("best_score")
        self.best_score = float(score) if isinstance(score, int | float) else None
        self.bench.say(f"resumed from {path}, epoch {self.epoch}")

    def run(self, validation: Encoded) -> Mapping[str, float]:
        """Train the epochs that are left; return the last figures of the validation split."""
        metrics: Mapping[str, float] = {}
        while self.epoch < self.options.epochs:
            self.train_epoch()
            metrics = self.bench.score(validation).metrics
            self.log("eval", metrics)
            self.epoch += 1
            self.save(metrics)
        return metrics

    def train_epoch(self) -> None:
        """Train one epoch; what is drawn in it is a matter of seed, epoch and process alone, so it can be resumed."""
        place, options = self.bench.place, self.options
        self.order.set_epoch(self.epoch)
        torch.manual_seed((options.seed << 32) + (self.epoch << 12) + place.process)
        model = self.wrapped if self.wrapped is not None else self.bench.model
        model.train()
        meter, began = Meter(), time.perf_counter()
        for number, (batch, rows) in enumerate(zip(self.loader, self.batches(), strict=True), start=1):
            outputs = self.step(model, batch)
            if number % options.print_freq == 0 or number == len(self.loader):
                figures = batch_figures(self.bench, self.rows, rows, outputs)
                meter.add(figures, len(rows))
                rate = number * self.bench.batch_size * place.processes / (time.perf_counter() - began)
                self.bench.say(
                    f"-----Training----- Epoch: [{self.epoch}][{number}/{len(self.loader)}]\t"
                    f"Speed {rate:.3f}\t{told('train', figures)}"
                )
        self.log("train", meter.means)

    def batches(self) -> list[list[int]]:
        """Return the numbers of the rows of each batch of this epoch, of this process."""
        numbers, size = list(self.loader.sampler), self.bench.batch_size
        return [numbers[begin : begin + size] for begin in range(0, len(numbers), size)]

    def step(self, model: Any, batch: Mapping[str, Any]) -> Any:
        """Learn from a batch; return what the model said to it."""
        moved = {name: value.to(self.bench.place.device) for name, value in batch.items()}
        self.optimizer.zero_grad()
        outputs = model(**moved)
        outputs["loss"].backward()
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        return outputs

    def save(self, metrics: Mapping[str, float]) -> None:
        """Write the checkpoint, the best one first: a run that is killed between them repeats the epoch."""
        chosen = self.bench.task.better_by
        score = metrics.get(chosen, float("nan"))
        better = is_better(metric(chosen), score, self.best_score)
        self.best_score = score if better else self.best_score
        if self.bench.place.is_first:
            fresh = self.folder.last.with_name("fresh.pth")
            save_checkpoint(fresh, self.kept())
            if better:
                copy_whole(fresh, self.folder.best)
            fresh.replace(self.folder.last)
        if self.bench.place.processes > 1:
            torch.distributed.barrier()

    def kept(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "epoch": self.epoch,
            "state_dict": self.bench.model.state_dict(),
            "best_score": self.best_score,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "pre_trained_model": self.options.pre_trained_model,
        }

    def log(self, tag: str, figures: Mapping[str, float]) -> None:
        """Say the figures, and write them for TensorBoard where it is installed."""
        self.bench.say(f"Epoch: [{self.epoch}]\t{told(tag, figures)}")
        if self.writer is not None:
            for name, value in figures.items():
                self.writer.add_scalar(f"{tag}/{name}", value, self.epoch)
            self.writer.flush()


def told(tag: str, figures: Mapping[str, float]) -> str:
    """Write figures as a log line has them, tag/name: value."""
    return "\t".join(f"{tag}/{name}: {value:.4f}" for name, value in figures.items())


def make_training(bench: Bench, folder: RunFolder, options: argparse.Namespace, rows: Encoded) -> Training:
    """Put a training together that begins at --start_epoch."""
    where = bench.place
    order = RowOrder(rows.lengths, options.batch_size, options.seed, grouped=False)
    loader = DataLoader(
        rows,
        batch_size=options.batch_size,
        sampler=Share(order, where.process, where.processes),
        collate_fn=bench.collate,
        num_workers=options.workers,
    )
    optimizer = get_optimizer(bench.model.parameters())
    training = Training(bench, folder, options, rows, order, loader, optimizer, epoch=options.start_epoch)
    if options.schedule:
        training.scheduler = one_cycle(optimizer, options.learning_rate, options.epochs * len(loader))
    if where.processes > 1:
        # The relation heads keep layers that they do not use.
        devices = [where.device] if where.device.type == "cuda" else None
        training.wrapped = DistributedDataParallel(bench.model, device_ids=devices, find_unused_parameters=True)
    if where.is_first and importlib.util.find_spec("tensorboard") is not None:
        from torch.utils.tensorboard import SummaryWriter

        training.writer = SummaryWriter(log_dir=str(folder.logs))
    return training


def one_cycle(optimizer: Any, highest: float, steps: int) -> Any:
    """Return the schedule of --schedule: up to the highest rate in a tenth of the steps, then down, linearly."""
    turns = "betas" in optimizer.defaults or "momentum" in optimizer.defaults
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, highest, total_steps=steps, pct_start=0.1, anneal_strategy="linear", cycle_momentum=turns
    )
