"""The driver: opens queues on a Temporal namespace."""

from __future__ import annotations

from streamq import ConfigurationError
from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Driver,
    LatencyClass,
    QueueOptions,
)

from ._errors import BACKEND
from ._queue import WorkflowStreamsQueue
from ._settings import WorkflowStreamsSettings, make_client


class WorkflowStreamsDriver(Driver[WorkflowStreamsSettings]):
    """One host workflow per stream, for those who have Temporal and want no broker beside it."""

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
        """Connect, and see that the namespace exists.

        Whether a worker runs the host workflow is seen by the first call that needs one.

        Raises:
            BackendUnavailableError: The server cannot be reached in time.
            AccessDeniedError: It refuses our credentials.
            ConfigurationError: There is no such namespace.
        """
        queue = WorkflowStreamsQueue(
            options, settings, cls.capabilities, await make_client(settings)
        )
        try:
            if not await queue.frontend.check_namespace():
                raise ConfigurationError(
                    f"Temporal at {settings.address} has no namespace {settings.namespace!r}; set "
                    "STREAMQ_WORKFLOW_STREAMS_NAMESPACE",
                    backend=BACKEND,
                )
        except BaseException:
            await queue.aclose()
            raise
        return queue
