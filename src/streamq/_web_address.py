"""Checks the address of a web page that a setting gives.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

from urllib.parse import urlsplit


def web_address(text: str) -> str:
    """Return an address of a web page without a slash at its end; empty for an empty one.

    Raises:
        ValueError: It is no address that a browser may be sent to, or has more than scheme, host,
            port and path.
    """
    address = text.strip().rstrip("/")
    parts = urlsplit(address)  # raises ValueError if it cannot be read
    if address and not (parts.scheme in ("http", "https") and parts.hostname):
        raise ValueError("it has to be an address with http:// or https:// and a host")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("it may have no user, password, query or fragment: every reader sees it")
    return address
