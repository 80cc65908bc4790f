"""Connections: in all and of one address; who is not counted; and that every one that ends is counted off again."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from pathlib import Path

from pacmirror.config import AccessConfig, Config
from pacmirror.limits import ServerLimits
from pacmirror.listener import Gate
from pacmirror.traffic import Traffic


def gate(connections=100, connections_per_address=2, trusted=()):
    limits = ServerLimits(connections=connections, connections_per_address=connections_per_address)
    config = Config(Path("/s"), limits=limits, access=AccessConfig(trusted_proxies=trusted))
    traffic = Traffic()
    return Gate(config, traffic, asyncio.Protocol), traffic


def test_one_address_does_not_take_all_connections():
    door, traffic = gate()
    assert [door.enter("192.0.2.1")[0] is None for _ in range(3)] == [False, False, True]
    answer = door.enter("192.0.2.1")[1]
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: 5\r\n" in answer
    assert door.enter("192.0.2.2")[0] is not None
    door.leave("192.0.2.1")
    assert door.enter("192.0.2.1")[0] is not None
    assert traffic.refused_connections == {"address": 2}
    assert traffic.open_connections == 3


def test_an_ipv4_address_is_the_same_through_an_ipv6_socket():
    door, _ = gate(connections_per_address=1)
    assert door.enter("::ffff:192.0.2.1")[0] is not None
    assert door.enter("192.0.2.1")[0] is None


def test_a_whole_ipv6_network_counts_as_one_address():
    door, _ = gate(connections_per_address=1)
    assert door.enter("2001:db8::1")[0] is not None
    assert door.enter("2001:db8::2")[0] is None
    assert door.enter("2001:db8:0:1::1")[0] is not None


def test_this_machine_and_the_proxies_in_front_are_not_counted():
    door, traffic = gate(trusted=(ip_network("192.0.2.0/24"),))
    for peer in ["127.0.0.1", "::1", "192.0.2.7", "::ffff:127.0.0.1"]:
        assert all(door.enter(peer)[0] is not None for _ in range(4))
    for _ in range(4):
        door.leave("192.0.2.7")
    assert traffic.open_connections == 12


def test_all_together_have_a_limit_too():
    door, traffic = gate(connections=3)
    for _ in range(3):
        door.enter("127.0.0.1")
    assert door.enter("192.0.2.1")[1].startswith(b"HTTP/1.1 503 ")
    assert traffic.refused_connections == {"all": 1}
