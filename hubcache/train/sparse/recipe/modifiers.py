"""What a recipe can ask for, one value a modifier, named as its tag; nothing here touches a model.

Argument names and defaults: SparseML 1.6.1's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from hubcache.errors import BadConfig
from hubcache.train.sparse.recipe import schemes, values

LEGACY_ARGUMENTS = frozenset(
    {
        "activation_bits",
        "activation_qconfig_kwargs",
        "custom_quantizable_module_types",
        "exclude_batchnorm",
        "exclude_module_types",
        "quantize_conv_activations",
        "quantize_embedding_activations",
        "quantize_embeddings",
        "quantize_linear_activations",
        "reduce_range",
        "submodules",
        "tensorrt",
        "weight_bits",
        "weight_qconfig_kwargs",
    }
)
"""Any of these makes a QuantizationModifier the legacy form."""
_FREQUENCY: Any = {"read": values.frequency}
_GROUPS: Any = {"read": values.optional(values.groups)}
_FLAG: Any = {"read": values.flag}
_NAMES: Any = {"read": values.optional(values.words)}
_EPOCH: Any = {"read": values.optional(values.epoch)}
_MAPPING: Any = {"read": values.optional(values.mapping)}
_SCHEME: Any = {"read": schemes.read_scheme}
_SHARE: Any = {"read": values.between(0, 1)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Modifier:
    """One thing a recipe asks for, from `start_epoch` to `end_epoch` (epochs; -1 is "at once" and "to the end").

    Raises BadConfig, naming the argument, where a value does not fit.
    """

    tag: ClassVar[str] = ""
    start_epoch: float = field(default=-1.0, metadata={"read": values.epoch})
    end_epoch: float = field(default=-1.0, metadata={"read": values.epoch})

    def __post_init__(self) -> None:
        for argument in fields(self):
            try:
                read = argument.metadata["read"](getattr(self, argument.name))
            except BadConfig as error:
                raise BadConfig(f"{type(self).yaml_tag()}: {argument.name}: {error.message}") from error
            object.__setattr__(self, argument.name, read)
        self.check()

    @classmethod
    def yaml_tag(cls) -> str:
        """Return the tag without its `!`."""
        return cls.tag or cls.__name__

    def check(self) -> None:
        """Hold arguments against each other.

        Raises BadConfig.
        """
        if self.end_epoch != -1 and self.end_epoch < self.start_epoch:
            raise self.wrong(f"end_epoch {self.end_epoch:g} is before start_epoch {self.start_epoch:g}")

    def wrong(self, why: str) -> BadConfig:
        """Make the error for arguments that do not go together."""
        return BadConfig(f"{type(self).yaml_tag()}: {why}")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that hold something, sorted by name, tuples as lists."""
        held = {argument.name: getattr(self, argument.name) for argument in fields(self)}
        return {name: _listed(held[name]) for name in sorted(held) if held[name] is not None}

    def shifted(self, epochs: float) -> Modifier:
        """Return the same `epochs` later; what had no start begins then."""
        return replace(self, start_epoch=max(self.start_epoch, 0.0) + epochs, end_epoch=_later(self.end_epoch, epochs))

    def ended(self, epoch: float) -> Modifier:
        """Return the same with an end, where it had none."""
        return replace(self, end_epoch=max(epoch, self.start_epoch)) if self.end_epoch == -1 else self

    def rank(self) -> tuple[float, float, str]:
        """Return what the order of applying sorts by: end (none is last), start, class and a digest of arguments."""
        shown = "&".join(f"{name}:{held!r}" for name, held in self.arguments().items())
        digest = hashlib.md5(shown.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
        end = float("inf") if self.end_epoch == -1 else self.end_epoch
        return (end, self.start_epoch, f"{type(self).yaml_tag()}-{digest}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Windowed(Modifier):
    """A modifier that interpolates, so its window needs both ends."""

    def check(self) -> None:
        """Hold the window: the end lies after the start.

        Raises BadConfig.
        """
        if self.end_epoch <= self.start_epoch:
            raise self.wrong(f"end_epoch {self.end_epoch:g} must be after start_epoch {self.start_epoch:g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRangeModifier(Modifier):
    """Set how many epochs the run has, nothing else."""

    start_epoch: float = field(metadata={"read": values.epoch})
    end_epoch: float = field(metadata={"read": values.epoch})


@dataclass(frozen=True, kw_only=True, slots=True)
class SetLearningRateModifier(Modifier):
    """Set the learning rate once."""

    learning_rate: float = field(metadata={"read": values.between(0, 1, above=True)})
    param_groups: tuple[int, ...] | None = field(default=None, metadata=_GROUPS)
    constant_logging: bool = field(default=False, metadata=_FLAG)


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningRateFunctionModifier(_Windowed):
    """Move the learning rate from `init_lr` to `final_lr`, every step; `cycle_epochs` is cyclic_linear's length."""

    start_epoch: float = field(metadata={"read": values.epoch})
    end_epoch: float = field(metadata={"read": values.epoch})
    lr_func: str = field(metadata={"read": values.one_of("linear", "cosine", "cyclic_linear")})
    init_lr: float = field(metadata=_SHARE)
    final_lr: float = field(metadata=_SHARE)
    cycle_epochs: float = field(default=1.0, metadata={"read": values.between(0, 1e6, above=True)})
    param_groups: tuple[int, ...] | None = field(default=None, metadata=_GROUPS)
    update_frequency: float = field(default=-1.0, metadata=_FREQUENCY)


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningRateModifier(Modifier):
    """Drive the learning rate by one of torch's schedules, its keywords in epochs."""

    lr_class: str = field(
        metadata={"read": values.one_of("StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingWarmRestarts")}
    )
    lr_kwargs: Mapping[str, Any] = field(metadata={"read": values.mapping})
    init_lr: float = field(metadata={"read": values.between(0, 1, above=True)})
    constant_logging: bool = field(default=False, metadata=_FLAG)
    update_frequency: float = field(default=-1.0, metadata=_FREQUENCY)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstantPruningModifier(Modifier):
    """Keep the zeros a parameter has; `params` are names, `re:` patterns, `__ALL__` or `__ALL_PRUNABLE__`."""

    params: str | tuple[str, ...] = field(metadata={"read": values.params})
    update_frequency: float = field(default=-1.0, metadata=_FREQUENCY)


@dataclass(frozen=True, kw_only=True, slots=True)
class GMPruningModifier(_Windowed):
    """Prune the smallest weights step by step to `final_sparsity`, or to {sparsity: names} with `params` empty."""

    start_epoch: float = field(metadata={"read": values.epoch})
    end_epoch: float = field(metadata={"read": values.epoch})
    init_sparsity: float | str = field(metadata={"read": values.init_sparsity})
    final_sparsity: float | Mapping[float, tuple[str, ...]] = field(metadata={"read": values.final_sparsity})
    update_frequency: float = field(default=-1.0, metadata=_FREQUENCY)
    params: str | tuple[str, ...] = field(metadata={"read": values.params})
    leave_enabled: bool = field(default=True, metadata=_FLAG)
    inter_func: str = field(default="cubic", metadata={"read": values.one_of("cubic", "linear", "inverse_cubic")})
    mask_type: str | tuple[int, int] = field(default="unstructured", metadata={"read": values.mask_type})

    def check(self) -> None:
        """Hold the window, and names against the mapping form.

        Raises BadConfig.
        """
        _Windowed.check(self)
        if isinstance(self.final_sparsity, Mapping) == bool(self.params):
            raise self.wrong("params names what is pruned, or is [] where final_sparsity maps sparsity to names")


@dataclass(frozen=True, kw_only=True, slots=True)
class MagnitudePruningModifier(GMPruningModifier):
    """GMPruningModifier's newer name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalMagnitudePruningModifier(GMPruningModifier):
    """The same, the smallest weights taken over all parameters together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Quantizing(Modifier):
    """What both forms of the tag QuantizationModifier share."""

    tag: ClassVar[str] = "QuantizationModifier"
    disable_quantization_observer_epoch: float | None = field(default=None, metadata=_EPOCH)
    freeze_bn_stats_epoch: float | None = field(default=None, metadata=_EPOCH)
    num_calibration_steps: int | None = field(default=None, metadata={"read": values.optional(values.whole(0, 10**9))})
    model_fuse_fn_name: str | None = field(default=None, metadata={"read": values.optional(values.word)})
    model_fuse_fn_kwargs: Mapping[str, Any] | None = field(default=None, metadata=_MAPPING)

    def check(self) -> None:
        """Hold the epochs: no end, and nothing frozen before quantisation starts.

        Raises BadConfig.
        """
        if self.end_epoch != -1:
            raise self.wrong(f"end_epoch must be -1, quantisation has no end; it is {self.end_epoch:g}")
        for name in ("disable_quantization_observer_epoch", "freeze_bn_stats_epoch"):
            epoch = getattr(self, name)
            if epoch is not None and epoch < self.start_epoch:
                raise self.wrong(f"{name} {epoch:g} is before start_epoch {self.start_epoch:g}")

    def shifted(self, epochs: float) -> Modifier:
        """Return the same `epochs` later, observers and statistics too."""
        moved: dict[str, Any] = {
            name: None if (epoch := getattr(self, name)) is None else _later(epoch, epochs)
            for name in ("disable_quantization_observer_epoch", "freeze_bn_stats_epoch")
        }
        return replace(self, start_epoch=max(self.start_epoch, 0.0) + epochs, **moved)

    def ended(self, epoch: float) -> Modifier:
        """Return itself: what is quantised stays so (the reference writes an end here that it refuses to read)."""
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class LegacyQuantizationModifier(_Quantizing):
    """Quantise by submodule, uint8 activations and symmetric int8 weights; the tag with any legacy argument."""

    submodules: tuple[str, ...] | None = field(default=None, metadata=_NAMES)
    reduce_range: bool = field(default=False, metadata=_FLAG)
    quantize_linear_activations: bool = field(default=True, metadata=_FLAG)
    quantize_conv_activations: bool = field(default=True, metadata=_FLAG)
    quantize_embedding_activations: bool = field(default=True, metadata=_FLAG)
    quantize_embeddings: bool = field(default=True, metadata=_FLAG)
    activation_bits: int = field(default=8, metadata={"read": values.whole(2, 8)})
    weight_bits: int = field(default=8, metadata={"read": values.whole(2, 8)})
    exclude_batchnorm: bool = field(default=True, metadata=_FLAG)
    exclude_module_types: tuple[str, ...] | None = field(default=None, metadata=_NAMES)
    custom_quantizable_module_types: tuple[str, ...] | None = field(default=None, metadata=_NAMES)
    activation_qconfig_kwargs: Mapping[str, Any] | None = field(default=None, metadata=_MAPPING)
    weight_qconfig_kwargs: Mapping[str, Any] | None = field(default=None, metadata=_MAPPING)
    tensorrt: bool = field(default=False, metadata=_FLAG)
    model_fuse_fn_name: str = field(default="conv_bn_relus", metadata={"read": values.word})


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizationModifier(_Quantizing):
    """Quantise by scheme; `scheme` and each of `scheme_overrides` hold every part (recipe/schemes.py)."""

    scheme: schemes.Scheme = field(default_factory=lambda: schemes.read_scheme("default"), metadata=_SCHEME)
    scheme_overrides: Mapping[str, schemes.Scheme] = field(default_factory=dict, metadata={"read": values.pairs})
    ignore: tuple[str, ...] = field(default=(), metadata={"read": values.words})
    strict: bool = field(default=True, metadata=_FLAG)
    model_fuse_fn_kwargs: Mapping[str, Any] = field(default_factory=dict, metadata={"read": values.mapping})

    def check(self) -> None:
        """Hold the epochs, and read the overrides, whose `default` is this modifier's own scheme.

        Raises BadConfig.
        """
        _Quantizing.check(self)
        object.__setattr__(self, "scheme_overrides", schemes.read_overrides(self.scheme_overrides, self.scheme))


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationModifier(Modifier):
    """Learn from a teacher's outputs: hardness is their share of the loss; keys None take every output."""

    hardness: float = field(default=0.5, metadata={"read": values.number})
    temperature: float = field(default=2.0, metadata={"read": values.between(0, 1e6, above=True)})
    distill_output_keys: tuple[str, ...] | None = field(default=None, metadata=_NAMES)
    teacher_input_keys: tuple[str, ...] | None = field(default=None, metadata=_NAMES)
    update_frequency: float = field(default=-1.0, metadata=_FREQUENCY)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetWeightDecayModifier(Modifier):
    """Set the optimizer's weight decay once."""

    weight_decay: float = field(metadata={"read": values.between(0, 1e6)})
    param_groups: tuple[int, ...] | None = field(default=None, metadata=_GROUPS)
    constant_logging: bool = field(default=False, metadata=_FLAG)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainableParamsModifier(Modifier):
    """Freeze or free parameters, put back at the end where there is one."""

    params: str | tuple[str, ...] = field(metadata={"read": values.params})
    trainable: bool = field(metadata=_FLAG)
    params_strict: bool = field(default=True, metadata=_FLAG)


MODIFIERS: tuple[type[Modifier], ...] = (
    EpochRangeModifier,
    SetLearningRateModifier,
    LearningRateFunctionModifier,
    LearningRateModifier,
    ConstantPruningModifier,
    GMPruningModifier,
    MagnitudePruningModifier,
    GlobalMagnitudePruningModifier,
    LegacyQuantizationModifier,
    QuantizationModifier,
    DistillationModifier,
    SetWeightDecayModifier,
    TrainableParamsModifier,
)


def _later(epoch: float, epochs: float) -> float:
    return epoch if epoch == -1 else epoch + epochs


def _listed(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_listed(held) for held in value]
    return {key: _listed(held) for key, held in value.items()} if isinstance(value, Mapping) else value
