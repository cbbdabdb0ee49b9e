"""Holds the resources that the plugin gives every activity of its worker."""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from temporalio import activity
from temporalio.client import Client

from streamq._events import StreamId
from streamq._settings import Settings
from streamq.driver import ChunkQueue
from streamq.records._codec import Codec
from streamq.temporal._failure import no_plugin
from streamq.temporal._origin import Origin
from streamq.temporal._serializer import conversion

from ._heartbeats import Details, beating, heartbeat_seconds
from ._waiting import WaitingActivities

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ActivityContext:
    """Resources of the running activity.

    Attributes:
        queue: The worker's queue.
        settings: Limits and defaults.
        client: The worker's client.
        origin: Where the activity was scheduled, if a header states it.
        waiting: The activities of this worker that wait outside of its slots; ``None`` without a
            worker.
    """

    queue: ChunkQueue
    settings: Settings
    client: Client
    origin: Origin | None
    waiting: WaitingActivities | None = None

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


async def wait_without_slot(
    work: Coroutine[Any, Any, R], *, longest_seconds: float, details: Details = tuple
) -> R:
    """Await work that may wait for an unknown time, and occupy no activity slot meanwhile.

    On a worker with the plugin this does not return: the activity leaves its slot, and a task of
    the worker reports how the work ends (:class:`WaitingActivities`). The work is awaited in place
    if the worker has no room for a further wait, without the plugin, and by a local activity, which
    cannot complete asynchronously.

    Args:
        work: Returns the activity's result, or raises its failure.
        longest_seconds: Longest interval of heartbeats.
        details: Returns the details of a heartbeat, where the next attempt continues.
    """
    context, info = current.get(), activity.info()
    if info.is_local:
        return await work
    waiting = context.waiting if context is not None else None
    if waiting is None or not waiting.has_room():
        return await beating(work, longest_seconds=longest_seconds, details=details)
    seconds = heartbeat_seconds(info, longest_seconds)
    return waiting.take(work, beat_seconds=seconds, details=details)
