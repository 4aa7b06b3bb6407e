"""A quantised model as torch.onnx can write it: scales as constants, core operators alone; it writes no file."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hubcache.train.sparse.quantization.fake import FakeQuantize

Model = TypeVar("Model", bound=nn.Module)
_SIGNED, _UNSIGNED = (-128, 127), (0, 255)
_WITHOUT_SHAPES = (
    "fake_quantize_per_tensor_affine_cachemask",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    "fake_quantize_per_channel_affine_cachemask",
)


class PlainFakeQuantize(nn.Module):
    """A fake quantiser with constant scale and zero point, on the eight bits that ONNX has.

    A narrower grid is a clamp before: rounding then stays on it.
    """

    def __init__(self, quantizer: FakeQuantize) -> None:
        super().__init__()
        grid = quantizer.grid
        self.low, self.high = _SIGNED if grid.low < 0 else _UNSIGNED
        self.scale, self.zero_point = float(quantizer.scale[0]), int(quantizer.zero_point[0])
        self.bounds = [(each - self.zero_point) * self.scale for each in (grid.low, grid.high)]
        self.is_narrow = (grid.low, grid.high) != (self.low, self.high)
        scales, zeros = (quantizer.scale, quantizer.zero_point) if grid.per_channel else (None, None)
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer("zeros", zeros, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Round a tensor of any shape; per channel, [channels, ...]."""
        if self.scales is not None:
            return torch.fake_quantize_per_channel_affine(x, self.scales, self.zeros, 0, self.low, self.high)
        if self.is_narrow:
            x = x.clamp(*self.bounds)
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, self.low, self.high)


def exportable(model: Model) -> Model:
    """Return a float32 copy in eval mode whose quantisers are plain core operators; those that never saw a tensor go.

    Both of torch.onnx.export's exporters make each a QuantizeLinear and a DequantizeLinear.
    """
    _teach_shapes()
    twin = copy.deepcopy(model).eval().float().requires_grad_(False)
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, FakeQuantize):
                if name == "weight_fake_quant":
                    # On its grid already, a weight needs no clamp in the graph.
                    module.weight = nn.Parameter(child.round(module.weight), requires_grad=False)
                setattr(module, name, PlainFakeQuantize(child) if child.is_active else nn.Identity())
    return twin


@cache
def _teach_shapes() -> torch.library.Library:
    """Tell torch what shape its fake quantisation returns: torch.export asks for it where a dimension is dynamic.

    Torch to 2.13 has no such rule. What is returned keeps the rules alive.
    """
    library = torch.library.Library("aten", "IMPL")
    for name in _WITHOUT_SHAPES:
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "Meta"):
            library.impl(name, _shapes, "Meta")
    return library


def _shapes(x: Tensor, *_arguments: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
