"""What may stand for this fleet in links and in its certificate: a DNS name or an IP address."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import click

_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")  # RFC 1123, section 2.1
_MAX_NAME: Final = 253


def is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        labels = text.split(".")
        name = len(text) <= _MAX_NAME and all(_LABEL.fullmatch(label) for label in labels)
        return name and not labels[-1].isdigit()  # 10.1.2 or 300.1.1.1 is a mistyped address
    return True


def host_name(value: str) -> str:
    """Of a command line. Raises click.BadParameter."""
    if not is_host(value):
        raise click.BadParameter(f"expected a host name or an IP address, without a port, got {value[:80]!r}")
    return value
