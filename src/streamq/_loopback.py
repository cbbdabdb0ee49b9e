"""Decides whether a host is this machine itself, or one of a network of one's own.

Design: docs/design/command-line.md.
"""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a name or an address is that of this machine, for itself only.

    The names are ``localhost`` and those below it (RFC 6761); others are not looked up.

    Args:
        host: Without a port; IPv6 without brackets, also with a zone.
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


RESERVED_SUFFIXES = (".localhost", ".test", ".local", ".home.arpa", ".internal")
"""Nobody can register a name below these: RFC 6761, 6762 (and Kubernetes), 8375, ICANN 2024."""


def is_own_network(host: str) -> bool:
    """Whether a name or an address can only belong to a private network.

    That is a private address, a name without a dot, and a name that the public DNS does not have.

    Args:
        host: Without a port; IPv6 without brackets.
    """
    name = host.lower().rstrip(".")
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_private
    except ValueError:
        return "." not in name or name.endswith(RESERVED_SUFFIXES)
