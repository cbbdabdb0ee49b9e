"""Bounds what clients hold of the gateway: connections, streams on shared ones, waiting.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from collections.abc import Callable

from ._clients import Bound
from ._options import GatewayOptions
from ._reader_quotas import ReaderQuotas


class ClientBounds:
    """The bounds of one gateway.

    Args:
        options: The bounds, and the part of each that one client may take.
        max_connections: Returns the most open event streams.
        quotas: Bounds the connections of each tenant and subject, too.
    """

    def __init__(
        self, options: GatewayOptions, max_connections: Callable[[], int], quotas: ReaderQuotas
    ) -> None:
        self.quotas = quotas
        """What tenants and subjects take."""
        share = options.share
        self.connections = Bound(
            "open event streams",
            max_connections,
            lambda: share(max_connections()),
            quotas.allowances("connections"),
        )
        """Open responses with events or records."""
        self.shared = Bound(
            "streams that are followed on connections of many",
            lambda: options.max_followed,
            lambda: share(options.max_followed),
        )
        """Streams that are followed on connections of many."""
        self.awaited = Bound(
            "connections that wait for a stream",
            lambda: options.max_waiting,
            lambda: share(options.max_waiting),
        )
        """Connections that wait for a stream."""
