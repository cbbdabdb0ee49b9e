"""Defines the bounds and deadlines of the gateway.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from dataclasses import dataclass

from streamq._capabilities import Capabilities, LatencyClass
from streamq._comma_lists import listed
from streamq._errors import ConfigurationError
from streamq._settings import Settings

_MAY_BE_NONE = ("max_connections", "max_queries", "prefix_seconds")
_SERVER_QUERIES = 16
_LOCAL_QUERIES = 2
_PREFIX_SECONDS = {
    LatencyClass.MICROSECONDS: 0.25,
    LatencyClass.MILLISECONDS: 1.0,
    LatencyClass.TENS_OF_MILLISECONDS: 2.0,
    LatencyClass.SECONDS: 5.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """Bounds and deadlines of the gateway; the defaults suit browsers behind common proxies.

    A request beyond a bound gets 503 with ``Retry-After``, or 429 if its client has taken its own
    part of the bound (:attr:`client_share`).

    Attributes:
        heartbeat_seconds: Longest silence on an open connection. Proxies commonly give up after
            30 to 60 s, some after 15.
        send_timeout_seconds: How long a client may accept no data before it is dropped; a peer
            behind a proxy can disappear without disconnecting.
        max_age_seconds: Age at which a connection is closed (minus up to a tenth, so that clients
            do not reconnect all at once); the client continues where it was.
        linger_seconds: How long a stream stays open in this process after its last client left.
        max_lingering: Most streams that stay open so; beyond that the oldest ones are closed.
        ring_bytes: Bytes of encoded events kept in memory for each watched stream, for all clients
            together. A client that needs older events reads them from the backend, in pages, until
            it has caught up.
        rings_bytes: The same for all watched streams together.
        pages_bytes: Bytes of encoded pages kept for the clients that catch up, all together.
        max_page_reads: Pages that are read from the backend at once. Clients wait in turn for the
            others, get heartbeats meanwhile, and share pages.
        max_connections: Open event streams; ``None`` for as many as the limit of file descriptors
            leaves room for, at most 10,000. ``serve`` accepts a tenth more connections.
        max_followed: Streams that are followed on connections of many streams. Each of these
            connections is one of ``max_connections``.
        prefix_seconds: How often the backend is asked for new streams of a prefix that connections
            follow, once for all of them. ``None`` for 0.25 s (memory), 1 s, 2 s or 5 s, by the
            latency that the backend declares. A list that takes long is asked for less often.
        max_waiting: Connections that wait for a stream that does not exist (``?wait=``).
        max_queries: Questions to the backend at once: whether a stream exists, where it stands. The
            others wait in turn. ``None`` for 16, and for 2 where the backend is this machine
            itself (no ``cross_host``): its answers take the CPU that live readers need, and more at
            once are not answered sooner.
        queue_seconds: How long such a question may wait for its turn before it gets 503.
        client_share: Largest part of these bounds that one client may take; 1 for all of it. A
            client is an IP address (of IPv6, a network of 64 bits).
        trusted_proxies: Addresses or networks of proxies whose ``X-Forwarded-For`` names the
            client. Without it, all clients of a proxy count as one.
        authorize_seconds: How long the function of ``create_app(authorize=...)`` may take before a
            request gets 503; a list that asks it for each stream may take as long in all.
        request_seconds: ``serve`` only: how long a request may take to arrive, from the first
            byte, or from the start of the connection, to the end of its body.
        keep_alive_seconds: ``serve`` only: how long a connection stays open between two requests.
        retry_seconds: How long clients should wait before they reconnect.

    Raises:
        ConfigurationError: A value is not positive, ``client_share`` is larger than 1, or an
            address in ``trusted_proxies`` is malformed.
    """

    heartbeat_seconds: float = 15.0
    send_timeout_seconds: float = 30.0
    max_age_seconds: float = 900.0
    linger_seconds: float = 5.0
    max_lingering: int = 64
    ring_bytes: int = 1_048_576
    rings_bytes: int = 67_108_864
    pages_bytes: int = 16_777_216
    max_page_reads: int = 4
    max_connections: int | None = None
    max_followed: int = 10_000
    prefix_seconds: float | None = None
    max_waiting: int = 1_000
    max_queries: int | None = None
    queue_seconds: float = 15.0
    client_share: float = 0.5
    trusted_proxies: tuple[str, ...] = ()
    authorize_seconds: float = 10.0
    request_seconds: float = 10.0
    keep_alive_seconds: float = 5.0
    retry_seconds: float = 2.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "trusted_proxies" or (value is None and field.name in _MAY_BE_NONE):
                continue
            if not value > 0:
                raise ConfigurationError(f"{field.name} must be positive, not {value!r}")
        if self.client_share > 1:
            raise ConfigurationError(
                f"client_share must be at most 1, not {self.client_share!r}; 1 lets one client "
                "take all of a bound"
            )
        for address in self.trusted_proxies:
            try:
                ipaddress.ip_network(address, strict=False)
            except ValueError:
                raise ConfigurationError(
                    f"trusted_proxies has {address!r}; give IP addresses or networks, for example "
                    "10.0.0.0/8"
                ) from None

    @classmethod
    def from_settings(cls, settings: Settings) -> GatewayOptions:
        """Return the options that ``STREAMQ_GATEWAY_*`` and the defaults give.

        Raises:
            ConfigurationError: As for the constructor.
        """
        return cls(
            max_connections=settings.gateway_max_connections or None,
            trusted_proxies=tuple(listed(settings.gateway_trusted_proxies)),
        )

    def queries(self, capabilities: Capabilities) -> int:
        """Return how many questions a backend is asked at once."""
        if self.max_queries is not None:
            return self.max_queries
        return _SERVER_QUERIES if capabilities.cross_host else _LOCAL_QUERIES

    def looks_every(self, capabilities: Capabilities) -> float:
        """Return the seconds between two looks for new streams of a prefix."""
        if self.prefix_seconds is not None:
            return self.prefix_seconds
        return _PREFIX_SECONDS[capabilities.latency]

    def share(self, bound: int) -> int:
        """Return the part of a bound that one client may take, at least 1."""
        return max(int(bound * self.client_share), 1)
