"""Sends items from workflow code, by an activity."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from weakref import WeakSet

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from streamq._errors import ChunkTooLargeError
from streamq.temporal._event_json import PAYLOAD_BYTES
from streamq.temporal._failure import final_failure, no_plugin

from ._items import PublishEntry, PublishRequest

BATCH_BYTES = 500_000
"""Largest size of the items of one call, as JSON, unless it is a single item."""

_ACTIVITY = "streamq.publish"
_ACTIVITY_SECONDS = 60
_UNKNOWN_ACTIVITY = "NotFoundError"  # failure type of an activity that a worker does not have

# Every workflow run is an event loop of its own.
_routed: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


def route() -> None:
    """Make each topic of the running workflow a stream of its own."""
    _routed.add(asyncio.get_running_loop())


def check_size(entry: PublishEntry) -> None:
    """Refuse an item that no activity takes.

    Raises:
        ApplicationError: It is too large; not retryable.
    """
    if entry.size() > PAYLOAD_BYTES:
        raise final_failure(
            ChunkTooLargeError,
            f"an item of {entry.payload().ByteSize()} bytes is larger than the activity that "
            "publishes it accepts; publish it from an activity, in parts, or a reference to it",
        )


def take_request(publisher: str, first: int, waiting: list[PublishEntry]) -> PublishRequest:
    """Return a request for the next items, and remove them from those that wait."""
    request = PublishRequest(publisher, first, topics=asyncio.get_running_loop() in _routed)
    room = BATCH_BYTES
    for entry in waiting:
        room -= entry.size()
        if request.items and room < 0:
            break
        request.items.append(entry)
    del waiting[: len(request.items)]
    return request


async def send(request: PublishRequest) -> None:
    """Send items, and return when they have arrived.

    Raises:
        ApplicationError: The worker has no plugin; not retryable.
        ActivityError: The backend refuses them.
    """
    try:
        await workflow.execute_activity(
            _ACTIVITY,
            request,
            start_to_close_timeout=timedelta(seconds=_ACTIVITY_SECONDS),
            retry_policy=RetryPolicy(non_retryable_error_types=[_UNKNOWN_ACTIVITY]),
            summary=f"{len(request.items)} items",
        )
    except ActivityError as exc:
        if isinstance(exc.cause, ApplicationError) and exc.cause.type == _UNKNOWN_ACTIVITY:
            raise no_plugin() from exc
        raise
