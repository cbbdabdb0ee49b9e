"""Opens clients of the services that notifications need.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
from typing import Any

from streamq_aws import AwsClients

POLL_SECONDS = 5
"""How long a request to SQS waits for messages."""


class LazyClients:
    """Clients of SNS, SQS and STS, each opened when it is first needed: many processes need none.

    Args:
        clients: Opens the clients, and closes them.
    """

    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients
        self._opened: dict[str, Any] = {}
        self._opening = asyncio.Lock()

    @property
    def region(self) -> str | None:
        """The region in use, once a client is open."""
        return self._clients.region

    async def client(self, service: str) -> Any:
        """Return the client of a service: ``sns``, ``sqs`` or ``sts``.

        Raises:
            StreamqError: As :meth:`streamq_aws.AwsClients.client`.
        """
        async with self._opening:
            if service not in self._opened:
                poll_seconds = POLL_SECONDS if service == "sqs" else 0.0
                opened = await self._clients.client(service, poll_seconds=poll_seconds)
                self._opened[service] = opened
            return self._opened[service]
