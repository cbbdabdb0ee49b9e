"""Defines the counters of the gateway.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewayStatistics:
    """Counters of the gateway.

    Attributes:
        streams: Streams that are being read, or were until a few seconds ago.
        connections: Open SSE connections.
        waiting: How many of them wait for a stream that does not exist.
        lingering: Streams that stay open after their last client left.
        page_reads: Pages that are being read for clients that catch up.
        page_waits: Pages that wait for their turn to be read.
        memory_bytes: Memory of encoded events, about.
    """

    streams: int
    connections: int
    waiting: int = 0
    lingering: int = 0
    page_reads: int = 0
    page_waits: int = 0
    memory_bytes: int = 0
