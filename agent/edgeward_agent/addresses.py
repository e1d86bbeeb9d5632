"""Addresses to answer on and to be asked by: read without asking a resolver, who may be an attacker's."""

from __future__ import annotations

from ipaddress import ip_address


def host_and_port(address: str) -> tuple[str, int]:
    """Split `127.0.0.1:8500` or `[::1]:8500`. Raises ValueError that says what was expected."""
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"expected HOST:PORT such as 127.0.0.1:8500, got {address!r}")
    return bare, int(port)


def is_loopback(name: str) -> bool:
    """`localhost` or a loopback address."""
    return name.lower() == "localhost" or (is_address(name) and ip_address(name).is_loopback)


def is_address(name: str) -> bool:
    """Whether `name` is an IP address: what no resolver can bend."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
