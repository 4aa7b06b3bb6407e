"""Training steps with a recipe's masks and learning rate, and without, on a BERT of MiniLM's shape; no data.

Both train copies of one model on one batch, in one process, and take turns.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch

from hubcache.train.sparse.matching import prunable
from hubcache.train.sparse.recipe import parse_recipe
from hubcache.train.sparse.session import Session
from tests.bench import steps
from tests.bench.measure import Target

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
    """Run the benchmark and print its line; the target is on the least CPU time, which others disturb the least."""
    options = steps.options(__doc__, runs=15, layers=6, width=384, batch=16)
    options.add_argument("--sparsity", type=float, default=0.9)
    arguments = options.parse_args()
    model = pruned(arguments)
    models = {"recipe": model, "dense": copy.deepcopy(model)}
    optimizers = {name: steps.optimizer_of(one) for name, one in models.items()}
    session = Session(model, optimizers["recipe"], parse_recipe(RECIPE), STEPS_PER_EPOCH)
    around = {"recipe": (session.before_step, session.after_step)}
    runs = steps.measured(arguments, models, optimizers, around)
    least = {name: min(run.cpu for run in each) for name, each in runs.items()}
    targets = {"least_cpu_to_dense": Target(least["recipe"] / least["dense"], AT_MOST)}
    steps.tell("mask_speed", arguments, runs, targets)


def pruned(arguments: argparse.Namespace) -> Any:
    """Return a model in which a share of the prunable weights is zero."""
    model = steps.model_of(arguments)
    for weight in prunable(model).values():
        weight.data.mul_(torch.rand_like(weight) >= arguments.sparsity)
    return model


if __name__ == "__main__":
    main()
