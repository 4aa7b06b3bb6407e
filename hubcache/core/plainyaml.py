"""YAML from strangers as plain values: texts, numbers, lists, mappings; no type of YAML's own is ever made.

Numbers and true and false are read as YAML 1.2 has them, like the Hub does: `language: no` is Norwegian.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

DEEPEST = 32
LARGEST = 1 << 19
"""What a text may come to, in characters and values, each alias counted as often as it is used."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]{1,18}", re.ASCII)
_FLOAT = re.compile(r"(?=.{1,40}\Z)[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,2})?", re.ASCII)
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def parse_yaml(text: str) -> Any:
    """Read one document; None for an empty one.

    Raises:
        ValueError: it is no YAML, nests too deep, or comes to more than a page of metadata ever would.
    """
    events = yaml.parse(text, Loader=_LOADER)
    try:
        return _Document(events).read()
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from error


class _Document:
    """Values made of the parser's events one by one, so that what is too large is never built."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self._left = LARGEST
        self._anchored: dict[str, tuple[Any, int]] = {}

    def read(self) -> Any:
        next(self._events)  # the stream's beginning
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), 0)
        next(self._events)  # the document's end
        if not isinstance(next(self._events), yaml.StreamEndEvent):
            raise ValueError("more than one document")
        return value

    def _value(self, event: yaml.Event, depth: int) -> Any:
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} levels")
        anchor: str | None = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(anchor)
        before = self._left
        value = self._new(event, depth)
        if anchor is not None:  # only now: an alias to what is not finished would have no end
            self._anchored[anchor] = value, before - self._left
        return value

    def _new(self, event: yaml.Event, depth: int) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            self._spend(1 + len(event.value))
            return _scalar(event.value) if event.implicit[0] else event.value
        self._spend(1)
        if isinstance(event, yaml.SequenceStartEvent):
            return [self._value(each, depth + 1) for each in self._until(yaml.SequenceEndEvent)]
        return {self._key(key): self._value(next(self._events), depth + 1) for key in self._until(yaml.MappingEndEvent)}

    def _key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise ValueError("a key that is no text")
        self._spend(1 + len(event.value))
        return str(event.value)

    def _alias(self, anchor: str | None) -> Any:
        if anchor is None or anchor not in self._anchored:
            raise ValueError("an alias of nothing, or of what it stands in")
        value, size = self._anchored[anchor]
        self._spend(size)
        return value

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError(f"it comes to more than {LARGEST} characters")


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
