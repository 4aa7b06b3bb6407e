"""A recipe's pruning at work: which weights are zero, and that they stay so through every optimizer.

State keys stay as they are: there is no parametrisation, only hooks on gradients and a product after each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from hubcache.train.sparse.actions import Action, Quiet, Training
from hubcache.train.sparse.masks import keep_masks, structure_of
from hubcache.train.sparse.matching import matching

FROM_PARAM = "__FROM_PARAM__"


class MaskedParameter:
    """A parameter and its mask (1 stays, 0 is pruned), of the parameter's device and dtype.

    A mask that was not given is made when it is first asked for, by `make`, else of what is not zero: until then
    weights may be loaded.
    """

    def __init__(self, parameter: Tensor, make: Callable[[], None] | None = None) -> None:
        self.parameter = parameter
        self._make = make or self.take_zeros
        self._mask: Tensor | None = None
        self._handle: RemovableHandle | None = None

    @property
    def mask(self) -> Tensor:
        """The mask."""
        if self._mask is None:
            self._make()
        assert self._mask is not None
        return self._mask

    def take_zeros(self) -> None:
        """Prune what is zero now."""
        with torch.no_grad():
            if self._mask is None:
                self._mask = torch.empty_like(self.parameter)
            torch.ne(self.parameter, 0, out=self._mask)

    def set(self, mask: Tensor) -> None:
        """Prune by that mask from now on."""
        if self._mask is None:
            self._mask = mask
        else:
            self._mask.copy_(mask)

    def hook(self) -> None:
        """Mask the gradients of every backward that comes; clipping sees them masked."""
        if self._handle is None and self.parameter.requires_grad:
            self._handle = self.parameter.register_post_accumulate_grad_hook(self._mask_gradient)

    def unhook(self) -> None:
        """Leave the gradients alone."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    def multiply(self) -> None:
        """Set the pruned weights to zero."""
        with torch.no_grad():
            self.parameter.mul_(self.mask)

    def _mask_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad.mul_(self.mask)


class PruningAction(Quiet):
    """What all pruning shares: parameters that are masked from a start on."""

    def __init__(self, definition: Any) -> None:
        super().__init__(definition)
        self.masked: dict[str, MaskedParameter] = {}

    def after_step(self, training: Training) -> None:
        """Set the pruned weights to zero again, whatever momentum and decay made of them."""
        for one in self.masked.values():
            one.multiply()

    def close(self, training: Training) -> None:
        """Take the hooks off and forget the masks."""
        for one in self.masked.values():
            one.unhook()
        self.masked = {}

    def _find(self, training: Training) -> None:
        found = matching(training.model, self.definition.params, where=type(self.definition).__name__)
        self.masked = {name: MaskedParameter(parameter) for name, parameter in found.items()}

    def _hook(self) -> None:
        for one in self.masked.values():
            one.hook()


class ConstantPruning(PruningAction):
    """Keep the zeros that are there: what is zero after a step stays so until the end."""

    def update(self, training: Training, epoch: float) -> None:
        """Take the zeros at the start; let go at the end, before its step."""
        step = training.step_at(epoch)
        if step == training.end_step(self.definition.end_epoch):
            self.close(training)
        elif step == training.first_step(self.definition.start_epoch):
            self._find(training)
            for one in self.masked.values():
                one.take_zeros()
        self._hook()

    def after_step(self, training: Training) -> None:
        """Set the pruned weights to zero; a kept one that came to zero is pruned from now on."""
        for one in self.masked.values():
            one.multiply()
            one.take_zeros()

    def restore(self, training: Training, epoch: float) -> None:
        """Mask what is zero when the first backward comes."""
        first = training.first_step(self.definition.start_epoch)
        if first < training.step_at(epoch) <= training.end_step(self.definition.end_epoch):
            self._find(training)
            self._hook()


class MagnitudePruning(PruningAction):
    """Prune the smallest weights of each parameter, more and more of them from the start to the end."""

    together = False

    def __init__(self, definition: Any) -> None:
        super().__init__(definition)
        self.structure = structure_of(definition.mask_type)
        self.initial: dict[str, float] = {}
        """The sparsity each parameter began with, which no resumed run can see any more: a checkpoint keeps it."""
        self.applied: dict[str, float] = {}
        """The sparsity that each parameter's last mask was chosen for."""
        self._final: dict[str, float] = {}

    @property
    def begins_as_found(self) -> bool:
        """Whether each parameter begins with the sparsity it has at the start."""
        return bool(self.definition.init_sparsity == FROM_PARAM)

    def update(self, training: Training, epoch: float) -> None:
        """Choose new masks where that is due; let go at the end where the recipe says so, after a last choice."""
        step, first = training.step_at(epoch), training.first_step(self.definition.start_epoch)
        last = training.end_step(self.definition.end_epoch)
        if step == first:
            self._begin(training)
        if step == last or (first <= step < last and (step - first) % self._interval(training) == 0):
            self._prune(epoch)
        if step == last and not self.definition.leave_enabled:
            self.after_step(training)
            self.close(training)
        self._hook()

    def restore(self, training: Training, epoch: float) -> None:
        """Mask again what the last choice before `epoch` masked: all of it is zero now, and so comes first again."""
        step, first = training.step_at(epoch), int(training.first_step(self.definition.start_epoch))
        last = int(training.end_step(self.definition.end_epoch))
        if step <= first or (step > last and not self.definition.leave_enabled):
            return
        interval = self._interval(training)
        chosen = last if step > last else first + (step - 1 - first) // interval * interval
        self._begin(training, lambda: self._prune(chosen / training.steps_per_epoch))
        self._hook()

    def sparsity(self, name: str, epoch: float) -> float:
        """Return the share of a parameter's weights that is pruned at an epoch."""
        definition = self.definition
        start, end = max(definition.start_epoch, 0.0), definition.end_epoch
        done = _INTERPOLATIONS[definition.inter_func](min((epoch - start) / (end - start), 1.0))
        return self.initial[name] + done * (self._final[name] - self.initial[name])

    def _begin(self, training: Training, make: Callable[[], None] | None = None) -> None:
        self._find_final(training)
        self.masked = {name: MaskedParameter(one.parameter, make) for name, one in self.masked.items()}
        for name, one in self.masked.items():
            self.initial.setdefault(name, self._initial(one.parameter))

    def _find_final(self, training: Training) -> None:
        """Find the parameters and where each is to end; of two sparsities for one, the first counts."""
        final = self.definition.final_sparsity
        wanted = final if isinstance(final, Mapping) else {final: self.definition.params}
        where = type(self.definition).__name__
        self.masked, self._final = {}, {}
        for sparsity, params in wanted.items():
            for name, parameter in matching(training.model, params, where=where).items():
                self._final.setdefault(name, self.structure.settled(float(sparsity)))
                self.masked[name] = MaskedParameter(parameter)

    def _initial(self, parameter: Tensor) -> float:
        if self.begins_as_found:
            return int((parameter == 0).sum()) / parameter.numel()
        return float(self.definition.init_sparsity)

    def _interval(self, training: Training) -> int:
        return max(1, int(training.first_step(self.definition.update_frequency)))

    def _prune(self, epoch: float) -> None:
        weights = [one.parameter for one in self.masked.values()]
        self.applied = {name: self.sparsity(name, epoch) for name in self.masked}
        masks = keep_masks(weights, list(self.applied.values()), self.structure, together=self.together)
        for one, mask in zip(self.masked.values(), masks, strict=True):
            one.set(mask)


class GlobalMagnitudePruning(MagnitudePruning):
    """Prune the smallest weights of all parameters taken together."""

    together = True


_INTERPOLATIONS: dict[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "cubic": lambda share: 1 - (1 - share) ** 3,
    "inverse_cubic": lambda share: 1 - (1 - share) ** (1 / 3),
}

ACTIONS: dict[str, Callable[[Any], Action]] = {
    "ConstantPruningModifier": ConstantPruning,
    "GMPruningModifier": MagnitudePruning,
    "MagnitudePruningModifier": MagnitudePruning,
    "GlobalMagnitudePruningModifier": GlobalMagnitudePruning,
}
