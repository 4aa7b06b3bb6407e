"""The `serve` section of a mirrors.yaml as rules; what a rule does to a request is the server's."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import yaml

from hubcache.core.rules import ACCESS, UPSTREAM, Rule, Rules, can_name
from hubcache.mirrors.yamlfile import BOOL, YamlFile


def read_rules(file: YamlFile, node: yaml.Node) -> Rules:
    """Read a list of rules, in its order.

    Raises:
        BadConfig: what is wrong, with its line; a rule that could never name a repo is wrong, too.
    """
    return Rules(tuple(_rule(file, row) for row in file.sequence(node, "serve")))


def _rule(file: YamlFile, node: yaml.Node) -> Rule:
    fields = file.mapping(node, ("names", *_FIELDS), "a rule")
    if "names" not in fields:
        raise file.wrong(node, "a rule has no names", 'say whom it is about: names: ["org", "team/*"]')
    rest = {key: reader(file, fields[key], key) for key, reader in _FIELDS.items() if key in fields}
    return Rule(_names(file, fields["names"]), **rest)


def _names(file: YamlFile, node: yaml.Node) -> tuple[str, ...]:
    rows = file.sequence(node, "names")
    if not rows:
        raise file.wrong(node, "names is empty: the rule is about no repo", 'for all repos, say: names: ["*"]')
    return tuple(_name(file, row) for row in rows)


def _name(file: YamlFile, node: yaml.Node) -> str:
    pattern = file.text(node, "a name")
    if not can_name(pattern):
        hint = "an org, or org/name, as a shell pattern; models/, datasets/ or spaces/ may stand before it"
        raise file.wrong(node, f"no repo can have the name {pattern[:200]!r}", hint)
    return pattern


def _access(file: YamlFile, node: yaml.Node, what: str) -> str:
    return file.one_of(node, ACCESS, what)


def _upstream(file: YamlFile, node: yaml.Node, what: str) -> str:
    return file.one_of(node, UPSTREAM, what)


def _seconds(file: YamlFile, node: yaml.Node, what: str) -> float:
    text = file.text(node, what)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < inf:
        raise file.wrong(node, f"{what} is no number of seconds: {text!r}")
    return seconds


def _claim(file: YamlFile, node: yaml.Node, what: str) -> bool:
    if node.tag != BOOL:
        raise file.wrong(node, f"{what} is neither true nor false")
    return str(node.value).lower() in {"true", "yes", "on"}


_FIELDS: dict[str, Callable[[YamlFile, yaml.Node, str], Any]] = {
    "access": _access,
    "upstream": _upstream,
    "fresh": _seconds,
    "grant": _claim,
}
