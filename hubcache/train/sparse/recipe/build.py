"""A `!Modifier` and its arguments to a value of its class, or an error that names the line and the nearest name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from typing import Any

from hubcache.errors import BadConfig
from hubcache.train.sparse.recipe import values
from hubcache.train.sparse.recipe.document import Place, Tagged
from hubcache.train.sparse.recipe.modifiers import (
    LEGACY_ARGUMENTS,
    MODIFIERS,
    GlobalMagnitudePruningModifier,
    GMPruningModifier,
    LegacyQuantizationModifier,
    Modifier,
    QuantizationModifier,
)
from hubcache.train.sparse.recipe.variables import resolve

_DEPRECATED: Mapping[str, values.Reader] = {
    "phased": values.only((False, 0, None), "asks for phases: hubcache prunes without them"),
    "score_type": values.only(("magnitude", None), "is no score: hubcache prunes by magnitude"),
    "global_sparsity": values.flag,
}
"""What GMPruningModifier alone took, and what of it may still be said."""


def build(tagged: Tagged, scope: Mapping[str, Any], place: Place, *, later: bool) -> Modifier:
    """Make a modifier; `later` says that another stage follows, which is where quantisation may name an end.

    Raises BadConfig.
    """
    kind = _kind(tagged, place)
    given = {name: resolve(held, scope, place) for name, held in tagged.held.items()}
    given.pop("log_types", None)  # the reference drops it too
    if kind is GMPruningModifier:
        kind = _without_deprecated(given, tagged, place)
    if later and kind in (QuantizationModifier, LegacyQuantizationModifier):
        given.pop("end_epoch", None)
    read = _read(kind, given, tagged, place)
    try:
        return kind(**read)
    except BadConfig as error:
        raise place.wrong(error.message, tagged.line) from error


def _kind(tagged: Tagged, place: Place) -> type[Modifier]:
    kinds = {kind.yaml_tag(): kind for kind in MODIFIERS}
    if tagged.name not in kinds:
        names = {name.removesuffix("Modifier").lower(): name for name in kinds}
        near = get_close_matches(tagged.name.rpartition(".")[2].removesuffix("Modifier").lower(), names, 1)
        hint = f"did you mean !{names[near[0]]}?" if near else f"there are {', '.join(sorted(kinds))}"
        raise place.wrong(f"there is no modifier !{tagged.name[:80]}", tagged.line, hint)
    if kinds[tagged.name] is QuantizationModifier and LEGACY_ARGUMENTS & set(tagged.held):
        return LegacyQuantizationModifier
    return kinds[tagged.name]


def _without_deprecated(given: dict[str, Any], tagged: Tagged, place: Place) -> type[Modifier]:
    is_global = False
    for name, read in _DEPRECATED.items():
        if name in given:
            held = _value(read, name, given.pop(name), tagged, place)
            is_global = is_global or (name == "global_sparsity" and held)
    return GlobalMagnitudePruningModifier if is_global else GMPruningModifier


def _read(kind: type[Modifier], given: Mapping[str, Any], tagged: Tagged, place: Place) -> dict[str, Any]:
    known = {argument.name: argument for argument in fields(kind)}
    for name in given:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(known))}"
            line = tagged.lines.get(name, tagged.line)
            raise place.wrong(f"!{tagged.name} has no argument {values.short(name)}", line, hint)
    absent = [name for name, argument in known.items() if name not in given and _is_required(argument)]
    if absent:
        raise place.wrong(f"!{tagged.name} needs {' and '.join(absent)}", tagged.line)
    return {name: _value(known[name].metadata["read"], name, held, tagged, place) for name, held in given.items()}


def _value(read: values.Reader, name: str, held: Any, tagged: Tagged, place: Place) -> Any:
    try:
        return read(held)
    except BadConfig as error:
        line = tagged.lines.get(name, tagged.line)
        raise place.wrong(f"!{tagged.name}: {name}: {error.message}", line, error.hint) from error


def _is_required(argument: Field[Any]) -> bool:
    return argument.default is MISSING and argument.default_factory is MISSING
