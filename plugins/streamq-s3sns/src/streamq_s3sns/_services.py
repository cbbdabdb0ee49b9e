"""The services that notifications need."""

from __future__ import annotations

import asyncio
from typing import Any

from streamq.driver import ConfigurationError
from streamq_aws import AwsClients

from ._segment import BACKEND
from ._settings import S3SnsSettings

POLL_SECONDS = 5
"""How long a request to SQS waits for messages."""


class Services:
    """Clients that are opened when they are first asked for, since many processes need none.

    Args:
        clients: Makes them, and closes them.
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


def check_region(settings: S3SnsSettings, region: str | None) -> None:
    """See that the topic is where our clients of SNS are going to ask for it.

    Raises:
        ConfigurationError: It is in another region.
    """
    theirs = settings.topic_region
    if theirs is not None and region is not None and theirs != region:
        raise ConfigurationError(
            f"topic {settings.topic_arn} is in region {theirs}, and the region in use is {region}; "
            "set STREAMQ_S3SNS_TOPIC_ARN to a topic of that region, or STREAMQ_S3SNS_REGION to "
            "the topic's",
            backend=BACKEND,
        )
