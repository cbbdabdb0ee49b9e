"""Opens queues on SQS, and starts an emulator for demos.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence

from streamq.driver import Capabilities, ChunkQueue, Driver, Finding, LatencyClass, QueueOptions
from streamq_aws.embedded import Ministack

from ._doctor import open_doctor
from ._errors import BACKEND
from ._queue import SqsQueue
from ._settings import MESSAGE_OVERHEAD, SqsSettings

_MINISTACK_MESSAGE_BYTES = 262_144
_AWS_VARIABLES = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
    *("AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ROLE_ARN"),
)


class SqsDriver(Driver[SqsSettings]):
    """Stores each stream in an SQS queue; its one reader removes the messages that it has read."""

    name = BACKEND
    summary = "Amazon SQS: one reader, nothing to run, what is read is gone"
    capabilities = Capabilities(
        replay=False,
        fan_out=False,
        ordered=True,
        fenced=False,
        durable=True,
        cross_process=True,
        cross_host=True,
        expires=False,
        max_record_bytes=1_048_576 - MESSAGE_OVERHEAD,
        latency=LatencyClass.TENS_OF_MILLISECONDS,
    )
    settings_type = SqsSettings

    @classmethod
    async def open(cls, options: QueueOptions, settings: SqsSettings) -> ChunkQueue:
        """Connect, and check that SQS answers.

        The queue declares ``ordered`` with FIFO queues only.

        Raises:
            BackendUnavailableError: It cannot be reached in time.
            AccessDeniedError: There are no credentials, or they are refused.
            ConfigurationError: The profile does not exist, or no region is known.
        """
        capabilities = dataclasses.replace(
            cls.capabilities,
            ordered=settings.fifo,
            max_record_bytes=settings.max_message_bytes - MESSAGE_OVERHEAD,
        )
        queue = SqsQueue(options, settings, capabilities)
        try:
            await queue.start()
        except BaseException:
            await queue.aclose()
            raise
        return queue

    @classmethod
    async def examine(cls, options: QueueOptions, settings: SqsSettings) -> Sequence[Finding]:
        """Check that SQS answers, and examine settings, clock and some queues that exist."""
        async with open_doctor(options, settings) as doctor:
            return await doctor.examine()

    @classmethod
    def embedded(
        cls, settings: SqsSettings
    ) -> contextlib.AbstractContextManager[Mapping[str, str]] | None:
        """Return an emulator, unless the settings or AWS variables name an account or a server."""
        is_configured = settings.endpoint_url or settings.profile or settings.region
        if is_configured or any(os.environ.get(name) for name in _AWS_VARIABLES):
            return None
        return _embedded()


@contextlib.contextmanager
def _embedded() -> Iterator[Mapping[str, str]]:
    with Ministack() as server:
        yield {
            **server.environment,
            "STREAMQ_SQS_MAX_MESSAGE_BYTES": str(_MINISTACK_MESSAGE_BYTES),
        }
