"""Values for a recipe's variables: a mapping, JSON text or k=v,k2=v2; not which variables a recipe has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hubcache.errors import BadConfig

HINT = 'name=value, or as JSON where the value has a comma, colon or brackets: {"name": value}'


def parse_arguments(given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Read values by variable; in k=v form a number becomes a float, and `:` does for `=`.

    Raises BadConfig.
    """
    if given is None or given == "":
        return {}
    if not isinstance(given, str):
        return dict(given)
    held = _json(given)
    if held is None:
        return dict(_pair(text) for text in given.split(","))
    if not isinstance(held, dict):
        raise BadConfig(f"{given[:60]!r} holds no names", hint=HINT)
    return held


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _pair(text: str) -> tuple[str, Any]:
    name, *values = text.replace(":", "=").split("=")
    name = name.strip()
    if len(values) != 1 or not name or any(mark in text for mark in "{}"):
        raise BadConfig(f"{text[:60]!r} is no name=value", hint=HINT)
    value = values[0].strip()
    try:
        return name, float(value)
    except ValueError:
        return name, value
