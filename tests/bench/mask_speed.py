"""Training steps with a recipe's masks and learning rate, and without, on a BERT of MiniLM's shape; no data.

Both train copies of one model on one batch, in one process, and take turns.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification

from hubcache.train.sparse.matching import prunable
from hubcache.train.sparse.recipe import parse_recipe
from hubcache.train.sparse.session import Session
from tests.bench import measure
from tests.bench.measure import Run, Target

AT_MOST = 1.05
RECIPE = """
modifiers:
  - !ConstantPruningModifier
      params: __ALL_PRUNABLE__
  - !LearningRateFunctionModifier
      start_epoch: 0.0
      end_epoch: 3.0
      lr_func: linear
      init_lr: 0.00005
      final_lr: 0.0
"""
STEPS_PER_EPOCH = 1000


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=15)
    options.add_argument("--threads", type=int, default=1, help="of torch")
    options.add_argument("--layers", type=int, default=6)
    options.add_argument("--hidden", type=int, default=384)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--seq", type=int, default=64)
    options.add_argument("--sparsity", type=float, default=0.9)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    batch = {
        "input_ids": torch.randint(1000, 30000, (arguments.batch, arguments.seq)),
        "attention_mask": torch.ones(arguments.batch, arguments.seq, dtype=torch.long),
        "labels": torch.randint(0, 2, (arguments.batch,)),
    }
    tell(arguments, measured(arguments, pruned(arguments), batch))


def pruned(arguments: argparse.Namespace) -> Any:
    """Return a model in which a share of the prunable weights is zero."""
    config = BertConfig(
        hidden_size=arguments.hidden,
        num_hidden_layers=arguments.layers,
        num_attention_heads=12,
        intermediate_size=4 * arguments.hidden,
    )
    model = BertForSequenceClassification(config)
    for weight in prunable(model).values():
        weight.data.mul_(torch.rand_like(weight) >= arguments.sparsity)
    return model.train()


def measured(arguments: argparse.Namespace, model: Any, batch: dict[str, Any]) -> dict[str, list[Run]]:
    """Let both take turns, a step each; the first two, which plan and allocate, are not counted."""
    models = {"recipe": model, "dense": copy.deepcopy(model)}
    optimizers = {name: torch.optim.AdamW(one.parameters(), lr=5e-5, fused=True) for name, one in models.items()}
    session = Session(model, optimizers["recipe"], parse_recipe(RECIPE), STEPS_PER_EPOCH)
    runs: dict[str, list[Run]] = {name: [] for name in models}
    for number in range(arguments.runs + 2):
        for name, one in models.items():
            run = step(one, optimizers[name], batch, session if name == "recipe" else None, number)
            if number > 1:
                runs[name].append(run)
    return runs


def step(model: Any, optimizer: Any, batch: dict[str, Any], session: Session | None, number: int) -> Run:
    """Take a step and time it."""
    wall, cpu = time.perf_counter(), time.process_time()
    optimizer.zero_grad()
    model(**batch).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if session is not None:
        session.before_step(number)
    optimizer.step()
    if session is not None:
        session.after_step(number)
    return Run(time.perf_counter() - wall, time.process_time() - cpu, 0, 0)


def tell(arguments: argparse.Namespace, runs: dict[str, list[Run]]) -> None:
    """Print the line; the target is on the least CPU time of each, which others on the machine disturb the least."""
    ratios = measure.ratios(runs["recipe"], runs["dense"], "dense")
    least = {name: min(run.cpu for run in each) for name, each in runs.items()}
    target = Target(least["recipe"] / least["dense"], AT_MOST)
    line = {
        "benchmark": "mask_speed",
        **{name: getattr(arguments, name) for name in ("threads", "layers", "hidden", "batch", "seq", "runs")},
        "samples_per_second": {name: round(arguments.batch / measure.wall(each), 2) for name, each in runs.items()},
        "measured": measure.figures(runs),
        "ratios": {name: round(ratio, 4) for name, ratio in ratios.items()},
        "targets": {"least_cpu_to_dense": target.told()},
        "ok": target.told()["ok"],
        "machine": {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2)},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
