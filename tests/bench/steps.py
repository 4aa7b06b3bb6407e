"""Training steps of BERTs that take turns in one process, timed one by one; what is compared is not known here."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification

from tests.bench import measure
from tests.bench.measure import Run, Target

SIZES = ("threads", "layers", "width", "batch", "seq", "runs")

Watch = Callable[[int], object]
_ALONE: tuple[Watch, Watch] = (int, int)


def options(purpose: str | None, *, runs: int, layers: int, width: int, batch: int) -> argparse.ArgumentParser:
    """Begin the command line of a benchmark of steps."""
    parser = measure.parser(purpose, runs=runs)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--layers", type=int, default=layers)
    parser.add_argument("--width", type=int, default=width, help="the hidden size, by 12 heads")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--seq", type=int, default=64)
    return parser


def model_of(arguments: argparse.Namespace) -> Any:
    """Make a BERT of random weights, the same each time, and set torch's threads."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=arguments.layers, hidden_size=arguments.width, num_attention_heads=12,
        intermediate_size=4 * arguments.width,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def batch_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Draw a batch of token ids [batch, seq] with labels."""
    return {
        "input_ids": torch.randint(1000, 30000, (arguments.batch, arguments.seq)),
        "attention_mask": torch.ones(arguments.batch, arguments.seq, dtype=torch.long),
        "labels": torch.randint(0, 2, (arguments.batch,)),
    }


def optimizer_of(model: Any) -> Any:
    """Make an AdamW of what trains in a model."""
    return torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-5, fused=True)


def measured(
    arguments: argparse.Namespace, models: Mapping[str, Any], optimizers: Mapping[str, Any],
    around: Mapping[str, tuple[Watch, Watch]] | None = None,
) -> dict[str, list[Run]]:  # fmt: skip
    """Let all take turns, a step each; the first two, which plan and allocate, are not counted.

    `around` has what a model's steps do before and after the optimizer's, given the step's number.
    """
    batch = batch_of(arguments)
    runs: dict[str, list[Run]] = {name: [] for name in models}
    for number in range(arguments.runs + 2):
        for name, model in models.items():
            run = _step(model.train(), optimizers[name], batch, number, (around or {}).get(name, _ALONE))
            if number > 1:
                runs[name].append(run)
    return runs


def _step(model: Any, optimizer: Any, batch: Mapping[str, Any], number: int, around: tuple[Watch, Watch]) -> Run:
    before, after = around
    wall, cpu = time.perf_counter(), time.process_time()
    optimizer.zero_grad()
    model(**batch).loss.backward()
    torch.nn.utils.clip_grad_norm_([each for each in model.parameters() if each.grad is not None], 1.0)
    before(number)
    optimizer.step()
    after(number)
    return Run(time.perf_counter() - wall, time.process_time() - cpu, 0, 0)


def tell(
    name: str, arguments: argparse.Namespace, runs: Mapping[str, list[Run]], targets: Mapping[str, Target]
) -> None:
    """Print the benchmark's line."""
    told = {which: target.told() for which, target in targets.items()}
    line = {
        "benchmark": name,
        **{size: getattr(arguments, size) for size in SIZES},
        "samples_per_second": {who: round(arguments.batch / measure.wall(each), 2) for who, each in runs.items()},
        "measured": measure.figures(runs),
        "targets": told,
        "ok": all(target["ok"] for target in told.values()),
        "machine": {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2)},
    }
    print(json.dumps(line))
