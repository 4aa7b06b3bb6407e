"""Finds the source for a reference's scheme through one entry-point group, the built-in ones included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from hubcache.core.ports import Memory, Progress, Source
from hubcache.errors import BadReference

if TYPE_CHECKING:
    from hubcache.net import Net  # 60 ms that a command without a network need not pay

GROUP = "hubcache.sources"


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """What a source is made from.

    `endpoints` maps a hub's name (huggingface, sparsezoo) to the URL it is asked at; `memory` is what
    the cache knows already; `progress` and `notify` (one line for a person) go to whoever waits;
    `offline` tells sources of local content not to ask any hub.
    """

    net: Net
    endpoints: Mapping[str, str]
    memory: Memory
    progress: Progress
    notify: Callable[[str], None]
    offline: bool = False


SourceFactory = Callable[[SourceConfig], Source]


def schemes() -> tuple[str, ...]:
    """List the schemes that some installed source answers."""
    return tuple(sorted(point.name for point in entry_points(group=GROUP)))


def make_source(scheme: str, config: SourceConfig) -> Source:
    """Make the source that answers this scheme; only its module is imported.

    Raises:
        BadReference: no installed source has this scheme.
    """
    found = entry_points(group=GROUP, name=scheme)
    if not found:
        raise BadReference(f"no source answers {scheme}:…", hint=f"one of: {', '.join(schemes())}")
    point: EntryPoint = next(iter(found))
    factory: SourceFactory = point.load()
    return factory(config)
