"""Training steps a second with a bottleneck adapter, and of the whole model, on a BERT of base's width; no data.

Both train copies of one model on one batch, in one process, and take turns.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

from hubcache.train.adapters import init
from tests.bench import measure, steps
from tests.bench.measure import Run, Target

AT_MOST_SHARE = 0.03
AT_LEAST_FASTER = 1.2


def main() -> None:
    """Run the benchmark and print its line."""
    options = steps.options(__doc__, runs=5, layers=12, width=768, batch=8)
    options.add_argument("--kinds", nargs="+", default=["pfeiffer", "houlsby"])
    arguments = options.parse_args()
    full = steps.model_of(arguments)
    models = {kind: adapted(full, kind) for kind in arguments.kinds} | {"full": full}
    optimizers = {name: steps.optimizer_of(model) for name, model in models.items()}
    runs = steps.measured(arguments, models, optimizers)
    steps.tell("adapter_speed", arguments, runs, targets_of(arguments, models, runs))


def adapted(model: Any, kind: str) -> Any:
    """Return a copy of the model in which an adapter and the head alone train."""
    twin = init(copy.deepcopy(model))
    twin.add_adapter("bench", config=kind)
    twin.train_adapter("bench")
    return twin


def share(model: Any) -> float:
    """Return the part of a model's weights that trains."""
    free = sum(each.numel() for each in model.parameters() if each.requires_grad)
    return float(free / sum(each.numel() for each in model.parameters()))


def targets_of(arguments: argparse.Namespace, models: dict[str, Any], runs: dict[str, list[Run]]) -> dict[str, Target]:
    """Hold the part that trains, and medians of wall time to the full model's, against the targets."""
    targets = {}
    for kind in arguments.kinds:
        targets[f"{kind}_share_trained"] = Target(share(models[kind]), AT_MOST_SHARE)
        relative = measure.wall(runs[kind]) / measure.wall(runs["full"])
        targets[f"{kind}_wall_to_full"] = Target(relative, 1 / AT_LEAST_FASTER)
    return targets


if __name__ == "__main__":
    main()
