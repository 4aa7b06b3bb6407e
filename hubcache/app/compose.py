"""The wiring: settings in, the graph of sources, mirrors and cache out; the one place that says which is which."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hubcache import __version__
from hubcache.app.local import LocalApp, compose_local
from hubcache.app.progress import NoProgress
from hubcache.app.settings import HUGGINGFACE, SPARSEZOO, Settings, clean_token
from hubcache.cache.readthrough import ReadThrough
from hubcache.core.origins import Origin
from hubcache.core.ports import Progress, Source
from hubcache.errors import BadConfig
from hubcache.mirrors.book import HealthBook
from hubcache.mirrors.config import HUBS, TRUST, Mirror, MirrorsConfig
from hubcache.mirrors.failover import Failover, Member
from hubcache.mirrors.rate import RateLimit
from hubcache.net import Net, NetSettings
from hubcache.sources.offline import Offline
from hubcache.sources.registry import SourceConfig, make_source

MIRRORED = {"hf": "huggingface", "ms": "modelscope"}
"""The schemes whose hubs' mirrors stand in for each other."""

ENDPOINTS = {"huggingface": ("HF_ENDPOINT", HUGGINGFACE), "sparsezoo": ("SPARSEZOO_API_URL", SPARSEZOO)}
"""The variable that chooses a hub's endpoint, and what it is without."""


@dataclass(frozen=True, slots=True)
class App(LocalApp):
    """The wired parts: everything a use case needs."""

    net: Net
    book: HealthBook

    def source(self, scheme: str, progress: Progress, notify: Callable[[str], None]) -> Source:
        """Wire what answers a scheme's references: local content always, hubs unless the network is off."""
        config = SourceConfig(self.net, self.endpoints(), self.cache, progress, notify, self.settings.offline)
        if scheme == "file":
            return make_source(scheme, config)
        if self.settings.offline:
            return ReadThrough(self.cache, Offline(), notify=notify)
        hub = MIRRORED.get(scheme)
        upstream = make_source(scheme, config) if hub is None else self._failover(scheme, hub, config)
        return ReadThrough(self.cache, upstream, notify=notify)

    def hub(self, notify: Callable[[str], None]) -> Source:
        """Wire the Hub's mirrors alone, without the cache in front of them."""
        config = SourceConfig(self.net, self.endpoints(), self.cache, NoProgress(), notify, self.settings.offline)
        return self._failover("hf", "huggingface", config)

    def mirrors_of(self, hub: str) -> list[Mirror]:
        """List a hub's mirrors in the order in which they are asked; HF_ENDPOINT and SPARSEZOO_API_URL come first.

        An endpoint that nobody shipped is somebody's own: what it is asked for is told to no public hub, so
        the shipped mirrors stand behind it only where it is one of them.
        """
        configured = list(self.mirrors.of(hub))
        chosen = self._chosen_endpoint(hub)
        if chosen is None:
            return configured
        known = {mirror.url: mirror for mirror in configured}
        first = known.get(chosen) or Mirror(ENDPOINTS[hub][0], chosen, hub)
        rest = [mirror for mirror in configured if mirror.url != first.url]
        return [replace(first, trust=TRUST), *(mirror for mirror in rest if first.is_shipped or not mirror.is_shipped)]

    def _chosen_endpoint(self, hub: str) -> str | None:
        """Return the endpoint that the environment chose for a hub, if it did."""
        variable, default = ENDPOINTS.get(hub, ("", ""))
        endpoint = {"huggingface": self.settings.endpoint, "sparsezoo": self.settings.zoo_api}.get(hub)
        return endpoint if endpoint != default or self.settings.environ.get(variable) else None

    def endpoints(self) -> dict[str, str]:
        """Map every hub to the endpoint whose word on any repo is taken first."""
        return {hub: _first_word(mirrors).url for hub in HUBS if (mirrors := self.mirrors_of(hub))}

    def _failover(self, scheme: str, hub: str, config: SourceConfig) -> Source:
        members = []
        mirrors = self.mirrors_of(hub)
        trusted = [mirror for mirror in mirrors if "metadata" in mirror.trust]
        net = self.net if len(trusted) < 2 else self.net.asking_once()
        for mirror in mirrors:
            source = make_source(scheme, replace(config, net=net, endpoints={**config.endpoints, hub: mirror.url}))
            rate = RateLimit(mirror.rate) if mirror.rate else None
            origin = Origin.of(mirror.url)
            has_token = origin in net.settings.tokens
            if has_token and origin.scheme == "http":
                config.notify(f"your token goes to {origin} over plain http, which does not leave this machine")
            members.append(Member(mirror, source, rate, has_token=has_token))
        return Failover(members, self.book, notify=config.notify)


def _first_word(mirrors: list[Mirror]) -> Mirror:
    """Choose the first mirror that is trusted for metadata and carries more than its own namespaces."""
    return next((each for each in mirrors if "metadata" in each.trust and not each.namespaces), mirrors[0])


def compose(settings: Settings) -> App:
    """Wire everything for these settings; nothing is asked and nothing is written yet."""
    local = compose_local(settings)
    net = Net(
        NetSettings(
            user_agent=f"hubcache/{__version__}; python/{platform.python_version()}",
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            tokens=bound_tokens(settings, local.mirrors),
            headers={Origin.of(mirror.url): mirror.headers for mirror in local.mirrors.mirrors if mirror.headers},
            certificates={Origin.of(mirror.url): mirror.ca for mirror in local.mirrors.mirrors if mirror.ca},
            proxies=settings.proxies,
        )
    )
    book = HealthBook(settings.state / "health.json" if settings.state else None)
    return App(settings, local.mirrors, local.cache, net, book)


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
        token = _token_of(mirror, settings)
        origin = Origin.of(mirror.url)
        if token and (origin.scheme == "https" or origin.is_loopback):
            tokens[origin] = token
    return tokens


def _token_of(mirror: Mirror, settings: Settings) -> str | None:
    """Read the token that a mirror's entry names: an environment variable's value, or a file's content."""
    name = mirror.token or ""
    if not name.startswith("file:"):
        return clean_token(settings.environ.get(name))
    path = Path(name.removeprefix("file:")).expanduser()
    try:
        return clean_token(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"the token file of the mirror {mirror.name} cannot be read: {path}") from error
