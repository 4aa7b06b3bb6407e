"""Quantisation schemes of the scheme form: names and partial mappings to whole mappings; nothing here quantises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubcache.errors import BadConfig
from hubcache.train.sparse.recipe import values

Scheme = dict[str, Any]
PARTS = ("input_activations", "weights", "output_activations")
ALIASES = ("default", "deepsparse", "tensorrt")
_BITS: dict[str, values.Reader] = {
    "num_bits": values.whole(2, 8),
    "symmetric": values.flag,
    "strategy": values.one_of("tensor", "channel"),
    "kwargs": values.mapping,
}


def read_scheme(value: Any, default: Scheme | None = None) -> Scheme:
    """Read a scheme, its parts filled in: input_activations, weights, output_activations (each None or
    {num_bits, symmetric, strategy, kwargs}) and target_hardware; the name `default` is `default` where given.

    Raises BadConfig.
    """
    if isinstance(value, str):
        return _named(value, default)
    if not isinstance(value, Mapping):
        raise BadConfig(f"{values.short(value)} is no quantisation scheme: {', '.join(ALIASES)} or a mapping")
    unknown = [key for key in value if key not in (*PARTS, "target_hardware")]
    if unknown:
        raise BadConfig(f"a quantisation scheme has no {values.short(unknown[0])}: it has {', '.join(PARTS)}")
    base = _named("default", None)
    scheme = {part: _part(value[part]) if part in value else base[part] for part in PARTS}
    return scheme | {"target_hardware": values.optional(values.word)(value.get("target_hardware"))}


def read_overrides(value: Any, scheme: Scheme) -> dict[str, Scheme]:
    """Read schemes by module type or name; `default` stands for the modifier's own scheme.

    Raises BadConfig.
    """
    if not isinstance(value, Mapping):
        raise BadConfig(f"{values.short(value)} is no mapping of module to scheme")
    return {values.word(module): read_scheme(held, scheme) for module, held in value.items()}


def _named(name: str, default: Scheme | None) -> Scheme:
    if name not in ALIASES:
        raise BadConfig(f"{name!r} is no quantisation scheme: {', '.join(ALIASES)} or a mapping")
    if name == "default" and default is not None:
        return dict(default)
    return {
        "input_activations": _bits(symmetric=name == "tensorrt"),
        "weights": _bits(symmetric=True),
        "output_activations": None,
        "target_hardware": None if name == "default" else name,
    }


def _part(value: Any) -> Scheme | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise BadConfig(f"{values.short(value)} is no mapping of num_bits, symmetric, strategy")
    unknown = [key for key in value if key not in _BITS]
    if unknown:
        raise BadConfig(f"quantisation has no {values.short(unknown[0])}: it has {', '.join(_BITS)}")
    return _bits(symmetric=False) | {key: _BITS[key](held) for key, held in value.items()}


def _bits(*, symmetric: bool) -> Scheme:
    return {"num_bits": 8, "symmetric": symmetric, "strategy": "tensor", "kwargs": {}}
