"""Origins, which tokens are bound to, and URLs without their secrets; no connection is opened here."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from hubcache.errors import SourceUnavailable

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what a token is bound to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Read a URL's origin.

        Raises:
            SourceUnavailable: no http or https URL; nothing else is ever fetched.
        """
        parts = split_web(url)
        return cls(parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme])

    @property
    def is_loopback(self) -> bool:
        """Tell whether it is this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}")


def split_web(url: str) -> SplitResult:
    """Split an http or https URL.

    Raises:
        SourceUnavailable: it is none; nothing else is ever fetched.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme in _DEFAULT_PORTS and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise SourceUnavailable(f"not an http or https URL: {redact(url)[:200]!r}")


def redact(url: str) -> str:
    """Strip what may be secret from a URL: credentials, query (signatures), fragment."""
    parts = url.partition("#")[0].partition("?")[0]
    scheme, mark, rest = parts.partition("//")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"


def is_direct(origin: Origin, hosts: str) -> bool:
    """Tell whether NO_PROXY's list names the host: itself, a domain above it, with a port or without, or `*`."""
    for text in hosts.replace(",", " ").split():
        host, _, port = text.lower().removeprefix("*").removeprefix(".").partition(":")
        if text == "*" or (
            (origin.host == host or origin.host.endswith("." + host)) and port in {"", str(origin.port)}
        ):
            return True
    return False
