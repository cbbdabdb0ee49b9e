"""Opens queues on a Temporal namespace.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from streamq import ConfigurationError
from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Driver,
    Finding,
    LatencyClass,
    QueueOptions,
    TemporalEndpoint,
    to_the_end,
)

from ._doctor import examine
from ._errors import BACKEND
from ._queue import WorkflowStreamsQueue
from ._settings import WorkflowStreamsSettings
from .embedded import embedded
from .requests._connection import make_client

_logger = logging.getLogger("streamq.workflow_streams")


class WorkflowStreamsDriver(Driver[WorkflowStreamsSettings]):
    """Stores each stream in a host workflow, for users of Temporal who want no broker."""

    name = BACKEND
    summary = "Temporal itself, without a broker: small streams, few readers, some 10 ms"
    capabilities = Capabilities(
        replay=True,
        fan_out=True,
        ordered=True,
        fenced=True,
        durable=True,
        cross_process=True,
        cross_host=True,
        expires=True,
        max_record_bytes=256 * 1024,
        latency=LatencyClass.TENS_OF_MILLISECONDS,
    )
    settings_type = WorkflowStreamsSettings

    @classmethod
    async def open(cls, options: QueueOptions, settings: WorkflowStreamsSettings) -> ChunkQueue:
        """Connect, and check that the namespace exists.

        Logs a warning if no worker runs the host workflow: one may be about to start. Calls that
        need a worker wait for one until their deadline.

        Raises:
            BackendUnavailableError: The server cannot be reached in time.
            AccessDeniedError: The server refuses our credentials.
            ConfigurationError: There is no such namespace; or a file, or Temporal's own
                configuration, cannot be used.
        """
        endpoint = settings.target.resolve()
        settings = _completed(settings, endpoint)
        queue = await cls._connect(options, settings, endpoint)
        try:
            if await queue.requests.has_no_worker():
                _logger.warning(
                    "no worker keeps the streams of task queue %r yet, and nothing can be written "
                    "or read without one: run `python -m streamq_workflow_streams --address %s`",
                    settings.task_queue,
                    settings.address,
                )
        except BaseException:
            await to_the_end(queue.aclose())
            raise
        return queue

    @classmethod
    async def examine(
        cls, options: QueueOptions, settings: WorkflowStreamsSettings
    ) -> Sequence[Finding]:
        """Examine the namespace, our permissions there, and whether a worker keeps streams.

        Raises:
            StreamqError: As for :meth:`open`.
        """
        endpoint = settings.target.resolve()
        settings = _completed(settings, endpoint)
        async with await cls._connect(options, settings, endpoint) as queue:
            return [finding async for finding in examine(queue.requests, settings)]

    @classmethod
    async def _connect(
        cls, options: QueueOptions, settings: WorkflowStreamsSettings, endpoint: TemporalEndpoint
    ) -> WorkflowStreamsQueue:
        client = await make_client(endpoint)
        queue = WorkflowStreamsQueue(options, settings, cls.capabilities, client, endpoint)
        try:
            if not await queue.requests.check_namespace():
                raise ConfigurationError(
                    f"Temporal at {settings.address} has no namespace {settings.namespace!r}; set "
                    "STREAMQ_WORKFLOW_STREAMS_NAMESPACE",
                    backend=BACKEND,
                )
        except BaseException:
            await to_the_end(queue.aclose())
            raise
        return queue

    @classmethod
    def embedded(
        cls, settings: WorkflowStreamsSettings
    ) -> AbstractContextManager[Mapping[str, str]] | None:
        """Return a Temporal server with a worker for hosts, unless a server is configured."""
        return None if settings.target.resolve().is_configured else embedded(settings)


def _completed(
    settings: WorkflowStreamsSettings, endpoint: TemporalEndpoint
) -> WorkflowStreamsSettings:
    """Return settings with the address and the namespace that are used."""
    used = {"address": endpoint.address, "namespace": endpoint.namespace}
    return settings.model_copy(update=used)
