"""Defines the bounds and deadlines of the gateway's connections."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from streamq._errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """Bounds and deadlines of the gateway; the defaults suit browsers behind common proxies.

    Attributes:
        heartbeat_seconds: Longest silence on an open connection. Proxies commonly give up after
            30 to 60 s, some after 15.
        send_timeout_seconds: How long a client may accept no data before it is dropped; a peer
            behind a proxy can disappear without disconnecting.
        max_age_seconds: Age at which a connection is closed (minus up to a tenth, so that clients
            do not reconnect all at once); the client continues where it was.
        linger_seconds: How long a stream stays open in this process after its last client left.
        ring_bytes: Bytes of encoded events kept in memory for each watched stream, for all clients
            together. A client that needs older events reads them from the backend until it has
            caught up.
        retry_seconds: How long clients should wait before they reconnect.

    Raises:
        ConfigurationError: A value is not positive.
    """

    heartbeat_seconds: float = 15.0
    send_timeout_seconds: float = 30.0
    max_age_seconds: float = 900.0
    linger_seconds: float = 5.0
    ring_bytes: int = 1_048_576
    retry_seconds: float = 2.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigurationError(f"{field.name} must be positive, not {value!r}")
