"""Models with and without fake quantisation made one from the other, by recipe or by state keys; it trains nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from hubcache.train.sparse.quantization.fake import FakeQuantize, Grid, quantizers
from hubcache.train.sparse.quantization.layers import QUANTIZED, QuantWrapper, round_output, round_weight
from hubcache.train.sparse.quantization.plan import Definition, Place, places

_FLAG = ".fake_quant_enabled"
_INPUT, _WEIGHT, _OUTPUT = ".quant.activation_post_process", ".weight_fake_quant", ".activation_post_process"
_UNSEEN = {_INPUT: Grid(), _WEIGHT: Grid(-128, 127, symmetric=True), _OUTPUT: Grid()}


def restore_structure(model: nn.Module, definitions: Iterable[Definition]) -> None:
    """Give a model the layers that these definitions make, those that it has stay; no weight changes.

    Raises: BadConfig where a definition does not fit the model.
    """
    for definition in definitions:
        for place in places(model, definition):
            _put(model, place)


def structure_from_keys(model: nn.Module, state: Mapping[str, Tensor] | Iterable[str]) -> None:
    """Give a model the quantised layers that a checkpoint's keys name; with tensors, their grids, too.

    Names alone are read as the legacy form's: activations on 0 to 255, weights symmetric on -128 to 127.
    """
    tensors = state if isinstance(state, Mapping) else dict.fromkeys(state, torch.empty(0))
    known = dict(model.named_modules(remove_duplicate=False))
    for key in tensors:
        place = _place_of(key, tensors)
        if place and place.name in known:
            _put(model, place)


def has_quantization(keys: Iterable[str]) -> bool:
    """Tell whether state keys are those of a model with fake quantisation."""
    return any(key.endswith(_FLAG) for key in keys)


def is_quantized(model: nn.Module) -> bool:
    """Tell whether any layer of a model rounds."""
    return bool(quantizers(model))


def freeze_observers(model: nn.Module) -> None:
    """Keep every scale as it is from now on; layers still round."""
    for quantizer in quantizers(model):
        quantizer.observe(False)


def load_state(model: nn.Module, state: Mapping[str, Tensor], definitions: Iterable[Definition] = ()) -> list[str]:
    """Load a state with quantisation keys, first building the layers they need; return the keys that stayed random.

    Keys may have or lack the base model's prefix. What the state says beside the model is left aside, a tensor of
    another shape is not loaded (a new head). Definitions give the grids; layers they do not name come from the keys.
    Raises: BadConfig where a definition does not fit the model.
    """
    state = _prefixed(model, state)
    if has_quantization(state):
        restore_structure(model, definitions)
        structure_from_keys(model, state)
    own = model.state_dict(keep_vars=True)
    fits = {key: tensor for key, tensor in state.items() if key in own and _is_loadable(own[key], tensor, key)}
    model.load_state_dict(fits, strict=False)
    loaded = {id(own[key]) for key in fits}
    return [key for key, tensor in own.items() if key not in fits and id(tensor) not in loaded]


def _is_loadable(own: Tensor, tensor: Tensor, key: str) -> bool:
    # Scales and ranges per channel take the shape of what is loaded.
    return own.shape == tensor.shape or _FLAG in f".{key}" or any(f"{part}." in f".{key}" for part in _UNSEEN)


def _prefixed(model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    if prefix == ".":
        return state
    own = any(name.startswith(prefix) for name, _ in model.named_parameters())
    theirs = any(key.startswith(prefix) for key in state)
    if own and not theirs:
        return {f"{prefix}{key}": tensor for key, tensor in state.items()}
    if theirs and not own:
        return {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def _put(model: nn.Module, place: Place) -> None:
    parent, _, last = place.name.rpartition(".")
    holder = model.get_submodule(parent)
    layer = holder.get_submodule(last)
    inner = layer.module if isinstance(layer, QuantWrapper) else layer
    device = next((each.device for each in model.parameters()), None)
    if place.weight and type(inner) in QUANTIZED:
        round_weight(inner, FakeQuantize(place.weight).to(device))
    if place.output and "activation_post_process" not in inner._modules:
        round_output(inner, FakeQuantize(place.output, place.fixed).to(device))
    if place.input and layer is inner:
        setattr(holder, last, QuantWrapper(inner, FakeQuantize(place.input).to(device)))
        _rename_tied(model, place.name)


def _rename_tied(model: nn.Module, layer: str) -> None:
    # transformers saves tied weights once, and finds them by these names.
    for name, owner in model.named_modules():
        inside = f"{layer.removeprefix(f'{name}.')}."
        for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
            tied = getattr(owner, attribute, None)
            if isinstance(tied, Mapping) and (not name or layer.startswith(f"{name}.")):
                moved = {_moved(key, inside): _moved(source, inside) for key, source in tied.items()}
                setattr(owner, attribute, moved)


def _moved(key: str, inside: str) -> str:
    return f"{inside}module.{key.removeprefix(inside)}" if key.startswith(inside) else key


def _place_of(key: str, state: Mapping[str, Tensor]) -> Place | None:
    if not key.endswith(_FLAG):
        return None
    quantizer = key.removesuffix(_FLAG)
    for part in (_INPUT, _WEIGHT, _OUTPUT):
        if quantizer.endswith(part):
            break
    else:
        return None
    name = quantizer.removesuffix(part)
    if f"{name.removesuffix('.module')}{_INPUT}{_FLAG}" in state:
        name = name.removesuffix(".module")
    grid = _grid_of(quantizer, part, state)
    if part == _INPUT:
        return Place(name, input=grid)
    if part == _WEIGHT:
        return Place(name, weight=grid)
    known = state.get(f"{quantizer}{_OUTPUT}.scale")
    zero = state.get(f"{quantizer}{_OUTPUT}.zero_point")
    if known is None or zero is None:
        return Place(name, output=grid)
    fixed = (float(known), int(zero)) if known.numel() else (1.0 / 256, 0)
    return Place(name, output=Grid(), fixed=fixed)


def _grid_of(quantizer: str, part: str, state: Mapping[str, Tensor]) -> Grid:
    """Find the grid that gives this scale and zero point for this range; the part's usual one where none does."""
    names = ("scale", "zero_point", "activation_post_process.min_val", "activation_post_process.max_val")
    usual = _UNSEEN[part]
    with suppress(KeyError):
        scale, zero, low, high = (state[f"{quantizer}.{name}"].detach().cpu() for name in names)
        usual = replace(usual, per_channel=low.dim() > 0)
        if not low.numel() or not bool(torch.isfinite(low).all()):
            return usual
        return next((grid for grid in _grids(usual) if _gives(grid, (low, high), (scale, zero))), usual)
    return usual


def _grids(usual: Grid) -> Sequence[Grid]:
    signs = (True, False) if usual.low < 0 else (False, True)
    spans = [(-(2 ** (bits - 1)) if sign else 0, bits) for bits in range(8, 1, -1) for sign in signs]
    grids = [replace(usual, low=low, high=low + 2**bits - 1) for low, bits in spans]
    kinds = (usual.symmetric, not usual.symmetric)
    return [replace(grid, symmetric=symmetric) for symmetric in kinds for grid in grids]


def _gives(grid: Grid, extent: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> bool:
    scale, zero = grid.parameters(extent[0].float(), extent[1].float())
    return torch.allclose(scale.reshape(-1), found[0].float(), rtol=1e-5, atol=0) and torch.equal(
        zero.reshape(-1).int(), found[1].int()
    )
