"""Layers that round their inputs, weights and outputs, with SparseML's state keys; not which layers become such.

A layer becomes one in place, by its class: it stays the same object with the same parameters, so the optimiser, masks
and hooks on it hold.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubcache.train.sparse.quantization.fake import FakeQuantize


class QuantStub(nn.Module):
    """The place of an input's quantiser: its state keys begin with `quant.activation_post_process`."""

    def __init__(self, quantizer: FakeQuantize) -> None:
        super().__init__()
        self.activation_post_process = quantizer

    def forward(self, x: Tensor) -> Tensor:
        """Round the tensor."""
        rounded: Tensor = self.activation_post_process(x)
        return rounded


class QuantWrapper(nn.Module):
    """A layer behind its input's quantiser; the layer's own attributes can be read and its weights tied through it."""

    def __init__(self, module: nn.Module, quantizer: FakeQuantize) -> None:
        super().__init__()
        self.quant = QuantStub(quantizer)
        self.module = module
        self.train(module.training)

    def forward(self, x: Tensor, *rest: Any) -> Any:
        """Round the first input and call the layer."""
        return self.module(self.quant(x), *rest)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module":
                raise
            return getattr(self.module, name)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Set a parameter of the layer inside: a model that ties weights sets them by the layer's name."""
        setattr(self.module, name, param)


class QuantLinear(nn.Linear):
    """A linear layer with rounded weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        return functional.linear(x, self.weight_fake_quant(self.weight), self.bias)


class QuantConv1d(nn.Conv1d):
    """A convolution with rounded weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, in, length] to [batch, out, length]."""
        return self._conv_forward(x, self.weight_fake_quant(self.weight), self.bias)


class QuantConv2d(nn.Conv2d):
    """A convolution with rounded weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, in, height, width] to [batch, out, height, width]."""
        return self._conv_forward(x, self.weight_fake_quant(self.weight), self.bias)


class QuantConv3d(nn.Conv3d):
    """A convolution with rounded weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, in, depth, height, width] to [batch, out, depth, height, width]."""
        return self._conv_forward(x, self.weight_fake_quant(self.weight), self.bias)


class QuantEmbedding(nn.Embedding):
    """An embedding with rounded weights."""

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids [...] to rows [..., width]."""
        quantizer = self.weight_fake_quant
        if isinstance(quantizer, FakeQuantize) and not quantizer.grid.per_channel and self.max_norm is None:
            # One scale for all rows: rounding those that are looked up gives the same numbers and gradients.
            quantizer.learn(self.weight)
            return quantizer.round(super().forward(ids))
        return functional.embedding(
            ids,
            quantizer(self.weight),
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.sparse,
        )


QUANTIZED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: QuantLinear,
    nn.Conv1d: QuantConv1d,
    nn.Conv2d: QuantConv2d,
    nn.Conv3d: QuantConv3d,
    nn.Embedding: QuantEmbedding,
}
"""What each layer with quantisable weights becomes."""


def round_output(layer: nn.Module, quantizer: FakeQuantize) -> None:
    """Let a layer round what it returns."""
    layer.add_module("activation_post_process", quantizer.train(layer.training))
    layer.register_forward_hook(_round_output)


def round_weight(layer: nn.Module, quantizer: FakeQuantize) -> None:
    """Make a layer of QUANTIZED one that rounds its weights; it stays the same object."""
    layer.__class__ = QUANTIZED[type(layer)]
    layer.add_module("weight_fake_quant", quantizer.train(layer.training))


def _round_output(layer: Any, _inputs: Any, output: Any) -> Any:
    return layer.activation_post_process(output) if isinstance(output, torch.Tensor) else output
