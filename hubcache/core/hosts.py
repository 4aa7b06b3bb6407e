"""Who is meant and who asks, by the Host and Origin headers; what a refusal looks like is the server's.

A page of a stranger's can have its own name point at this machine and then ask whatever listens here. It cannot
change the name that its browser sends, so a name that is not ours is refused. An address needs no such trick.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

_NAME = r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?"
_IPV6 = r"\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.~-]{1,32})?\]"
_HOST = re.compile(rf"({_NAME}|{_IPV6})(?::[0-9]{{0,5}})?", re.ASCII)
_ORIGIN = re.compile(rf"(https?)://({_NAME}|{_IPV6})(?::([0-9]{{1,5}}))?", re.ASCII | re.IGNORECASE)
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_LONGEST = 253


def allowed_host(header: str | None, names: Collection[str]) -> bool:
    """Tell whether a Host header means this server: localhost, a name under it, any IP address, or one of `names`."""
    host = _host(header or "")
    return host is not None and (_is_localhost(host) or _address(host) is not None or host in map(_host, names))


def origin_is_near(origin: str, own: Collection[str]) -> bool:
    """Tell whether an Origin header is a page of this machine's, or one of `own`; `*` there means every one."""
    if "*" in own or _plain(origin) in map(_plain, own):
        return True
    match = _ORIGIN.fullmatch(origin)
    host = _host(match[2]) if match else None
    return host is not None and (_is_localhost(host) or _is_loopback(host))


def _host(header: str) -> str | None:
    """Read a host in lower case without its port and its last dot; None where it is none."""
    match = _HOST.fullmatch(header)
    if match is None:
        return None
    host = match[1].lower().removesuffix(".")
    return host if len(host) <= _LONGEST else None


def _plain(origin: str) -> str:
    """Write an origin as a browser does: lower case, no default port; `null` and other schemes stay what they are."""
    origin = origin.lower().removesuffix("/")
    match = _ORIGIN.fullmatch(origin)
    return origin.removesuffix(f":{match[3]}") if match and match[3] == _DEFAULT_PORTS[match[1]] else origin


def _is_localhost(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.IPv6Address(host[1:-1]) if host.startswith("[") else ipaddress.IPv4Address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    # Python 3.13 reads ::ffff:127.0.0.1 as loopback by itself, those before do not.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address is not None and (mapped or address).is_loopback
