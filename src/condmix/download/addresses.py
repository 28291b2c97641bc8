"""Which addresses a download may connect to: those of the public internet, and none of the machine or its network.

The check is made on the address of each socket before it connects. So it holds for host names, whatever they resolve
to and however often, for numbers in URLs and for redirects.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any

PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")  # the only part that IANA has given out as global unicast
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits


class PrivateAddress(OSError):
    """A host whose address is not public."""


def is_public(address: str) -> bool:
    """Whether an IPv4 or IPv6 address is one of the public internet.

    Loopback, link-local, private, shared, multicast, reserved and unspecified ones are not. An IPv6 address that leads
    to an IPv4 one (mapped, NAT64, 6to4) is as public as that.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])  # "fe80::1%eth0"
    except ValueError:  # such as "127.1", which the operating system would read as 127.0.0.1
        return False
    if ip.version == 6:
        inside = ipaddress.ip_address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped or ip.sixtofour
        if inside is None and ip not in PUBLIC_IPV6:
            return False
        ip = inside or ip
    return ip.is_global and not ip.is_multicast


def public_socket(info: tuple[Any, Any, Any, Any, tuple]) -> socket.socket:
    """A new socket for what getaddrinfo says of a host; PrivateAddress where that is not public."""
    family, kind, protocol, _, address = info
    if not is_public(address[0]):
        raise PrivateAddress(errno.EACCES, "not an address of the public internet")
    return socket.socket(family, kind, protocol)
