"""Connections: in all and of one address; who is not counted; and that every one that ends is counted off again."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from pathlib import Path

from pacmirror.config import AccessConfig, Config
from pacmirror.limits import ServerLimits
from pacmirror.listener import Gate
from pacmirror.traffic import Traffic


class Wire(asyncio.BaseTransport):
    """A connection, which is only closed."""

    def __init__(self):
        super().__init__()
        self.closed = False

    def close(self):
        self.closed = True


class Door:
    """A gate at which connections of addresses come and go."""

    def __init__(self, made):
        self.made = made

    def lets_in(self, peer):
        wire = Wire()
        inner = self.made.enter(wire, peer)
        assert (inner is None) == wire.closed
        return inner is not None

    def leave(self, peer):
        self.made.leave(Wire(), peer, was_in=True)


def gate(connections=100, connections_per_address=2, trusted=()):
    limits = ServerLimits(connections=connections, connections_per_address=connections_per_address)
    config = Config(Path("/s"), limits=limits, access=AccessConfig(trusted_proxies=trusted))
    traffic = Traffic()
    return Door(Gate(config, traffic, asyncio.Protocol)), traffic


def test_one_address_does_not_take_all_connections():
    door, traffic = gate()
    assert [door.lets_in("192.0.2.1") for _ in range(4)] == [True, True, False, False]
    assert door.lets_in("192.0.2.2")
    door.leave("192.0.2.1")
    assert door.lets_in("192.0.2.1")
    assert traffic.refused_connections == {"address": 2}
    assert traffic.open_connections == 3


def test_an_ipv4_address_is_the_same_through_an_ipv6_socket():
    door, _ = gate(connections_per_address=1)
    assert door.lets_in("::ffff:192.0.2.1")
    assert not door.lets_in("192.0.2.1")


def test_a_whole_ipv6_network_counts_as_one_address():
    door, _ = gate(connections_per_address=1)
    assert door.lets_in("2001:db8::1")
    assert not door.lets_in("2001:db8::2")
    assert door.lets_in("2001:db8:0:1::1")


def test_this_machine_and_the_proxies_in_front_are_not_counted():
    door, traffic = gate(trusted=(ip_network("192.0.2.0/24"),))
    for peer in ["127.0.0.1", "::1", "192.0.2.7", "::ffff:127.0.0.1"]:
        assert all(door.lets_in(peer) for _ in range(4))
    for _ in range(4):
        door.leave("192.0.2.7")
    assert traffic.open_connections == 12


def test_all_together_have_a_limit_too():
    door, traffic = gate(connections=3)
    for _ in range(3):
        door.lets_in("127.0.0.1")
    assert not door.lets_in("192.0.2.1")
    assert traffic.refused_connections == {"all": 1}
