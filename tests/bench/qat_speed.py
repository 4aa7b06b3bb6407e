"""Training steps that round (the seed's recipe), dense ones, and torch.ao's fake quantisers in our places; no data.

All train copies of one model of MiniLM's shape on one batch, in one process, and take turns.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
import warnings
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from hubcache.train.sparse.quantization import restore_structure
from hubcache.train.sparse.quantization.fake import FakeQuantize, Grid
from hubcache.train.sparse.recipe import LegacyQuantizationModifier
from tests.bench import measure
from tests.bench.measure import Run, Target

AT_MOST = 1.8
SEED = LegacyQuantizationModifier(
    start_epoch=0.0,
    quantize_linear_activations=False,
    exclude_module_types=("LayerNorm", "Tanh"),
    submodules=("bert.embeddings", "bert.encoder", "bert.pooler", "classifier"),
)


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=5)
    options.add_argument("--threads", type=int, default=1, help="of torch")
    options.add_argument("--layers", type=int, default=6)
    options.add_argument("--width", type=int, default=384)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--seq", type=int, default=64)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    dense = BertForSequenceClassification(shape(arguments))
    models = {"dense": dense, "hubcache": rounding(dense), "torch_ao": with_peer(rounding(dense))}
    batch = {
        "input_ids": torch.randint(1000, 30000, (arguments.batch, arguments.seq)),
        "attention_mask": torch.ones(arguments.batch, arguments.seq, dtype=torch.long),
        "labels": torch.randint(0, 2, (arguments.batch,)),
    }
    tell(arguments, measured(arguments, models, batch))


def shape(arguments: argparse.Namespace) -> BertConfig:
    """Return a BERT of twelve heads whose inner layers are four times as wide."""
    return BertConfig(
        num_hidden_layers=arguments.layers,
        hidden_size=arguments.width,
        intermediate_size=4 * arguments.width,
        num_attention_heads=12,
    )


def rounding(model: Any) -> Any:
    """Return a copy that rounds as the seed's recipe says."""
    twin = copy.deepcopy(model)
    restore_structure(twin, [SEED])
    return twin


def with_peer(model: nn.Module) -> nn.Module:
    """Put torch.ao's fake quantisers in the places of ours."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, FakeQuantize):
                setattr(module, name, peer(child.grid))
    return model


def peer(grid: Grid) -> nn.Module:
    """Return torch.ao's fake quantiser for a grid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import FakeQuantize as Peer
        from torch.ao.quantization import MovingAverageMinMaxObserver

        made: nn.Module = Peer(
            observer=MovingAverageMinMaxObserver,
            quant_min=grid.low,
            quant_max=grid.high,
            dtype=torch.qint8 if grid.low < 0 else torch.quint8,
            qscheme=torch.per_tensor_symmetric if grid.symmetric else torch.per_tensor_affine,
        )
    return made


def measured(arguments: argparse.Namespace, models: dict[str, Any], batch: dict[str, Any]) -> dict[str, list[Run]]:
    """Let all take turns, a step each; the first, which plans and allocates, is not counted."""
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True) for name, model in models.items()}
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
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return Run(time.perf_counter() - wall, time.process_time() - cpu, 0, 0)


def tell(arguments: argparse.Namespace, runs: dict[str, list[Run]]) -> None:
    """Print the line; the targets are medians of wall time."""
    ours = measure.wall(runs["hubcache"])
    targets = {
        "wall_to_dense": Target(ours / measure.wall(runs["dense"]), AT_MOST),
        "wall_to_torch_ao": Target(ours / measure.wall(runs["torch_ao"]), 1.0),
    }
    told = {name: target.told() for name, target in targets.items()}
    line = {
        "benchmark": "qat_speed",
        **{name: getattr(arguments, name) for name in ("threads", "layers", "width", "batch", "seq", "runs")},
        "measured": measure.figures(runs),
        "targets": told,
        "ok": all(target["ok"] for target in told.values()),
        "machine": {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2)},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
