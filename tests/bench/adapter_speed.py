"""Training steps a second with a bottleneck adapter, and of the whole model, on a BERT of base's width; no data.

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

from hubcache.train.adapters import init
from tests.bench import measure
from tests.bench.measure import Run, Target

AT_MOST_SHARE = 0.03
AT_LEAST_FASTER = 1.2


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=5)
    options.add_argument("--threads", type=int, default=1, help="of torch")
    options.add_argument("--layers", type=int, default=12)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--seq", type=int, default=64)
    options.add_argument("--kinds", nargs="+", default=["pfeiffer", "houlsby"])
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    full = BertForSequenceClassification(BertConfig(num_hidden_layers=arguments.layers))
    models = {kind: adapted(full, kind) for kind in arguments.kinds} | {"full": full}
    batch = {
        "input_ids": torch.randint(1000, 30000, (arguments.batch, arguments.seq)),
        "attention_mask": torch.ones(arguments.batch, arguments.seq, dtype=torch.long),
        "labels": torch.randint(0, 2, (arguments.batch,)),
    }
    tell(arguments, models, measured(arguments, models, batch))


def adapted(model: Any, kind: str) -> Any:
    """Return a copy of the model in which an adapter and the head alone train."""
    twin = init(copy.deepcopy(model))
    twin.add_adapter("bench", config=kind)
    twin.train_adapter("bench")
    return twin


def measured(arguments: argparse.Namespace, models: dict[str, Any], batch: dict[str, Any]) -> dict[str, list[Run]]:
    """Let all take turns, a step each; the first, which plans and allocates, is not counted."""
    optimizers = {
        name: torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-5, fused=True)
        for name, model in models.items()
    }
    runs: dict[str, list[Run]] = {name: [] for name in models}
    for number in range(arguments.runs + 1):
        for name, model in models.items():
            run = step(model.train(), optimizers[name], batch)
            if number:
                runs[name].append(run)
    return runs


def step(model: Any, optimizer: Any, batch: dict[str, Any]) -> Run:
    """Take a step and time it."""
    wall, cpu = time.perf_counter(), time.process_time()
    optimizer.zero_grad()
    model(**batch).loss.backward()
    torch.nn.utils.clip_grad_norm_([each for each in model.parameters() if each.grad is not None], 1.0)
    optimizer.step()
    return Run(time.perf_counter() - wall, time.process_time() - cpu, 0, 0)


def share(model: Any) -> float:
    """Return the part of a model's weights that trains."""
    free = sum(each.numel() for each in model.parameters() if each.requires_grad)
    return float(free / sum(each.numel() for each in model.parameters()))


def tell(arguments: argparse.Namespace, models: dict[str, Any], runs: dict[str, list[Run]]) -> None:
    """Print the line; the targets are the part that trains, and medians of wall time to the full model's."""
    targets = {}
    for kind in arguments.kinds:
        targets[f"{kind}_share_trained"] = Target(share(models[kind]), AT_MOST_SHARE)
        relative = measure.wall(runs[kind]) / measure.wall(runs["full"])
        targets[f"{kind}_wall_to_full"] = Target(relative, 1 / AT_LEAST_FASTER)
    told = {name: target.told() for name, target in targets.items()}
    line = {
        "benchmark": "adapter_speed",
        **{name: getattr(arguments, name) for name in ("threads", "layers", "batch", "seq", "runs")},
        "samples_per_second": {name: round(arguments.batch / measure.wall(each), 2) for name, each in runs.items()},
        "measured": measure.figures(runs),
        "targets": told,
        "ok": all(target["ok"] for target in told.values()),
        "machine": {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2)},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
