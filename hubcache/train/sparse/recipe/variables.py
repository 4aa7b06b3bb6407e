"""A recipe's variables: expressions over each other, in any order, to values; not the arithmetic itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from hubcache.errors import BadConfig
from hubcache.train.sparse.recipe import expressions
from hubcache.train.sparse.recipe.document import Expression, Lines, Place, Tagged


def resolve_all(raw: Mapping[str, Any], outer: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Return these variables' values over those of `outer`, which they hide.

    A variable that names itself means the outer one. Raises BadConfig: unknown names, cycles by name, no number.
    """
    uses = {name: _names(value) for name, value in raw.items()}
    graph = {name: {used for used in uses[name] if used in raw and not (used == name in outer)} for name in raw}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        raise place.wrong(f"variables go round in a circle: {cycle}", _line(raw[error.args[1][0]])) from None
    values = dict(outer)
    for name in order:
        values[name] = resolve(raw[name], values, place)
    return values


def resolve(value: Any, values: Mapping[str, Any], place: Place) -> Any:
    """Return a value with every `eval(…)` in it computed.

    Raises BadConfig.
    """
    if isinstance(value, str):
        source = expressions.inside(value)
        return value if source is None else _computed(value, source, values, place)
    if isinstance(value, list):
        return [resolve(each, values, place) for each in value]
    if isinstance(value, Lines):
        return Lines({key: resolve(each, values, place) for key, each in value.items()}, value.lines)
    return {key: resolve(each, values, place) for key, each in value.items()} if isinstance(value, dict) else value


def find_tagged(value: Any) -> Tagged | None:
    """Return the first modifier in a value, None where it holds none."""
    if isinstance(value, Tagged):
        return value
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for each in held if (found := find_tagged(each)) is not None), None)


def _computed(text: str, source: str, values: Mapping[str, Any], place: Place) -> Any:
    try:
        return expressions.evaluate(source, values)
    except BadConfig as error:
        raise place.wrong(f"{text[:60]}: {error.message}", _line(text), error.hint) from error


def _names(value: Any) -> set[str]:
    if isinstance(value, str):
        source = expressions.inside(value)
        return set() if source is None else {source, *expressions.names_in(source)}
    held: Callable[[], Any] = value.values if isinstance(value, dict) else lambda: value
    return {name for each in held() for name in _names(each)} if isinstance(value, (dict, list)) else set()


def _line(value: Any) -> int | None:
    return value.line if isinstance(value, Expression) else None
