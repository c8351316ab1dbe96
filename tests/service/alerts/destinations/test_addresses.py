"""Test the address check before a connection is made."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.alerts.destinations.addresses import AddressNotAllowedError, check, socket_factory

PUBLIC = (
    "8.8.8.8",
    "1.1.1.1",
    "100.128.0.1",
    "172.32.0.1",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "64:ff9b::808:808",
)
NOT_PUBLIC = {
    "0.0.0.0": "this host",  # noqa: S104 - no server listens there
    "10.1.2.3": "private",
    "100.64.0.1": "shared by a provider's customers",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "169.254.169.254": "link-local",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.0.1": "private",
    "198.18.0.1": "for benchmarks",
    "224.0.0.1": "multicast",
    "255.255.255.255": "reserved",
    "::": "this host",
    "::1": "loopback",
    "::7f00:1": "reserved",
    "::ffff:10.0.0.1": "private",
    "64:ff9b::a00:1": "private",
    "64:ff9b:1::1": "reserved",
    "2001::1": "reserved for protocols",
    "2001:db8::1": "for documentation",
    "2002:7f00:1::": "6to4",
    "fd00:ec2::254": "private",
    "fe80::1": "link-local",
    "fe80::1%lo": "link-local",
    "ff02::1": "multicast",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    """Allow public addresses."""
    check(address, [])


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_other_addresses_are_refused(address: str) -> None:
    """Refuse other addresses. Otherwise the owner of a host name could reach the internal network."""
    with pytest.raises(AddressNotAllowedError, match=NOT_PUBLIC[address]):
        check(address, [ip_network("192.0.2.0/24"), ip_network("2001:db8:1::/48")])


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_configured_networks_are_allowed(address: str) -> None:
    """Allow the addresses of configured networks."""
    check(address, [ip_network("0.0.0.0/0"), ip_network("::/0")])


def test_a_mapped_address_is_allowed_by_the_one_it_is() -> None:
    """Check a mapped IPv4 address as IPv4, since resolvers write it differently."""
    check("::ffff:10.0.0.1", [ip_network("10.0.0.0/8")])
    with pytest.raises(AddressNotAllowedError):
        check("::ffff:10.0.0.1", [ip_network("::ffff:0:0/96")])


@given(st.ip_addresses())
def test_addresses_that_python_lists_as_not_global_are_refused(address: IPv4Address | IPv6Address) -> None:
    """Refuse at least the addresses that Python's own tables list as not global."""
    try:
        check(str(address), [])
    except AddressNotAllowedError:
        return
    meant = address
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address in ip_network("64:ff9b::/96")):
        meant = ip_address(int(address) & 0xFFFFFFFF)
    assert meant.is_global
    assert not meant.is_multicast


def test_a_socket_is_made_only_for_allowed_addresses() -> None:
    """Check an address before its socket is made."""
    make = socket_factory([ip_network("127.0.0.1/32")])
    with make((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))) as made:
        assert made.family is socket.AF_INET
    with pytest.raises(AddressNotAllowedError):
        make((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.2", 80)))
