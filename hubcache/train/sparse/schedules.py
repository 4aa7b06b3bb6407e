"""A recipe's learning rates, weight decay and frozen parameters, at work on an optimizer.

Rates are closed forms of the step, so that a resumed run meets them again; there is no torch scheduler here.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from hubcache.errors import BadConfig
from hubcache.train.sparse.actions import Action, Quiet, Training
from hubcache.train.sparse.matching import matching
from hubcache.train.tasks.nearest import nearest

_ROUNDING = 1e-9


class RateAction(Quiet):
    """An action that sets learning rates: at each step of its window, and what it set last stays.

    Of several, the one that set a group's rate last holds, also where a run is resumed.
    """

    def window(self, training: Training) -> tuple[float, float]:
        """Return the first and the last step at which a rate is set."""
        raise NotImplementedError

    def rate(self, training: Training, epoch: float) -> float:
        """Return the learning rate of a step of the window."""
        raise NotImplementedError

    def update(self, training: Training, epoch: float) -> None:
        """Set the rate of this step."""
        step = training.step_at(epoch)
        first, last = self.window(training)
        if first <= step <= last:
            self._set(training, step)

    def restore(self, training: Training, epoch: float) -> None:
        """Set the rate that the steps before `epoch` left."""
        first, last = self.window(training)
        step = min(training.step_at(epoch) - 1, last)
        if first <= step:
            self._set(training, int(step))

    def _set(self, training: Training, step: int) -> None:
        rate = self.rate(training, step / training.steps_per_epoch)
        for group in chosen_groups(training, getattr(self.definition, "param_groups", None)):
            if training.rates.get(group, (-1, 0.0))[0] <= step:
                training.rates[group] = (step, rate)


class SetLearningRate(RateAction):
    """One rate, set once."""

    def window(self, training: Training) -> tuple[float, float]:
        """Return the one step."""
        first = training.first_step(self.definition.start_epoch)
        return first, first

    def rate(self, training: Training, epoch: float) -> float:
        """Return the rate."""
        return float(self.definition.learning_rate)


class LearningRateFunction(RateAction):
    """A linear, cosine or cyclic linear rate between two epochs; the value at the end stays."""

    def window(self, training: Training) -> tuple[float, float]:
        """Return the steps from the start to the first at or after the end."""
        definition = self.definition
        return training.first_step(definition.start_epoch), training.end_step(definition.end_epoch)

    def rate(self, training: Training, epoch: float) -> float:
        """Return the rate; past a fractional end it is the end's, where SparseML falls below it."""
        definition = self.definition
        start, end = max(definition.start_epoch, 0.0), definition.end_epoch
        if definition.lr_func == "cyclic_linear":
            return _cyclic_linear(definition, min(epoch, end), training.steps_per_epoch)
        share = (min(epoch, end) - start) / (end - start)
        if definition.lr_func == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return float(definition.init_lr + share * (definition.final_lr - definition.init_lr))


def _cyclic_linear(definition: Any, epoch: float, steps_per_epoch: int) -> float:
    """Fall from init to final in each cycle, the last as short as the end makes it; the end begins a new one."""
    start = max(definition.start_epoch, 0.0)
    cycle = definition.cycle_epochs * steps_per_epoch
    total = (definition.end_epoch - start) * steps_per_epoch
    done = (epoch - start) * steps_per_epoch
    begun = math.floor(done / cycle + _ROUNDING) * cycle
    length, within = min(cycle, total - begun), max(done - begun, 0.0)
    if length <= 1 or within > length - _ROUNDING:
        return float(definition.init_lr)
    return float(definition.init_lr - min(within / (length - 1), 1.0) * (definition.init_lr - definition.final_lr))


class LearningRate(RateAction):
    """A rate as one of torch's schedulers gives it, counted in epochs since the start; milestones are epochs."""

    def __init__(self, definition: Any) -> None:
        super().__init__(definition)
        start, end = max(definition.start_epoch, 0.0), definition.end_epoch
        self._options = {_TORCH_NAMES.get(name, name): value for name, value in definition.lr_kwargs.items()}
        self._rate, known = _CLASSES[definition.lr_class]
        for name in self._options:
            if name not in known:
                where = f"LearningRateModifier: {definition.lr_class}"
                raise BadConfig(f"{where} has no {name!r}", hint=nearest(name, known))
        if "milestones" in self._options:
            milestones = self._options["milestones"]
            if any(at <= start or 0 <= end <= at for at in milestones):
                raise BadConfig(f"LearningRateModifier: milestones {milestones} must lie within {start:g} to {end:g}")
            self._options["milestones"] = [at - start for at in milestones]
        self._rate_at(0.0)

    def window(self, training: Training) -> tuple[float, float]:
        """Return the steps from the start to the last before the end."""
        definition = self.definition
        return training.first_step(definition.start_epoch), training.end_step(definition.end_epoch) - 1

    def rate(self, training: Training, epoch: float) -> float:
        """Return the rate."""
        return self._rate_at(epoch - max(self.definition.start_epoch, 0.0))

    def _rate_at(self, since: float) -> float:
        try:
            return self._rate(float(self.definition.init_lr), since, **self._options)
        except TypeError as error:
            name = self.definition.lr_class
            raise BadConfig(f"LearningRateModifier: lr_kwargs {self._options} do not fit {name}") from error


def _step(init: float, since: float, step_size: float, gamma: float = 0.1) -> float:
    return init * gamma ** math.floor(since / step_size + _ROUNDING)


def _multi_step(init: float, since: float, milestones: Sequence[float], gamma: float = 0.1) -> float:
    return init * gamma ** bisect_right(sorted(milestones), since + _ROUNDING)


def _exponential(init: float, since: float, gamma: float) -> float:
    return init * gamma ** math.floor(since + _ROUNDING)


def _restarts(init: float, since: float, cycle_epochs: float, lr_min: float = 0.0, T_mult: float = 1) -> float:
    length = float(cycle_epochs)
    while since + _ROUNDING >= length:
        since = max(since - length, 0.0)
        length *= T_mult
    return lr_min + (init - lr_min) * (1 + math.cos(math.pi * since / length)) / 2


_TORCH_NAMES = {"T_0": "cycle_epochs", "eta_min": "lr_min"}
"""SparseML's names stand for torch's; both are taken."""
_CLASSES: dict[str, tuple[Callable[..., float], tuple[str, ...]]] = {
    "StepLR": (_step, ("step_size", "gamma")),
    "MultiStepLR": (_multi_step, ("milestones", "gamma")),
    "ExponentialLR": (_exponential, ("gamma",)),
    "CosineAnnealingWarmRestarts": (_restarts, ("cycle_epochs", "lr_min", "T_mult")),
}


class SetWeightDecay(Quiet):
    """A weight decay, set once.

    Without explicit groups, one of vectors alone without decay (biases and norms) stays as it is; SparseML sets it.
    """

    def update(self, training: Training, epoch: float) -> None:
        """Set it at the start."""
        if training.step_at(epoch) == training.first_step(self.definition.start_epoch):
            self._set(training)

    def restore(self, training: Training, epoch: float) -> None:
        """Set it where the start is past."""
        if training.step_at(epoch) > training.first_step(self.definition.start_epoch):
            self._set(training)

    def _set(self, training: Training) -> None:
        explicit = self.definition.param_groups
        for number in chosen_groups(training, explicit):
            group = training.optimizer.param_groups[number]
            if explicit or group["weight_decay"] or any(parameter.dim() > 1 for parameter in group["params"]):
                group["weight_decay"] = float(self.definition.weight_decay)


class TrainableParams(Quiet):
    """Parameters that train or do not, from a start to an end, where they are again as they were."""

    def __init__(self, definition: Any) -> None:
        super().__init__(definition)
        self._before: dict[Tensor, bool] = {}

    def update(self, training: Training, epoch: float) -> None:
        """Set or restore at the start and the end."""
        step = training.step_at(epoch)
        if step == training.first_step(self.definition.start_epoch):
            self._begin(training)
        if step == training.end_step(self.definition.end_epoch):
            self._finish()

    def restore(self, training: Training, epoch: float) -> None:
        """Set where the start is past and the end is not."""
        step = training.step_at(epoch)
        if training.first_step(self.definition.start_epoch) < step <= training.end_step(self.definition.end_epoch):
            self._begin(training)

    def _begin(self, training: Training) -> None:
        trainable = bool(self.definition.trainable)
        for parameter in self._matching(training).values():
            self._before[parameter] = parameter.requires_grad
            _set_trainable(parameter, trainable)
        optimized = {id(one) for group in training.optimizer.param_groups for one in group["params"]}
        if trainable and any(id(parameter) not in optimized for parameter in self._before):
            training.say("TrainableParamsModifier: some parameters are not in the optimizer and stay as they are")

    def _matching(self, training: Training) -> dict[str, Tensor]:
        try:
            return matching(training.model, self.definition.params, where="TrainableParamsModifier")
        except BadConfig as error:
            if self.definition.params_strict:
                raise
            training.say(f"{error.message}; {error.hint}")
            return {}

    def _finish(self) -> None:
        for parameter, before in self._before.items():
            _set_trainable(parameter, before)
        self._before = {}


def _set_trainable(parameter: Tensor, trainable: bool) -> None:
    parameter.requires_grad_(trainable)
    if not trainable:
        parameter.grad = None


def chosen_groups(training: Training, wanted: Iterable[int] | None) -> list[int]:
    """Return the numbers of the optimizer's parameter groups that are meant; none named is all.

    Raises: BadConfig for a group that the optimizer does not have.
    """
    count = len(training.optimizer.param_groups)
    chosen = list(wanted or range(count))
    if any(not 0 <= number < count for number in chosen):
        raise BadConfig(f"recipe: param_groups {chosen}: the optimizer has {count} groups, from 0")
    return chosen


def claim_rates(training: Training) -> None:
    """Hold every group at the rate it began with until an action sets another: recipes leave a scheduler no say."""
    for number, group in enumerate(training.optimizer.param_groups):
        training.rates[number] = (-1, float(group.get("initial_lr", group["lr"])))


def write_rates(training: Training) -> None:
    """Give the optimizer the rates that recipes want."""
    for number, (_, rate) in training.rates.items():
        group = training.optimizer.param_groups[number]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


ACTIONS: dict[str, Callable[[Any], Action]] = {
    "SetLearningRateModifier": SetLearningRate,
    "LearningRateFunctionModifier": LearningRateFunction,
    "LearningRateModifier": LearningRate,
    "SetWeightDecayModifier": SetWeightDecay,
    "TrainableParamsModifier": TrainableParams,
}
