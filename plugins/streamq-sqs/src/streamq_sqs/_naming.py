"""Maps streams to names of SQS queues.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

import hashlib

from streamq.driver import StreamId

_FIFO = ".fifo"
_TENANT_DIGITS, _NAME_DIGITS = 12, 32


class QueueNames:
    """Names of the queues of streams and tenants.

    Args:
        prefix: Beginning of every name.
        fifo: Whether they are FIFO queues, whose names end in ``.fifo``.
    """

    def __init__(self, prefix: str, *, fifo: bool) -> None:
        self.prefix = prefix
        self._suffix = _FIFO if fifo else ""

    def tenant(self, tenant: str) -> str:
        """Return the beginning of the names of all queues of a tenant."""
        return f"{self.prefix}{_digest(tenant, _TENANT_DIGITS)}-"

    def queue(self, stream: StreamId) -> str:
        """Return the name of a stream's queue: a digest, because SQS limits names to 80 bytes."""
        return f"{self.tenant(stream.tenant)}{_digest(stream.name, _NAME_DIGITS)}{self._suffix}"


def _digest(text: str, digits: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=digits // 2).hexdigest()
