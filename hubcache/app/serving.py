"""What a server has behind it: the mirrors that it asks, never itself, by this machine's settings."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace

from hubcache import __version__
from hubcache.app.compose import compose
from hubcache.app.settings import HUGGINGFACE, Settings
from hubcache.core.origins import Origin
from hubcache.core.ports import Source
from hubcache.mirrors.config import MirrorsConfig


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server answers: its address, the names that lead to it, and the mark on what it asks."""

    host: str
    port: int
    names: tuple[str, ...]
    instance: str

    def is_own(self, url: str) -> bool:
        """Tell whether a URL leads to this very server."""
        origin = Origin.of(url)
        is_here = origin.is_loopback or origin.host in {self.host, *self.names}
        return is_here and origin.port == self.port


def upstream_of(settings: Settings, place: Place, *, notify: Callable[[str], None]) -> Source | None:
    """Wire the Hub's mirrors as one source, each asked once: who waits for the answer is a client with a time-out.

    None where the network is off, or where nobody else is left to ask.
    """
    if settings.offline:
        return None
    if place.is_own(settings.endpoint):
        notify(f"HF_ENDPOINT is this server itself; it asks {HUGGINGFACE} instead")
        rest = {name: value for name, value in settings.environ.items() if name != "HF_ENDPOINT"}
        settings = replace(settings, endpoint=HUGGINGFACE, environ=rest)
    app = compose(settings)
    mirrors = tuple(mirror for mirror in app.mirrors.mirrors if not place.is_own(mirror.url))
    agent = f"hubcache/{__version__}; python/{platform.python_version()}; serve/{place.instance}"
    app = replace(
        app,
        mirrors=MirrorsConfig(mirrors, app.mirrors.catalogue, app.mirrors.serve),
        net=app.net.asking_once(user_agent=agent),
    )
    return app.hub(notify) if app.mirrors_of("huggingface") else None
