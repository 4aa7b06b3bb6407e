"""A YAML file's nodes as values, refused with file and line; what the file is about is for its readers to know."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import yaml

from hubcache.core.urls import shown
from hubcache.errors import BadConfig

TEXT, NULL, BOOL = (f"tag:yaml.org,2002:{name}" for name in ("str", "null", "bool"))
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlFile:
    """One file, read with the line of everything that may be wrong. Every reader here raises BadConfig."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def compose(self, text: str) -> yaml.Node | None:
        """Read the text as nodes; None where it says nothing."""
        try:
            node: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
        except yaml.YAMLError as error:
            raise BadConfig(f"{self.path}: not YAML: {' '.join(str(error).split())}") from error
        if node is None or node.tag == NULL:
            return None
        self._check_tags(node)
        return node

    def mapping(self, node: yaml.Node, keys: tuple[str, ...], what: str) -> dict[str, yaml.Node]:
        """Read a mapping that has no keys but these, and none twice."""
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node, f"{what} is no mapping of {', '.join(keys)}")
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = str(key_node.value)
            if key not in keys:
                near = get_close_matches(key, keys, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(keys)}"
                raise self.wrong(key_node, f"{what} has the unknown key {key!r}", hint)
            if key in found:
                raise self.wrong(key_node, f"{what} has {key!r} twice")
            found[key] = value
        return found

    def sequence(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        """Read a list."""
        if not isinstance(node, yaml.SequenceNode):
            raise self.wrong(node, f"{what} is no list")
        return list(node.value)

    def text(self, node: yaml.Node, what: str) -> str:
        """Read a text, a number or the like as it is written; not an empty one."""
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            raise self.wrong(node, f"{what} is no text")
        return str(node.value)

    def texts(self, node: yaml.Node, what: str) -> dict[str, str]:
        """Read a mapping of texts."""
        if not isinstance(node, yaml.MappingNode) or any(value.tag != TEXT for _, value in node.value):
            raise self.wrong(node, f"{what} is no mapping of texts")
        return {self.text(key, what): self.text(value, what) for key, value in node.value}

    def names(self, node: yaml.Node, what: str) -> tuple[str, ...]:
        """Read a list of texts."""
        return tuple(self.text(each, what) for each in self.sequence(node, what))

    def one_of(self, node: yaml.Node, choices: tuple[str, ...], what: str) -> str:
        """Read one of these words."""
        text = self.text(node, what)
        if text not in choices:
            near = get_close_matches(text, choices, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(choices)}"
            raise self.wrong(node, f"no such {what}: {text!r}", hint)
        return text

    def wrong(self, node: yaml.Node, message: str, hint: str = "") -> BadConfig:
        """Make the refusal of what stands at a node."""
        return BadConfig(f"{self.path}, line {node.start_mark.line + 1}: {message}", hint=hint)

    def _check_tags(self, node: yaml.Node) -> None:
        """Refuse YAML's own types (`!!python/…`): nothing here needs one."""
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.startswith("tag:yaml.org,2002:python/"):
            raise self.wrong(node, f"not YAML that is read here: {shown(node.tag)!r}")
        children = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
        for child in children if isinstance(node, yaml.CollectionNode) else ():
            self._check_tags(child)
