"""A recipe to YAML that holds every argument and no variable; it reads back as the same recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from hubcache.train.sparse.recipe.modifiers import Modifier

if TYPE_CHECKING:
    from hubcache.train.sparse.recipe.plan import Recipe

VERSION = "1.1.0"


def recipe_yaml(recipe: Recipe) -> str:
    """Write a recipe, its stages by name where it has any."""
    parts: list[dict[str, Any]] = [{"version": VERSION}]
    if not recipe.stages:
        parts += [{"__metadata__": recipe.metadata}] if recipe.metadata else []
        parts += [{"modifiers": list(recipe.modifiers)}]
    for stage in recipe.stages:
        note = recipe.metadata.get(stage.name)
        held: dict[str, Any] = {} if note is None else {"__metadata__": note}
        parts += [{stage.name: held | {f"{stage.name}_modifiers": list(stage.modifiers)}}]
    return "\n".join(_dumped(part) for part in parts)


def _dumped(part: dict[str, Any]) -> str:
    return str(yaml.dump(part, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper that writes modifiers as tags, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write what is held twice twice."""
        return True


def _tagged(dumper: yaml.SafeDumper, modifier: Modifier) -> yaml.Node:
    return dumper.represent_mapping(f"!{modifier.yaml_tag()}", modifier.arguments())


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # Between single quotes PyYAML writes line ends such as U+0085 as they are, and reads them as spaces.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)
_Dumper.add_multi_representer(Modifier, _tagged)
_Dumper.add_multi_representer(dict, yaml.SafeDumper.represent_dict)
