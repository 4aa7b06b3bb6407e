"""Which layers a recipe's quantisation rounds, and to which integers; it changes no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from torch import nn

from hubcache.errors import BadConfig
from hubcache.train.sparse.quantization.fake import FIXED, Grid
from hubcache.train.sparse.quantization.layers import QUANTIZED
from hubcache.train.sparse.recipe.modifiers import LegacyQuantizationModifier, QuantizationModifier
from hubcache.train.sparse.recipe.schemes import read_overrides, read_scheme

Definition = LegacyQuantizationModifier | QuantizationModifier
BATCH_NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")
WITHOUT_WEIGHTS = (
    *("LayerNorm", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "BatchNorm2d", "BatchNorm3d"),
    *("ELU", "Hardswish", "LeakyReLU", "PReLU", "ReLU6"),
    *("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"),
    *FIXED,
)
"""Types of layers whose inputs or outputs are rounded, and no weights; those that torch's eager mode observes."""
_ARGUMENTS = {"averaging_constant": "averaging", "eps": "eps"}


@dataclass(frozen=True, slots=True)
class Place:
    """A layer by name, and the grids of its input, weight and output; `fixed` is an output's known scale and zero."""

    name: str
    input: Grid | None = None
    weight: Grid | None = None
    output: Grid | None = None
    fixed: tuple[float, int] | None = None


def places(model: nn.Module, definition: Definition) -> list[Place]:
    """Return the layers of a model that a definition rounds, in the model's order.

    Raises: BadConfig for a name the model does not have, or a scheme that a layer cannot take.
    """
    if isinstance(definition, LegacyQuantizationModifier):
        return list(_legacy(model, definition))
    return list(_by_scheme(model, definition))


def _legacy(model: nn.Module, definition: LegacyQuantizationModifier) -> Iterator[Place]:
    roots = definition.submodules or ("",)
    known = dict(model.named_modules())
    for root in roots:
        if root not in known:
            raise BadConfig(f"the recipe quantises {root}, which the model does not have", hint=_near(root, known))
    excluded = {"Softmax", *(definition.exclude_module_types or ())}
    excluded |= set(BATCH_NORMS) if definition.exclude_batchnorm else set()
    for name, layer in known.items():
        kind = type(layer).__name__
        if not name or kind in excluded or (kind == "Embedding" and not definition.quantize_embeddings):
            continue
        if any(_is_in(name, root) for root in roots):
            place = _legacy_place(name, layer, definition)
        elif type(layer) is nn.Embedding:
            place = Place(name, weight=replace(_legacy_weight(definition), symmetric=False))
        else:
            place = Place(name)
        if place != Place(name):
            yield place


def _legacy_place(name: str, layer: nn.Module, definition: LegacyQuantizationModifier) -> Place:
    kind, activation, weight = type(layer).__name__, _legacy_activation(definition), _legacy_weight(definition)
    if type(layer) is nn.Embedding:
        return Place(name, weight=weight, output=activation if definition.quantize_embedding_activations else None)
    if type(layer) in QUANTIZED:
        is_linear = type(layer) is nn.Linear
        wanted = definition.quantize_linear_activations if is_linear else definition.quantize_conv_activations
        return Place(name, input=activation, weight=weight, output=activation if wanted else None)
    if kind in WITHOUT_WEIGHTS or kind in (definition.custom_quantizable_module_types or ()):
        fixed = FIXED.get(kind) if activation == Grid() else None
        return Place(name, output=activation, fixed=fixed)
    return Place(name)


def _legacy_activation(definition: LegacyQuantizationModifier) -> Grid:
    bits = definition.activation_bits - int(definition.reduce_range)
    grid = _signed(bits, symmetric=True) if definition.tensorrt else Grid(0, 2**bits - 1)
    return _tuned(grid, definition.activation_qconfig_kwargs or {})


def _legacy_weight(definition: LegacyQuantizationModifier) -> Grid:
    return _tuned(_signed(definition.weight_bits, symmetric=True), definition.weight_qconfig_kwargs or {})


def _by_scheme(model: nn.Module, definition: QuantizationModifier) -> Iterator[Place]:
    scheme = read_scheme(definition.scheme)
    overrides = read_overrides(definition.scheme_overrides, scheme)
    if definition.strict:
        _check_names(model, (*definition.ignore, *overrides))
    for name, layer in model.named_modules():
        if not name or _match(name, layer, definition.ignore):
            continue
        key = _match(name, layer, overrides)
        kind = type(layer).__name__
        if type(layer) in QUANTIZED or kind in WITHOUT_WEIGHTS or key == kind:
            yield _scheme_place(name, layer, overrides[key] if key else scheme)


def _scheme_place(name: str, layer: nn.Module, scheme: Mapping[str, Any]) -> Place:
    entry = _scheme_grid(scheme["input_activations"], name, is_weight=False)
    if type(layer) is nn.Embedding and entry:
        raise BadConfig(
            f"the scheme rounds the input of {name}, an embedding: its input are ids",
            hint="under scheme_overrides: Embedding: {input_activations: null, weights: {num_bits: 8}}",
        )
    weight = _scheme_grid(scheme["weights"], name, is_weight=True) if type(layer) in QUANTIZED else None
    return Place(name, entry, weight, _scheme_grid(scheme["output_activations"], name, is_weight=False))


def _scheme_grid(part: Mapping[str, Any] | None, name: str, *, is_weight: bool) -> Grid | None:
    if part is None:
        return None
    if part["strategy"] == "channel" and not is_weight:
        raise BadConfig(
            f"the scheme of {name} rounds activations per channel: weights alone can be", hint="strategy: tensor"
        )
    grid = replace(_signed(part["num_bits"], symmetric=part["symmetric"]), per_channel=part["strategy"] == "channel")
    return _tuned(grid, part["kwargs"])


def _signed(bits: int, *, symmetric: bool) -> Grid:
    return Grid(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, symmetric)


def _tuned(grid: Grid, arguments: Mapping[str, Any]) -> Grid:
    for name in arguments:
        if name not in _ARGUMENTS:
            raise BadConfig(f"an observer has no {name}: it has {', '.join(_ARGUMENTS)}")
    averaging, eps = arguments.get("averaging_constant", grid.averaging), arguments.get("eps", grid.eps)
    return replace(grid, averaging=float(averaging), eps=float(eps))


def _match(name: str, layer: nn.Module, targets: Iterable[str]) -> str | None:
    """Return the target that means this layer: the longest name it is in, else its type."""
    named = [target for target in targets if _is_in(name, target)]
    kind = type(layer).__name__
    return max(named, key=len) if named else (kind if kind in targets else None)


def _check_names(model: nn.Module, targets: Iterable[str]) -> None:
    known = {name: type(layer).__name__ for name, layer in model.named_modules()}
    for target in targets:
        if target not in known and target not in known.values():
            raise BadConfig(
                f"the recipe's quantisation names {target}, which is no module or type of the model",
                hint=f"{_near(target, {*known, *known.values()})}; strict: False lets it pass",
            )


def _is_in(name: str, root: str) -> bool:
    return not root or name == root or name.startswith(f"{root}.")


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, [each for each in known if each], 1, 0.3)
    return f"the model has {near[0]}" if near else "the model has no such name"
