"""Restrict connections to public addresses, and to those that a destination's table allows.

The address itself is checked, at the moment of connecting, and never a host name: a name may resolve to
another address a moment later. Sources: IANA's registries of special-purpose addresses (RFC 6890), for IPv4
and IPv6, and of multicast.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_V4 = {
    IPv4Network(network): what
    for network, what in {
        "0.0.0.0/8": "this host",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "shared by a provider's customers",
        "127.0.0.0/8": "loopback",
        "169.254.0.0/16": "link-local",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "reserved for protocols",
        "192.0.2.0/24": "for documentation",
        "192.88.99.0/24": "a relay of 6to4",
        "192.168.0.0/16": "private",
        "198.18.0.0/15": "for benchmarks",
        "198.51.100.0/24": "for documentation",
        "203.0.113.0/24": "for documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
    }.items()
}
_V6 = {
    IPv6Network(network): what
    for network, what in {
        "::/128": "this host",
        "::1/128": "loopback",
        "fc00::/7": "private",
        "fe80::/10": "link-local",
        "ff00::/8": "multicast",
        "2001::/23": "reserved for protocols",
        "2001:db8::/32": "for documentation",
        "2002::/16": "6to4, which leads to an IPv4 address",
        "3fff::/20": "for documentation",
    }.items()
}
_V6_PUBLIC = IPv6Network("2000::/3")
"""The only range allocated for global unicast so far."""
_V4_IN_V6 = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
"""IPv6 ranges that embed an IPv4 address in the last 32 bits: mapped (RFC 4291), NAT64 (RFC 6052)."""


class AddressNotAllowedError(OSError):
    """The destination's host name resolves to an address that is neither public nor allowed by its table."""


def check(host: str, allowed: Sequence[IPv4Network | IPv6Network]) -> None:
    """Raise `AddressNotAllowedError` if connections to an address are not allowed.

    Args:
        host: an address as in a socket's address; an IPv6 one may have a zone (`fe80::1%eth0`).
        allowed: networks that are allowed although they are not public.
    """
    address = _effective(ip_address(host))
    what = _not_public(address)
    if what and not any(address in network for network in allowed):
        raise AddressNotAllowedError(f"{address} is {what}; allow_addresses does not name it")


def socket_factory(
    allowed: Sequence[IPv4Network | IPv6Network],
) -> Callable[[tuple[Any, ...]], socket.socket]:
    """Return a socket factory for a connector, which checks each resolved address right before connecting."""

    def checked(address_info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = address_info
        check(address[0], allowed)
        return socket.socket(family, kind, protocol)

    return checked


def _effective(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv6Address):
        bare = IPv6Address(int(address))  # networks do not match an address with a zone
        return IPv4Address(int(bare) & 0xFFFFFFFF) if any(bare in network for network in _V4_IN_V6) else bare
    return address


def _not_public(address: IPv4Address | IPv6Address) -> str | None:
    """Return the kind of a special-purpose address, or None for a public one."""
    if isinstance(address, IPv4Address):
        return next((what for network, what in _V4.items() if address in network), None)
    what = next((what for network, what in _V6.items() if address in network), None)
    return what or (None if address in _V6_PUBLIC else "reserved")
