"""Child-Tuning: let only a part of the gradient through at each optimizer step, drawn anew (F) or by Fisher (D).

It builds no optimizer for a training run and reads no data: it masks the gradients of the optimizer that is there.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

TASK_FREE = "ChildTuning-F"
TASK_DRIVEN = "ChildTuning-D"
MASKS_FILE = "child_tuning_masks.safetensors"
_CHUNK = 1 << 24
_EVERYWHERE: list[RemovableHandle] = []  # torch's registry of hooks is the process's, and so is what we put there

_log = logging.getLogger(__name__)


class Masker(Protocol):
    """Masks the gradients of some parameters in place, just before they are used."""

    def __call__(self, parameters: Iterable[Tensor]) -> None: ...


class TaskFreeMask:
    """Keep each gradient value with probability reserve_p, scaled by 1 / reserve_p (Child-Tuning-F).

    It has no state of its own: one Bernoulli tensor a parameter comes from torch's default generator of the
    gradient's device, in the order of the parameters, so that restoring torch's random state (as the Trainer does)
    restores the masks. With several processes, all take the masks of the first, or the replicas would drift apart.
    Source: Xu et al. 2021, arXiv 2109.05687.
    """

    def __init__(self, reserve_p: float) -> None:
        self.reserve_p = _checked_share(reserve_p)

    def __call__(self, parameters: Iterable[Tensor]) -> None:
        generator_for = _shared_generators()
        for _, grad in _with_gradient(parameters):
            # A low-precision gradient still gets its mask from float32: bfloat16 cannot write most shares.
            share = torch.full_like(grad, self.reserve_p, dtype=torch.promote_types(grad.dtype, torch.float32))
            mask = torch.bernoulli(share, generator=generator_for(grad.device))
            grad.mul_(mask.div_(self.reserve_p))


class TaskDrivenMask:
    """Multiply each gradient by its parameter's fixed mask, unscaled (Child-Tuning-D); others pass whole.

    Its state is the masks, which no optimizer or random state holds: save_masks and load_masks, or compute them anew.
    Source: Xu et al. 2021, arXiv 2109.05687.
    """

    def __init__(self, masks: Mapping[Tensor, Tensor]) -> None:
        self.masks = {parameter: mask.to(parameter.device) for parameter, mask in masks.items()}

    def __call__(self, parameters: Iterable[Tensor]) -> None:
        for parameter, grad in _with_gradient(parameters):
            if parameter in self.masks:
                grad.mul_(self.masks[parameter])


class ChildTuningAdamW(Optimizer):
    """AdamW as the Child-Tuning reference has it, masking in its step.

    Unlike torch's AdamW it decays the weights after the update and adds eps to the uncorrected square root.
    mode is "ChildTuning-F", "ChildTuning-D" (call set_gradient_mask first; the masks are not in state_dict) or None.

    Raises: ValueError for a mode it does not know (the reference takes any for F) or a number out of range.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        reserve_p: float = 0.2,
        mode: str | None = TASK_FREE,
    ) -> None:
        if mode not in (TASK_FREE, TASK_DRIVEN, None):
            raise ValueError(_unknown_mode(mode))
        if lr < 0 or eps < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"lr={lr} and eps={eps} must not be negative, betas={betas} must be in [0, 1)")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "correct_bias": correct_bias}
        super().__init__(params, defaults)
        self.mode = mode
        self.reserve_p = _checked_share(reserve_p)
        self._driven: TaskDrivenMask | None = None

    def set_gradient_mask(self, gradient_mask: Mapping[Tensor, Tensor]) -> None:
        """Set the masks of mode D, one of each parameter's shape; parameters without one keep the whole gradient."""
        self._driven = TaskDrivenMask(gradient_mask)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Mask the gradients in place and update the parameters; return the closure's loss.

        Raises: RuntimeError for a sparse gradient, or in mode D before set_gradient_mask.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            self._masker()(_parameters(self))
            for group in self.param_groups:
                for parameter, grad in _with_gradient(group["params"]):
                    self._update(parameter, grad, group)
        return loss

    def _masker(self) -> Masker:
        if self.mode is None:
            return TaskDrivenMask({})
        if self.mode == TASK_FREE:
            return TaskFreeMask(self.reserve_p)
        if self._driven is None:
            raise RuntimeError(f"{TASK_DRIVEN} has no masks yet: call set_gradient_mask(masks) before step()")
        return self._driven

    def _update(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2), lr = self.state[parameter], group["betas"], group["lr"]
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        mean = state["exp_avg"].mul_(beta1).add_(grad, alpha=1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        size = lr
        if group["correct_bias"]:
            size = lr * math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
        parameter.addcdiv_(mean, _square_root(square).add_(group["eps"]), value=-size)
        if group["weight_decay"] > 0:
            parameter.add_(parameter, alpha=-lr * group["weight_decay"])


def mask_gradients(optimizer: Any, masker: Masker) -> RemovableHandle:
    """Mask the gradients of any torch optimizer at each real step; the handle's remove() ends it.

    A wrapper (accelerate's) is looked through, so that steps it only accumulates draw nothing; what came before the
    step, such as clipping, saw the whole gradient.

    Raises: RuntimeError if the optimizer masks already, or lacks a parameter that has a mask; at a step with a
    closure (its gradients are not there yet) or with a sparse gradient.
    """
    inner = _innermost(optimizer)
    if _masks_already(inner):
        raise RuntimeError(f"{type(inner).__name__} masks its gradients already: masking twice would thin them twice")
    missing = set(getattr(masker, "masks", ())) - set(_parameters(inner))
    if missing:
        raise RuntimeError(
            f"{len(missing)} masked parameters are not in {type(inner).__name__}: frozen, or flattened by FSDP or"
            f" DeepSpeed, which {TASK_DRIVEN} does not support"
        )
    return inner.register_step_pre_hook(_BeforeStep(masker))


class _BeforeStep:
    """The hook itself, a class so that an optimizer can be asked whether it has one."""

    def __init__(self, masker: Masker) -> None:
        self.masker = masker

    def __call__(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # args[0] is the optimizer itself.
        if kwargs.get("closure") is not None or any(argument is not None for argument in args[1:]):
            raise RuntimeError("Child-Tuning masks gradients before the step; a closure makes them inside it")
        with torch.no_grad():
            self.masker(_parameters(optimizer))


def apply_child_tuning(mode: str = TASK_FREE, reserve_p: float = 0.2) -> RemovableHandle:
    """Mask the steps of every torch optimizer of this process from now on, whoever makes it; a later call replaces.

    The handle's remove(), or leaving `with apply_child_tuning():`, ends it. Optimizers that mask by themselves stay
    as they are. The reference patches transformers.AdamW, which transformers 5 no longer has.

    Raises: RuntimeError for mode D (its masks need a model and data: apply_child_tuning_to_trainer), ValueError for
    a mode that is unknown.
    """
    if mode == TASK_DRIVEN:
        raise RuntimeError(f"{TASK_DRIVEN} needs a model and its data: use apply_child_tuning_to_trainer(trainer)")
    if mode != TASK_FREE:
        raise ValueError(_unknown_mode(mode))
    before_step = _BeforeStep(TaskFreeMask(reserve_p))

    def hook(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if _innermost(optimizer) is optimizer and not _masks_already(optimizer):
            before_step(optimizer, args, kwargs)

    while _EVERYWHERE:
        _EVERYWHERE.pop().remove()
    _EVERYWHERE.append(register_optimizer_step_pre_hook(hook))
    return _EVERYWHERE[0]


def apply_child_tuning_to_trainer(
    trainer: Any, mode: str = TASK_FREE, reserve_p: float = 0.2, masks: Mapping[str, Tensor] | None = None
) -> None:
    """Child-tune what a transformers Trainer trains, with whatever optimizer it has; a later call replaces.

    Mode D takes `masks` (name -> bool tensor), else computes them now, in one pass over the training data; they are
    kept in each checkpoint and taken from there on resuming. Mode F has nothing to keep: see TaskFreeMask.

    Raises: ValueError for a mode that is unknown or, in mode D, data without a length.
    """
    if mode not in (TASK_FREE, TASK_DRIVEN):
        raise ValueError(_unknown_mode(mode))
    if mode == TASK_DRIVEN and masks is None:
        masks = calculate_fisher_of_trainer(trainer, reserve_p)
    trainer.pop_callback(ChildTuningCallback)
    trainer.add_callback(ChildTuningCallback(reserve_p, masks if mode == TASK_DRIVEN else None))


class ChildTuningCallback(TrainerCallback):
    """Mask the optimizer's gradients while a Trainer trains: by `masks` where they are given, else at random."""

    def __init__(self, reserve_p: float, masks: Mapping[str, Tensor] | None) -> None:
        self.reserve_p = _checked_share(reserve_p)
        self.masks = masks
        self._handle: RemovableHandle | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hook the optimizer, which exists only now; on resuming, the checkpoint's masks replace computed ones."""
        self._unhook()  # a training that an exception ended left its hook behind
        if self.masks is not None and state.global_step > 0:
            self.masks = _resumed_masks(_checkpoint(args, state), self.masks)
        masker: Masker = TaskFreeMask(self.reserve_p)
        if self.masks is not None:
            masker = TaskDrivenMask(masks_by_parameter(kwargs["model"], self.masks))
        self._handle = mask_gradients(kwargs["optimizer"], masker)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the masks beside the checkpoint's weights."""
        folder = _checkpoint(args, state)
        # A hyperparameter search saves elsewhere, and its trials are never resumed.
        if self.masks is not None and state.is_world_process_zero and folder.is_dir():
            save_masks(self.masks, folder)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the optimizer as it was."""
        self._unhook()

    def _unhook(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = None


def calculate_fisher_of_trainer(trainer: Any, reserve_p: float) -> dict[str, Tensor]:
    """Return mode D's masks from one pass over a Trainer's own training batches, loss and max_grad_norm."""

    def loss_of(model: Any, batch: Any) -> Tensor:
        with trainer.accelerator.autocast():
            return trainer.compute_loss(model, {name: value for name, value in batch.items() if name != "idx"})

    if trainer.args.gradient_checkpointing:
        trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    batches = trainer.get_train_dataloader()
    return calculate_fisher(trainer.model, batches, loss_of, reserve_p, trainer.args.max_grad_norm)


def calculate_fisher(
    model: nn.Module,
    batches: Iterable[Any],
    loss_of: Callable[[nn.Module, Any], Tensor],
    reserve_p: float,
    max_grad_norm: float = 1.0,
) -> dict[str, Tensor]:
    """Return name -> bool mask, True on the reserve_p share of the values with the most Fisher information.

    One threshold holds for all the parameters that fisher_information covers.

    Raises: ValueError for batches without a length, or a gradient that is not finite.
    """
    fisher = fisher_information(model, batches, loss_of, max_grad_norm)
    threshold = fisher_threshold(fisher.values(), reserve_p)
    return {name: values >= threshold for name, values in fisher.items()}


def fisher_information(
    model: nn.Module,
    batches: Iterable[Any],
    loss_of: Callable[[nn.Module, Any], Tensor],
    max_grad_norm: float = 1.0,
) -> dict[str, Tensor]:
    """Return name -> the mean over batches of the squared gradient (float32), for names that contain "layer".

    Each tensor's gradient is first clipped to max_grad_norm on its own; 0 or less means 1.0. The model runs in
    training mode (dropout is on) and keeps its own afterwards; gradients are cleared. Processes share their means.

    Raises: ValueError for batches without a length, or a gradient that is not finite.
    """
    if not isinstance(batches, Sized):
        raise ValueError(f"{TASK_DRIVEN} takes a mean over all training batches: it needs data with a length")
    limit = max_grad_norm if max_grad_norm > 0 else 1.0
    covered = {name: p for name, p in model.named_parameters() if "layer" in name and p.requires_grad}
    fisher = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in covered.items()}
    was_training = model.training
    model.train()
    for batch in batches:
        model.zero_grad()
        loss_of(model, batch).backward()
        for name, parameter in covered.items():
            if parameter.grad is not None:
                nn.utils.clip_grad_norm_(parameter, limit)
                fisher[name] += parameter.grad.float() ** 2 / len(batches)
    model.zero_grad()
    model.train(was_training)
    _average_over_processes(fisher)
    return fisher


def fisher_threshold(fisher: Iterable[Tensor], reserve_p: float) -> float:
    """Return the (1 - reserve_p) quantile of all values, interpolated linearly as numpy 1's percentile does.

    The values (float32, none negative) are counted where they lie, by radix: neither copied together nor sorted.

    Raises: ValueError for no values, or values that are not finite.
    """
    tensors = list(fisher)
    total = sum(int(values.numel()) for values in tensors)
    if not total:
        raise ValueError(f'{TASK_DRIVEN} found no trainable parameter with "layer" in its name')
    if not all(bool(values.isfinite().all()) for values in tensors):
        raise ValueError("the Fisher information is not finite: some training batch's loss or gradient is not")
    position = (total - 1) * ((1 - _checked_share(reserve_p)) * 100 / 100)
    rank = math.floor(position)
    low, high = order_statistic(tensors, rank), order_statistic(tensors, min(rank + 1, total - 1))
    gap, fraction = float(np.float32(high) - np.float32(low)), position - rank
    return low + gap * fraction if fraction < 0.5 else high - gap * (1 - fraction)


def order_statistic(tensors: Iterable[Tensor], rank: int) -> float:
    """Return the rank-th smallest (from 0) of all values of several float32 tensors, none of them negative."""
    # Floats that are not negative sort as their bits do: 15 bits choose a bin, the other 16 the value in it.
    bits = [values.reshape(-1).view(torch.int32) for values in tensors]
    upper, rank = _bin_of(rank, (chunk >> 16 for chunk in _chunks(bits)))
    lower, _ = _bin_of(rank, (chunk[chunk >> 16 == upper] & 0xFFFF for chunk in _chunks(bits)))
    return float(np.array(upper << 16 | lower, np.int32).view(np.float32))


def masks_by_parameter(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[Tensor, Tensor]:
    """Return the masks keyed by the model's own parameters, as set_gradient_mask and TaskDrivenMask take them.

    Raises: ValueError for a mask whose parameter the model does not have, or not in that shape.
    """
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            raise ValueError(f"the mask {name} {list(mask.shape)} fits no parameter of {type(model).__name__}")
    return {parameters[name]: mask for name, mask in masks.items()}


def save_masks(masks: Mapping[str, Tensor], folder: Path) -> None:
    """Write mode D's masks into a checkpoint's folder, one byte a value."""
    partial = folder / f"{MASKS_FILE}.partial"
    save_file({name: mask.contiguous() for name, mask in masks.items()}, partial)
    os.replace(partial, folder / MASKS_FILE)


def load_masks(folder: Path) -> dict[str, Tensor]:
    """Read mode D's masks (name -> bool tensor) from a checkpoint's folder."""
    return dict(load_file(folder / MASKS_FILE))


def _resumed_masks(checkpoint: Path, computed: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if (checkpoint / MASKS_FILE).exists():
        return load_masks(checkpoint)
    _log.warning("%s holds no Child-Tuning masks: training goes on with those computed now", checkpoint)
    return computed


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _parameters(optimizer: Any) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _innermost(optimizer: Any) -> Any:
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _masks_already(optimizer: Any) -> bool:
    hooks = optimizer._optimizer_step_pre_hooks.values()
    return isinstance(optimizer, ChildTuningAdamW) or any(isinstance(hook, _BeforeStep) for hook in hooks)


def _with_gradient(parameters: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            raise RuntimeError("Child-Tuning does not support sparse gradients: use nn.Embedding(..., sparse=False)")
        yield parameter, parameter.grad


def _shared_generators() -> Callable[[torch.device], torch.Generator | None]:
    """Return device -> generator: the default one (None), or with several processes one that they seed alike."""
    if _processes() == 1:
        return lambda _: None
    generators: dict[torch.device, torch.Generator] = {}
    seed = torch.randint(2**62, (1,))

    def generator_for(device: torch.device) -> torch.Generator:
        if not generators:
            shared = seed.to(device)
            distributed.broadcast(shared, src=0)
            seed.copy_(shared)
        if device not in generators:
            generators[device] = torch.Generator(device).manual_seed(int(seed))
        return generators[device]

    return generator_for


def _average_over_processes(tensors: Mapping[str, Tensor]) -> None:
    if _processes() == 1:
        return
    for values in tensors.values():
        distributed.all_reduce(values)
        values.div_(_processes())


def _processes() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _bin_of(rank: int, keys: Iterable[Tensor]) -> tuple[int, int]:
    """Return the bin that holds the rank-th smallest of 16-bit keys, and the rank inside it."""
    counts = torch.zeros(1 << 16, dtype=torch.int64)
    for chunk in keys:
        counts += torch.bincount(chunk, minlength=1 << 16).cpu()
    ends = counts.cumsum(0)
    chosen = int(torch.searchsorted(ends, rank, right=True))
    return chosen, rank - int(ends[chosen] - counts[chosen])


def _chunks(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    for values in tensors:
        yield from values.split(_CHUNK)


def _checked_share(reserve_p: float) -> float:
    if not 0 < reserve_p <= 1:
        raise ValueError(f"reserve_p={reserve_p} is the share of the gradient that is kept: above 0, at most 1")
    return reserve_p


def _square_root(values: Tensor) -> Tensor:
    # torch takes MKL's float32 root on a CPU, which on AMD is off by the last digit for one value in six (measured);
    # numpy's is exact everywhere, as the reference's was.
    if values.device.type != "cpu" or values.dtype is not torch.float32:
        return values.sqrt()
    array = values.numpy()
    return torch.from_numpy(np.sqrt(array, out=np.empty_like(array)))


def _unknown_mode(mode: object) -> str:
    return f"unknown Child-Tuning mode {mode!r}: {TASK_FREE} or {TASK_DRIVEN}"
