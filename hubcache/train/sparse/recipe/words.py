"""What a modifier does, in a line of words for people; programs read the modifier itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hubcache.train.sparse.recipe import modifiers as kinds


def describe(modifier: kinds.Modifier) -> str:
    """Say what a modifier does, without the epochs it starts and ends at."""
    return next(words(modifier) for kind, words in _WORDS if isinstance(modifier, kind))


def _rate(modifier: kinds.SetLearningRateModifier) -> str:
    return f"learning rate {modifier.learning_rate:g}{_groups(modifier.param_groups)}"


def _rate_function(modifier: kinds.LearningRateFunctionModifier) -> str:
    cycle = f", cycles of {modifier.cycle_epochs:g} epochs" if modifier.lr_func == "cyclic_linear" else ""
    shape = modifier.lr_func.removeprefix("cyclic_")
    rates = f"{modifier.init_lr:g} to {modifier.final_lr:g}"
    return f"learning rate {rates}, {shape}{cycle}{_groups(modifier.param_groups)}"


def _rate_schedule(modifier: kinds.LearningRateModifier) -> str:
    told = ", ".join(f"{name} {value}" for name, value in modifier.lr_kwargs.items())
    return f"learning rate from {modifier.init_lr:g}, {modifier.lr_class}({told})"


def _constant(modifier: kinds.ConstantPruningModifier) -> str:
    return f"keep the zeros of {_params(modifier.params)}"


def _pruning(modifier: kinds.GMPruningModifier) -> str:
    begin = "what is" if isinstance(modifier.init_sparsity, str) else f"{modifier.init_sparsity:.4g}"
    if isinstance(modifier.final_sparsity, Mapping):
        shares = [f"{share:g} of {_params(names)}" for share, names in modifier.final_sparsity.items()]
        goal = f"{begin} to {', '.join(shares)}"
    else:
        goal = f"{begin} to {modifier.final_sparsity:.4g} of {_params(modifier.params)}"
    scope = " over all together" if isinstance(modifier, kinds.GlobalMagnitudePruningModifier) else ""
    step = {-1.0: "step", 1.0: "epoch"}.get(modifier.update_frequency, f"{modifier.update_frequency:g} epochs")
    after = "" if modifier.leave_enabled else ", then let go"
    return f"prune{scope} {goal}, {modifier.inter_func}, {modifier.mask_type}, every {step}{after}"


def _legacy(modifier: kinds.LegacyQuantizationModifier) -> str:
    where = _params(modifier.submodules) if modifier.submodules else "the whole model"
    parts = [f"quantise {where}: weights {modifier.weight_bits} bit, activations {modifier.activation_bits} bit"]
    parts += ["embeddings too"] if modifier.quantize_embeddings else []
    parts += [] if modifier.quantize_linear_activations else ["no outputs of linear layers"]
    parts += [f"without {_params(modifier.exclude_module_types)}"] if modifier.exclude_module_types else []
    return ", ".join(parts + _frozen(modifier))


def _scheme(modifier: kinds.QuantizationModifier) -> str:
    parts = [f"quantise: {_scheme_words(modifier.scheme)}"]
    parts += [f"{module}: {_scheme_words(held)}" for module, held in modifier.scheme_overrides.items()]
    parts += [f"without {_params(modifier.ignore)}"] if modifier.ignore else []
    return "; ".join(parts + _frozen(modifier))


def _scheme_words(scheme: Mapping[str, Any]) -> str:
    names = {"weights": "weights", "input_activations": "inputs", "output_activations": "outputs"}
    told = [
        f"{name} {part['num_bits']} bit{' by channel' if part['strategy'] == 'channel' else ''}"
        for key, name in names.items()
        if (part := scheme[key]) is not None
    ]
    return ", ".join(told) or "nothing"


def _frozen(modifier: kinds.LegacyQuantizationModifier | kinds.QuantizationModifier) -> list[str]:
    epoch = modifier.disable_quantization_observer_epoch
    return [] if epoch is None else [f"scales fixed at epoch {epoch:g}"]


def _distillation(modifier: kinds.DistillationModifier) -> str:
    outputs = _params(modifier.distill_output_keys) if modifier.distill_output_keys else "all outputs"
    labels = ", the labels are ignored" if modifier.hardness == 1 else ""
    return f"distil {outputs}: hardness {modifier.hardness:g}, temperature {modifier.temperature:g}{labels}"


def _decay(modifier: kinds.SetWeightDecayModifier) -> str:
    return f"weight decay {modifier.weight_decay:g}{_groups(modifier.param_groups)}"


def _trainable(modifier: kinds.TrainableParamsModifier) -> str:
    return f"{'train' if modifier.trainable else 'freeze'} {_params(modifier.params)}"


def _params(names: str | tuple[str, ...]) -> str:
    told = {"__ALL__": "every parameter", "__ALL_PRUNABLE__": "all prunable weights"}
    listed = [names] if isinstance(names, str) else list(names)
    more = [] if len(listed) <= 4 else [f"{len(listed) - 3} more"]
    return ", ".join([told.get(name, name) for name in listed[: 3 if more else 4]] + more) or "nothing"


def _groups(groups: tuple[int, ...] | None) -> str:
    return f" in parameter groups {', '.join(map(str, groups))}" if groups else ""


_WORDS: tuple[tuple[type[kinds.Modifier], Callable[[Any], str]], ...] = (
    (kinds.EpochRangeModifier, lambda _: "the epochs of the run"),
    (kinds.SetLearningRateModifier, _rate),
    (kinds.LearningRateFunctionModifier, _rate_function),
    (kinds.LearningRateModifier, _rate_schedule),
    (kinds.ConstantPruningModifier, _constant),
    (kinds.GMPruningModifier, _pruning),
    (kinds.LegacyQuantizationModifier, _legacy),
    (kinds.QuantizationModifier, _scheme),
    (kinds.DistillationModifier, _distillation),
    (kinds.SetWeightDecayModifier, _decay),
    (kinds.TrainableParamsModifier, _trainable),
    (kinds.Modifier, lambda modifier: type(modifier).yaml_tag()),
)
