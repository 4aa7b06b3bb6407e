"""Socket addresses as the kernel reads them: which stay on this machine, and how one is written down.

No socket is opened or asked here.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from socket import AddressFamily

UNSPEC, UNIX, INET, INET6, NETLINK = 0, 1, 2, 10, 16
LONGEST = 128
"""Bytes of struct sockaddr_storage; the kernel takes no longer address."""

PROBE = ("192.0.2.1", 9)
"""Nobody's address (RFC 5737), and the port that discards: what is asked for to find out whether it is refused."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a socket is to go; `is_here` where that is this machine's own loopback, or no network at all."""

    text: str
    is_here: bool


def parse_peer(address: bytes, *, connecting: bool) -> Peer | None:
    """Read a struct sockaddr; None where it is too short for its family, which the kernel refuses, too.

    0.0.0.0 and :: are loopback to a Linux that is asked to go there. No family at all dissolves a connection;
    in a datagram it counts as an internet address to some sockets, and as none to others, so it is never here.
    """
    if len(address) < 2:
        return None
    (family,) = struct.unpack_from("=H", address)
    if family in {UNIX, NETLINK} or (family == UNSPEC and connecting):
        return Peer(family_name(family), is_here=True)
    if family == INET:
        return _internet(address[4:8], address[2:4]) if len(address) >= 16 else None
    if family == INET6:
        return _internet(address[8:24], address[2:4]) if len(address) >= 24 else None
    return Peer(family_name(family), is_here=False)


def _internet(host: bytes, port: bytes) -> Peer:
    ip = ipaddress.ip_address(host)
    text = str(ip)
    if isinstance(ip, ipaddress.IPv6Address):
        text = f"[::ffff:{ip.ipv4_mapped}]" if ip.ipv4_mapped else f"[{ip}]"
        ip = ip.ipv4_mapped or ip
    return Peer(f"{text}:{int.from_bytes(port, 'big')}", is_here=ip.is_loopback or ip.is_unspecified)


def family_name(family: int) -> str:
    """Name an address family as C does: AF_VSOCK."""
    try:
        return AddressFamily(family).name
    except ValueError:
        return f"address family {family}"
