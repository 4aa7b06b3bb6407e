"""Rounding to an integer grid while training, and the observers that find the grid; not which layers get one.

The state keys and numbers are SparseML 1.6.1's, which are those of torch's eager quantisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

EPS = float(torch.finfo(torch.float32).eps)
FIXED = {
    "Tanh": (2.0 / 256, 128),
    "Sigmoid": (1.0 / 256, 0),
    "Hardsigmoid": (1.0 / 256, 0),
    "Softmax": (1.0 / 256, 0),
}
"""Scale and zero point of outputs whose range is known beforehand, on the integers 0 to 255."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers that a tensor is rounded to; `per_channel` gives each slice of dimension 0 a scale of its own."""

    low: int = 0
    high: int = 255
    symmetric: bool = False
    per_channel: bool = False
    averaging: float = 0.01
    eps: float = EPS

    @property
    def zero(self) -> int:
        """The integer that a symmetric grid puts zero on."""
        return 0 if self.low < 0 else (self.low + self.high + 1) // 2

    def parameters(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale (float32) and zero point (int32) for values from `low` to `high`, both [] or [channels]."""
        least, most = low.clamp(max=0), high.clamp(min=0)
        if self.symmetric:
            scale = torch.maximum(-least, most) / ((self.high - self.low) / 2)
            return scale.clamp(min=self.eps), torch.full_like(scale, self.zero, dtype=torch.int32)
        scale = ((most - least) / (self.high - self.low)).clamp(min=self.eps)
        return scale, (self.low - torch.round(least / scale)).clamp(self.low, self.high).to(torch.int32)


class _Exact(nn.Module):
    """A module whose numbers stay float32 when the model around it goes to half precision."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            after = self._buffers[name]
            if buffer is not None and after is not None and after.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(after.device)
        return self

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        # A grid per channel has one number until it has seen a tensor, so shapes follow what is loaded.
        for name, buffer in self._buffers.items():
            found = state.get(prefix + name)
            if found is not None and buffer is not None and found.shape != buffer.shape:
                self._buffers[name] = torch.empty_like(buffer).resize_(found.shape)
        super()._load_from_state_dict(state, prefix, *rest)


class Observer(_Exact):
    """The moving average of a tensor's least and greatest value."""

    eps: Tensor
    min_val: Tensor
    max_val: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        unseen: float | list[float] = [] if grid.per_channel else float("inf")
        self.register_buffer("eps", torch.tensor([grid.eps]))
        self.register_buffer("min_val", torch.tensor(unseen))
        self.register_buffer("max_val", torch.tensor(unseen).neg())
        self._has_seen = False

    @property
    def has_seen(self) -> bool:
        """Whether it saw a tensor; asked of the device until it did, and not again."""
        if not self._has_seen:
            self._has_seen = bool(self.min_val.numel()) and bool(torch.isfinite(self.min_val).all())
        return self._has_seen

    def forward(self, x: Tensor) -> None:
        """Take in a tensor of any shape; per channel, [channels, ...]."""
        if not x.numel():
            return
        if self.grid.per_channel:
            low, high = torch.aminmax(x.reshape(x.shape[0], -1), dim=1)
        else:
            low, high = torch.aminmax(x)
        if self.has_seen:
            self.min_val += self.grid.averaging * (low.float() - self.min_val)
            self.max_val += self.grid.averaging * (high.float() - self.max_val)
        else:
            self.min_val, self.max_val = low.float(), high.float()


class Fixed(_Exact):
    """The scale and zero point of a range known beforehand, where an observer would be."""

    scale: Tensor
    zero_point: Tensor
    has_seen = True

    def __init__(self, scale: float, zero_point: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([scale]))
        self.register_buffer("zero_point", torch.tensor([zero_point], dtype=torch.int32))


class FakeQuantize(_Exact):
    """Round a tensor to its grid and back, in float32; the gradient passes where nothing was cut off.

    Its observer learns in training mode alone: an evaluation changes no scale, nor does an activation that is computed
    again for its gradient. Until it has learned anything the tensor passes as it is.
    """

    fake_quant_enabled: Tensor
    observer_enabled: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, grid: Grid, fixed: tuple[float, int] | None = None) -> None:
        super().__init__()
        self.grid = grid
        scale, zero_point = fixed or (1.0, 0)
        self.register_buffer("fake_quant_enabled", torch.ones(1, dtype=torch.uint8))
        self.register_buffer("observer_enabled", torch.ones(1, dtype=torch.uint8))
        self.register_buffer("scale", torch.tensor([scale]))
        self.register_buffer("zero_point", torch.tensor([zero_point], dtype=torch.int32))
        self.activation_post_process: Observer | Fixed = Fixed(*fixed) if fixed else Observer(grid)
        # The flags' twins on the host: reading a buffer would wait for a GPU at every layer.
        self._observes, self._quantizes = True, True

    @property
    def observes(self) -> bool:
        """Whether its observer still learns in training mode."""
        return self._observes

    def observe(self, on: bool) -> None:
        """Let the observer learn, or freeze it."""
        self._observes = on
        self.observer_enabled.fill_(int(on))

    @property
    def is_active(self) -> bool:
        """Whether it changes a tensor."""
        return self._quantizes and self.activation_post_process.has_seen

    def forward(self, x: Tensor) -> Tensor:
        """Observe and round a tensor of any shape; its dtype stays."""
        self.learn(x)
        return self.round(x)

    @torch.no_grad()
    def learn(self, x: Tensor) -> None:
        """Move the scale towards the tensor's range, where that is due."""
        observer = self.activation_post_process
        if not (self.training and self._observes and isinstance(observer, Observer)) or _is_recomputed():
            return
        observer(x.detach())
        if observer.has_seen:
            scale, zero_point = self.grid.parameters(observer.min_val, observer.max_val)
            self.scale, self.zero_point = scale.reshape(-1), zero_point.reshape(-1)

    def round(self, x: Tensor) -> Tensor:
        """Round a tensor to the grid as it is now."""
        if not self.is_active:
            return x
        low, high = self.grid.low, self.grid.high
        if self.grid.per_channel:
            rounded = torch.fake_quantize_per_channel_affine(x.float(), self.scale, self.zero_point, 0, low, high)
        else:
            rounded = torch.fake_quantize_per_tensor_affine(x.float(), self.scale, self.zero_point, low, high)
        return rounded.to(x.dtype)

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state, prefix, *rest)
        self._observes = bool(self.observer_enabled)
        self._quantizes = bool(self.fake_quant_enabled)
        if isinstance(self.activation_post_process, Observer):
            self.activation_post_process._has_seen = False


def _is_recomputed() -> bool:
    # A forward pass within a backward one is gradient checkpointing, whose first pass has learned already.
    return torch._C._current_graph_task_id() != -1


def quantizers(model: nn.Module) -> list[FakeQuantize]:
    """Return a model's fake quantisers, in its order."""
    return [module for module in model.modules() if isinstance(module, FakeQuantize)]
