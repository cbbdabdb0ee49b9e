"""Reads the networks that a setting names.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

from ._comma_lists import listed

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks_of(text: str) -> list[Network]:
    """Return the networks, and single addresses, that a text names between commas.

    Raises:
        ValueError: One of them is neither.
    """
    return [ipaddress.ip_network(each, strict=False) for each in listed(text)]


def networks_text(text: str) -> str:
    """Return a text that names networks as it is.

    Raises:
        ValueError: It names something else.
    """
    try:
        networks_of(text)
    except ValueError as exc:
        raise ValueError(f"{exc}; give networks such as 10.1.0.0/16, separated by commas") from None
    return text
