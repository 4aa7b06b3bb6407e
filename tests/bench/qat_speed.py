"""Training steps that round (the tutorial's recipe), dense ones, and torch.ao's fake quantisers in our places; no data.

All train copies of one model of MiniLM's shape on one batch, in one process, and take turns.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn

from hubcache.train.sparse.quantization import restore_structure
from hubcache.train.sparse.quantization.fake import FakeQuantize, Grid
from hubcache.train.sparse.recipe import LegacyQuantizationModifier
from tests.bench import measure, steps
from tests.bench.measure import Target

AT_MOST = 1.8
TUTORIAL = LegacyQuantizationModifier(
    start_epoch=0.0,
    quantize_linear_activations=False,
    exclude_module_types=("LayerNorm", "Tanh"),
    submodules=("bert.embeddings", "bert.encoder", "bert.pooler", "classifier"),
)


def main() -> None:
    """Run the benchmark and print its line; the targets are medians of wall time."""
    arguments = steps.options(__doc__, runs=5, layers=6, width=384, batch=16).parse_args()
    dense = steps.model_of(arguments)
    models = {"dense": dense, "hubcache": rounding(dense), "torch_ao": with_peer(rounding(dense))}
    runs = steps.measured(arguments, models, {name: steps.optimizer_of(model) for name, model in models.items()})
    ours = measure.wall(runs["hubcache"])
    targets = {
        "wall_to_dense": Target(ours / measure.wall(runs["dense"]), AT_MOST),
        "wall_to_torch_ao": Target(ours / measure.wall(runs["torch_ao"]), 1.0),
    }
    steps.tell("qat_speed", arguments, runs, targets)


def rounding(model: Any) -> Any:
    """Return a copy that rounds as the tutorial's recipe says."""
    twin = copy.deepcopy(model)
    restore_structure(twin, [TUTORIAL])
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


if __name__ == "__main__":
    main()
