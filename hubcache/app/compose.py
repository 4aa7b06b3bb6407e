"""The wiring: settings in, the graph of sources, mirrors and cache out; the one place that says which is which."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass

from hubcache import __version__
from hubcache.app.local import LocalApp, compose_local
from hubcache.app.settings import HUGGINGFACE, Settings, clean_token
from hubcache.cache.readthrough import ReadThrough
from hubcache.core.ports import Progress, Source
from hubcache.mirrors.config import MirrorsConfig
from hubcache.net import Net, NetSettings, Origin
from hubcache.sources.offline import Offline
from hubcache.sources.registry import SourceConfig, make_source


@dataclass(frozen=True, slots=True)
class App(LocalApp):
    """The wired parts: everything a use case needs."""

    net: Net

    def source(self, scheme: str, progress: Progress, notify: Callable[[str], None]) -> Source:
        """Wire what answers a scheme's references: local content always, hubs unless the network is off."""
        config = SourceConfig(self.net, self._endpoints(), self.cache, progress, notify, self.settings.offline)
        if scheme == "file":
            return make_source(scheme, config)
        upstream = Offline() if self.settings.offline else make_source(scheme, config)
        return ReadThrough(self.cache, upstream, notify=notify)

    def _endpoints(self) -> dict[str, str]:
        return {"huggingface": self.settings.endpoint, "sparsezoo": self.settings.zoo_api}


def compose(settings: Settings) -> App:
    """Wire everything for these settings; nothing is asked and nothing is written yet."""
    local = compose_local(settings)
    net = Net(
        NetSettings(
            user_agent=f"hubcache/{__version__}; python/{platform.python_version()}",
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            tokens=bound_tokens(settings, local.mirrors),
            proxies=settings.proxies,
        )
    )
    return App(settings, local.mirrors, local.cache, net)


def bound_tokens(settings: Settings, mirrors: MirrorsConfig) -> dict[Origin, str]:
    """Bind every token to the origin it was configured for.

    The user's own token goes to huggingface.co; the one in HF_TOKEN also to an HF_ENDPOINT on this
    machine. Any other mirror gets the token that mirrors.yaml names for it, over https or loopback.
    """
    tokens: dict[Origin, str] = {}
    if settings.token and settings.implicit_token:
        tokens[Origin.of(HUGGINGFACE)] = settings.token
        endpoint = Origin.of(settings.endpoint)
        if endpoint.is_loopback and settings.token_is_from_environment:
            tokens[endpoint] = settings.token
    for mirror in mirrors.mirrors:
        token = clean_token(settings.environ.get(mirror.token or ""))
        origin = Origin.of(mirror.url)
        if token and (origin.scheme == "https" or origin.is_loopback):
            tokens[origin] = token
    return tokens
