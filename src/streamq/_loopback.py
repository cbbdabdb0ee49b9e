"""Decides whether a host is this machine itself, which nobody else reaches.

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
