"""Opens, in an activity, the streams of its task: those it writes and those it reads.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from typing import Any

from temporalio import activity

from streamq._events import StreamId
from streamq.opening._open import open_reader, open_writer
from streamq.opening._opening import Opening
from streamq.reading._reader import StreamReader
from streamq.temporal._serializer import conversion
from streamq.temporal.activities._context import ActivityContext
from streamq.temporal.activities._epoch import attempt_epoch
from streamq.temporal.producer._opening import stream_of_attempt
from streamq.writing._policies import OnRetry
from streamq.writing._writer import StreamWriter


async def open_task_writer(context: ActivityContext, topic: str) -> StreamWriter[Any]:
    """Open a topic's stream of the activity's workflow; it goes on after what is stored.

    Raises:
        SealedError: The stream has ended.
        FencedError: A newer attempt has opened it.
        StreamqError: It cannot be opened.
    """
    stream = await stream_of_attempt(context, activity.info(), topic)
    serializer, codec = _conversion(context, stream)
    return await open_writer(
        stream,
        queue=context.queue,
        settings=context.settings,
        epoch=attempt_epoch(activity.info()),
        on_retry=OnRetry.RESUME,
        serializer=serializer,
        codec=codec,
        seals_failures=False,
        require=["replay"],
    )


async def task_reader(context: ActivityContext, topic: str) -> Opening[StreamReader[Any]]:
    """Return the opening of a reader of a topic's stream of the activity's workflow."""
    stream = await stream_of_attempt(context, activity.info(), topic)
    serializer, codec = _conversion(context, stream)
    return open_reader(
        stream,
        queue=context.queue,
        settings=context.settings,
        serializer=serializer,
        codec=codec,
        require=["replay"],
    )


def _conversion(context: ActivityContext, stream: StreamId) -> tuple[Any, Any]:
    return conversion(context.client.data_converter, stream.name, context.client.namespace)
