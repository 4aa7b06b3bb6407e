"""YAML text to plain values that remember their lines; what they mean is read.py's.

PyYAML's safe loader with one addition, `!Name`; nothing here can name a Python class. Size and depth are bounded, also
what aliases unfold to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from hubcache.errors import BadConfig
from hubcache.train.sparse.recipe import expressions

LONGEST = 1 << 20  # characters
DEEPEST = 40
MOST_NODES = 50_000
_CONSTRUCTION = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)
_FENCE = re.compile(r"^(---|\+\+\+)[ \t\r]*$", re.MULTILINE)


class Lines(dict[Any, Any]):
    """A mapping that knows which line each key stands on."""

    __slots__ = ("lines",)

    def __init__(self, held: dict[Any, Any], lines: dict[Any, int]) -> None:
        super().__init__(held)
        self.lines = lines


class Expression(str):
    """A text that is `eval(…)`, and its line."""

    __slots__ = ("line",)

    line: int


@dataclass(frozen=True, slots=True)
class Tagged:
    """`!Name` and what is under it."""

    name: str
    held: Any
    line: int
    lines: dict[Any, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text stands: a name for errors, and how many lines come before it."""

    where: str = ""
    above: int = 0

    def wrong(self, why: str, line: int | None = None, hint: str = "") -> BadConfig:
        """Make an error that names the place; `line` counts from 0 in the text."""
        at = self.where or "the recipe"
        return BadConfig(f"{at}{f', line {line + self.above + 1}' if line is not None else ''}: {why}", hint=hint)


def front_matter(text: str) -> tuple[str, int] | None:
    """Return what stands between the first two fences (--- or +++) and the lines above it, None without such."""
    opening = _FENCE.search(text)
    if opening is None:
        return None
    for closing in _FENCE.finditer(text, opening.end()):
        if closing[1] == opening[1]:
            return text[opening.end() + 1 : closing.start()], text.count("\n", 0, opening.end()) + 1
    return None


def load(text: str, place: Place) -> Any:
    """Read YAML text: Lines, lists, scalars, Expression and Tagged.

    Raises BadConfig: no YAML, or larger than a recipe can be.
    """
    if len(text) > LONGEST:
        raise place.wrong(f"{len(text)} characters are too many for a recipe: {LONGEST} at most")
    try:
        _hold_bounds(text, place)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node, {}, place)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = (error.problem or error.context or "no YAML").replace("\n", " ")
        raise place.wrong(f"no YAML: {why}", mark.line if mark else None) from error
    except (yaml.YAMLError, *_CONSTRUCTION) as error:
        raise place.wrong(f"no YAML: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


def _hold_bounds(text: str, place: Place) -> None:
    """Read past everything once before anything is built: a parser's events take neither stack nor memory."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, _Loader)):
        if count > 2 * MOST_NODES:
            raise place.wrong(f"more than {MOST_NODES} values are too many for a recipe")
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1
        if depth > DEEPEST:
            raise place.wrong(f"nested deeper than {DEEPEST}", event.start_mark.line if event.start_mark else None)


def _measure(node: yaml.Node, known: dict[yaml.Node, tuple[int, int]], place: Place) -> tuple[int, int]:
    """Return how many nodes this one unfolds to, and how deep."""
    if node in known:
        return known[node]
    known[node] = (MOST_NODES, DEEPEST)  # met again inside itself
    held = node.value if isinstance(node, (yaml.SequenceNode, yaml.MappingNode)) else []
    inner = [each for pair in held for each in pair] if isinstance(node, yaml.MappingNode) else held
    sizes = [_measure(each, known, place) for each in inner]
    size = 1 + sum(count for count, _ in sizes)
    depth = 1 + max((height for _, height in sizes), default=0)
    if size > MOST_NODES or depth > DEEPEST + 1:
        raise place.wrong("its aliases unfold to more than a recipe can hold", node.start_mark.line)
    known[node] = (size, depth)
    return known[node]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # C where PyYAML was built with it
    """PyYAML's safe loader that keeps lines and knows `!Name`."""


def _mapping(loader: Any, node: yaml.MappingNode) -> Lines:
    loader.flatten_mapping(node)
    lines = {}
    held = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (dict, list, set, Tagged)):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a scalar", key_node.start_mark)
        lines[key] = key_node.start_mark.line
        held[key] = loader.construct_object(value_node, deep=True)
    return Lines(held, lines)


def _sequence(loader: Any, node: yaml.SequenceNode) -> list[Any]:
    return [loader.construct_object(each, deep=True) for each in node.value]


def _text(loader: Any, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    if expressions.inside(text) is None:
        return text
    found = Expression(text)
    found.line = node.start_mark.line
    return found


def _tagged(loader: Any, name: str, node: yaml.Node) -> Tagged:
    line = node.start_mark.line
    if isinstance(node, yaml.MappingNode):
        held = _mapping(loader, node)
        return Tagged(name, dict(held), line, held.lines)
    if isinstance(node, yaml.ScalarNode) and not node.value:
        return Tagged(name, {}, line)
    raise yaml.constructor.ConstructorError(None, None, f"!{name} holds no arguments by name", node.start_mark)


def _foreign(_loader: Any, name: str, node: yaml.Node) -> NoReturn:
    why = f"{name[:60]!r} is a tag that no recipe has"
    raise yaml.constructor.ConstructorError(None, None, why, node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _sequence)
_Loader.add_constructor("tag:yaml.org,2002:str", _text)
_Loader.add_multi_constructor("!", _tagged)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _foreign)
