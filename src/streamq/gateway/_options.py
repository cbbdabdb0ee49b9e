"""How the gateway treats its connections."""

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
        send_timeout_seconds: How long a client may refuse to take data before it is dropped; a
            peer behind a proxy can vanish without ever disconnecting.
        max_age_seconds: A connection is closed after this long (minus up to a tenth, so that not
            all come back together); the client goes on where it was.
        linger_seconds: How long a stream stays open in this process after its last client left.
        ring_bytes: Encoded events kept in memory per watched stream, for everybody together. A
            client that needs older ones reads the log by itself until it has caught up.
        retry_seconds: What clients are told to wait before they reconnect.

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
