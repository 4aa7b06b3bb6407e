"""A training step's forward and backward as one CUDA graph a shape of batch; the optimizer's step is not in it.

A small model spends its time on a GPU in being told what to do: replaying what was recorded tells it all at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MOST_PARAMETERS = 150_000_000
"""Above, a GPU computes longer than it is told; and each graph holds gradients of its own."""

MOST_GRAPHS = 16
PADDED_TO = 16
"""Batches are padded to multiples of so many tokens, so that few shapes occur."""

_Shape = tuple[tuple[str, torch.Size, torch.dtype], ...]


@dataclass(frozen=True, slots=True)
class _Recorded:
    graph: Any
    inputs: Mapping[str, Tensor]
    gradients: tuple[Tensor | None, ...]
    loss: Tensor


class StepGraphs:
    """Records `loss_of(batch).backward()` once a shape has been met twice, and replays it from then on.

    Gradients are written, not added: they must be cleared before, and one batch makes a step. What cannot be recorded
    (a model that asks the GPU for a value) is never tried again.
    """

    def __init__(self, loss_of: Callable[[Mapping[str, Tensor]], Tensor], parameters: Iterable[Tensor]) -> None:
        self.loss_of = loss_of
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.refused = ""
        self._met: Counter[_Shape] = Counter()
        self._recorded: dict[_Shape, _Recorded] = {}
        self._stream = torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()

    @property
    def recorded(self) -> int:
        """How many shapes are replayed."""
        return len(self._recorded)

    def step(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """Fill the parameters' gradients and return the loss, None where this batch is to be computed as usual."""
        shape = tuple((name, value.shape, value.dtype) for name, value in batch.items())
        self._met[shape] += 1
        if self.refused or self._met[shape] < 3:
            return None
        if shape not in self._recorded:
            if len(self._recorded) == MOST_GRAPHS:
                return None
            try:
                self._recorded[shape] = self._record(batch)
            except RuntimeError as error:
                self.refused = str(error).splitlines()[0]
                self._clear()
                return None
        return self._replay(self._recorded[shape], batch)

    def _record(self, batch: Mapping[str, Tensor]) -> _Recorded:
        inputs = {name: value.clone() for name, value in batch.items()}
        graph = torch.cuda.CUDAGraph()
        self._clear()
        torch.cuda.synchronize()
        # torch.cuda.graph() would collect garbage first, which takes longer than the graph saves.
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool)
            try:
                loss = self.loss_of(inputs)
                loss.backward()
            finally:
                graph.capture_end()
        torch.cuda.synchronize()
        return _Recorded(graph, inputs, tuple(parameter.grad for parameter in self.parameters), loss.detach())

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _replay(self, recorded: _Recorded, batch: Mapping[str, Tensor]) -> Tensor:
        for name, value in batch.items():
            recorded.inputs[name].copy_(value, non_blocking=True)
        recorded.graph.replay()
        for parameter, gradient in zip(self.parameters, recorded.gradients, strict=True):
            parameter.grad = gradient
        return recorded.loss
