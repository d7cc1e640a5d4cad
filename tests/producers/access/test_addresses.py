"""Addresses: each spelling of one is the same address, and what is none is none."""

import pytest

from producers.access.addresses import network, plain


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        (" 203.0.113.9 ", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[::ffff:203.0.113.9]:80", "203.0.113.9"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ("", ""),
        ("unknown", ""),
        ("_hidden", ""),
        ("203.0.113.9:", ""),
        ("203.0.113.9:123456", ""),
        ("203.0.113", ""),
        ("203.0.113.09", ""),
        ("203.0.113.9 203.0.113.8", ""),
        ("[2001:db8::1", ""),
        ("1" * 101, ""),
    ],
)
def test_every_spelling_of_an_address_is_the_same_one(text: str, address: str) -> None:
    assert plain(text) == address


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::1]:443", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:80", "203.0.113.9"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_of_ipv6_a_network_is_one_client(address: str, same: str) -> None:
    assert network(address) == same
