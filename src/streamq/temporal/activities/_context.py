"""Holds the resources that the plugin gives every activity of its worker."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from temporalio.client import Client

from streamq._codec import Codec
from streamq._events import StreamId
from streamq._settings import Settings
from streamq.driver import ChunkQueue
from streamq.temporal._failure import no_plugin
from streamq.temporal._origin import Origin
from streamq.temporal._serializer import conversion


@dataclass(frozen=True, slots=True)
class ActivityContext:
    """Resources of the running activity.

    Attributes:
        queue: The worker's queue.
        settings: Limits and defaults.
        client: The worker's client.
        origin: Where the activity was scheduled, if a header states it.
    """

    queue: ChunkQueue
    settings: Settings
    client: Client
    origin: Origin | None

    def codec(self, stream: StreamId) -> Codec | None:
        """Return the codec for the records of a stream: the client's payload codec, if any."""
        return conversion(self.client.data_converter, stream.name, self.client.namespace)[1]


current: ContextVar[ActivityContext | None] = ContextVar("streamq_activity", default=None)


def activity_context() -> ActivityContext:
    """Return the context of the running activity.

    Raises:
        ApplicationError: The worker runs without the plugin; not retryable.
    """
    context = current.get()
    if context is None:
        raise no_plugin()
    return context
