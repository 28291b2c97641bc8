"""Only addresses of the public internet are connected to; which those are is IANA's special-purpose registries'."""

import socket

import pytest

from condmix.download.addresses import PrivateAddress, is_public, public_socket

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
OTHERS = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%eth0"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd00:ec2::254", "fec0::1"],
    "shared": ["100.64.0.1", "100.100.100.200"],
    "multicast": ["224.0.0.1", "239.1.1.1", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "2001:db8::1", "4000::1", "64:ff9b:1::1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],
    "mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1"],
    "no address": ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", ""],
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize("address", [address for kind in OTHERS.values() for address in kind])
def test_all_others(address):
    assert not is_public(address)


def test_a_socket_is_made_for_public_addresses_only():
    public_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("8.8.8.8", 80))).close()
    with pytest.raises(PrivateAddress):
        public_socket((socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", 80, 0, 0)))
