"""A recipe's text to a Recipe: overrides, variables, stages, modifiers; what a modifier may hold is modifiers.py's.

Grammar: SparseML 1.6.1's; what differs from the reference is listed in docs/recipes.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hubcache.errors import BadConfig
from hubcache.train.sparse.recipe import values
from hubcache.train.sparse.recipe.arguments import parse_arguments
from hubcache.train.sparse.recipe.build import build
from hubcache.train.sparse.recipe.document import LONGEST, Lines, Place, Tagged, front_matter, load
from hubcache.train.sparse.recipe.modifiers import Modifier
from hubcache.train.sparse.recipe.plan import Recipe, Stage, ordered, staged
from hubcache.train.sparse.recipe.variables import find_tagged, resolve_all

METADATA = "__metadata__"
Arguments = Mapping[str, Any] | str | None


def read_recipe(path: Path | str, *, arguments: Arguments = None) -> Recipe:
    """Read a .yaml, .yml or .md file; the latter holds its recipe between --- or +++ fences.

    Raises BadConfig.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in {".yaml", ".yml", ".md"}:
        raise BadConfig(f"{path} is no recipe: its name ends in none of .yaml, .yml, .md")
    try:
        if path.stat().st_size > 4 * LONGEST:
            raise BadConfig(f"{path} is too large for a recipe: {path.stat().st_size} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise BadConfig(f"{path} cannot be read: {reason}") from error
    if suffix == ".md":
        return parse_recipe(text, where=str(path), arguments=arguments, fenced=True)
    return _parsed(text, Place(str(path)), parse_arguments(arguments))


def parse_recipe(text: str, *, where: str = "", arguments: Arguments = None, fenced: bool = False) -> Recipe:
    """Read a recipe's text: what stands between its first fences, or all of it where there are none.

    `where` names the text in errors; `arguments` are new values for its variables; `fenced` refuses a text
    without fences. Raises BadConfig, naming the line.
    """
    block = front_matter(text)
    if block is None and fenced:
        raise Place(where).wrong("no recipe between fences", hint="a line --- above it and one below")
    inner, above = block or (text, 0)
    return _parsed(inner, Place(where, above), parse_arguments(arguments))


def _parsed(text: str, place: Place, arguments: Mapping[str, Any]) -> Recipe:
    tree = load(text, place)
    if isinstance(tree, Tagged):
        if arguments:
            raise place.wrong(f"there is no variable {next(iter(arguments))!r}: the recipe is one modifier")
        return Recipe((build(tree, {}, place, later=False),))
    if isinstance(tree, list):
        raise place.wrong("a list of modifiers without a name", 0, "put it under a key: modifiers:")
    if not isinstance(tree, Lines):
        raise _nothing(place)
    _override(tree, arguments, place)
    found = _staged(tree, place) if _stage_names(tree) else _single(tree, place)
    if not found.modifiers:
        raise _nothing(place)
    return found


def _nothing(place: Place) -> BadConfig:
    return place.wrong("it holds no modifiers", hint="list them under a key with `modifiers` in its name")


def _override(tree: Lines, arguments: Mapping[str, Any], place: Place) -> None:
    """Set variables, in every stage that has one of that name too."""
    known = list(_variables(tree, place))
    for name, value in arguments.items():
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}"
            raise place.wrong(f"there is no variable {name!r} to set", hint=hint)
        tree[name] = value
        for stage in _stage_names(tree):
            if name in tree[stage]:
                tree[stage][name] = value


def _single(tree: Lines, place: Place) -> Recipe:
    scope = resolve_all(_variables(tree, place), {}, place)
    modifiers = _modifiers(tree, scope, place, later=False)
    return Recipe(ordered(modifiers), _metadata(tree, place) or {}, _shown(scope))


def _staged(tree: Lines, place: Place) -> Recipe:
    scope = resolve_all(_variables(tree, place), {}, place)
    for name, held in tree.items():
        if "modifiers" in name and name not in _stage_names(tree) and find_tagged(held):
            raise place.wrong(f"{name} stands beside stages", tree.lines[name], "move its modifiers into a stage")
    stages, metadata = [], {}
    names = _stage_names(tree)
    for name in names:
        inner: Lines = tree[name]
        known = resolve_all(_variables(inner, place), scope, place)
        stages.append(Stage(name, ordered(_modifiers(inner, known, place, later=name != names[-1]))))
        metadata[name] = _metadata(inner, place)
    return staged(stages, metadata, _shown(scope))


def _stage_names(tree: Lines) -> list[str]:
    """Name the mappings that hold modifiers."""
    return [
        name
        for name, held in tree.items()
        if isinstance(held, Lines) and any("modifiers" in key for key in held if isinstance(key, str))
    ]


def _variables(tree: Lines, place: Place) -> dict[str, Any]:
    """Return what is neither modifiers, a stage nor metadata.

    Raises BadConfig: a modifier stands among them.
    """
    stages = _stage_names(tree)
    found = {}
    for name, held in tree.items():
        if not isinstance(name, str):
            raise place.wrong(f"{values.short(name)} is no name of a variable", tree.lines[name])
        if "modifiers" in name or name in stages or name == METADATA:
            continue
        stray = find_tagged(held)
        if stray is not None:
            hint = f"modifiers stand in lists under a key with `modifiers` in its name: {name}_modifiers"
            raise place.wrong(f"!{stray.name} stands under {name!r}", stray.line, hint)
        if "modifier" not in name:
            found[name] = held
    return found


def _modifiers(tree: Lines, scope: Mapping[str, Any], place: Place, *, later: bool) -> list[Modifier]:
    found = []
    for name, held in tree.items():
        if "modifiers" not in name or name in _stage_names(tree):
            continue
        if isinstance(held, list):
            found += [_one(each, name, scope, place, later=later, line=tree.lines[name]) for each in held]
        elif isinstance(held, (dict, Tagged)):
            raise place.wrong(f"{name} is no list", tree.lines[name], "begin each modifier with a dash: - !Modifier")
    return found


def _one(each: Any, name: str, scope: Mapping[str, Any], place: Place, *, later: bool, line: int) -> Modifier:
    if not isinstance(each, Tagged):
        raise place.wrong(f"{name} holds {values.short(each)}, no modifier", line, "each begins: - !Modifier")
    return build(each, scope, place, later=later)


def _metadata(tree: Lines, place: Place) -> dict[str, Any] | None:
    held = tree.get(METADATA)
    if held is None or held == "None":  # what the reference writes for a stage that has none
        return None
    try:
        return values.mapping({str(key): value for key, value in values.pairs(held).items()})
    except BadConfig as error:
        raise place.wrong(f"{METADATA}: {error.message}", tree.lines[METADATA]) from error


def _shown(scope: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in scope.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(held) for key, held in value.items()}
    return [_plain(held) for held in value] if isinstance(value, list) else value
