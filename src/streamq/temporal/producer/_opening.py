"""Opens the writers of an attempt, and decides what a fenced or sealed stream means for it.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

import logging
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from streamq._errors import FencedError, SealedError, StreamqError
from streamq._events import StreamId
from streamq._sweep import SWEEPER
from streamq.opening._open import open_writer, retry_policy, stream_id
from streamq.reading._tail import newest_epoch
from streamq.records._values import Serializer
from streamq.temporal._activity_runs import activity_stream_name, is_standalone
from streamq.temporal._failure import application_error, refusal
from streamq.temporal._names import stream_name
from streamq.temporal._serializer import conversion
from streamq.temporal._tracing import stream_span
from streamq.temporal.activities._context import ActivityContext
from streamq.temporal.activities._epoch import attempt_epoch
from streamq.temporal.activities._owner import stream_owner_of
from streamq.writing._writer import StreamWriter

from ._discarding import discarding_writer
from ._signature import StreamingSpec

_OWN_TOPIC = (
    "give each call its own topic: with stream_topic('...') around it, or "
    "@streaming_activity(topic=...)"
)
FENCED_HINT = f"; a newer attempt took it over, or another call on the same topic: {_OWN_TOPIC}"

logger = logging.getLogger("streamq.temporal")


async def stream_of_attempt(context: ActivityContext, info: activity.Info, topic: str) -> StreamId:
    """Return the stream of a topic of the workflow that an activity works for, or of the activity.

    Raises:
        ApplicationError: The activity has neither a workflow nor a run id; not retryable.
        StreamqError: Temporal could not be queried for the first run id.
    """
    if is_standalone(info):
        name = activity_stream_name(info.activity_id, str(info.activity_run_id), topic)
        return stream_id(name, context.settings)
    workflow_id, first = await stream_owner_of(
        info, context.origin, context.client, context.settings
    )
    return stream_id(stream_name(workflow_id, first, topic), context.settings)


async def open_attempt_writer(
    context: ActivityContext,
    info: activity.Info,
    stream: StreamId,
    spec: StreamingSpec,
) -> StreamWriter:
    """Open the writer of one stream; one that discards if an earlier attempt sealed the stream.

    Raises:
        ApplicationError: Another call of the workflow writes, or has ended, the stream.
        StreamqError: The stream cannot be opened.
    """
    epoch = attempt_epoch(info)
    origin = context.origin
    run_id = origin.original_run_id if origin else info.workflow_run_id or info.activity_run_id
    producer = f"{run_id}/{info.activity_id}"
    serializer: Serializer[Any]
    serializer, codec = conversion(
        context.client.data_converter, stream.name, context.client.namespace
    )
    retry = retry_policy(context.settings, context.queue, stream)
    try:
        with stream_span(stream, backend=context.queue.backend) as span:
            writer = await open_writer(
                stream,
                queue=context.queue,
                settings=context.settings,
                epoch=epoch,
                on_retry=spec.on_retry,
                on_full=spec.on_full,
                producer=producer,
                serializer=serializer,
                codec=codec,
                headers=span.headers,
                seals_failures=False,  # there may be a next attempt
            )
            span.follow(writer)
        return writer
    except FencedError as exc:
        if await newest_epoch(context.queue, stream, retry) != epoch:
            raise
        # Attempts of one call have different epochs. Two calls of one workflow task have the same
        # if Temporal scheduled them in the same millisecond.
        raise refusal(
            FencedError,
            f"stream {stream} is being written by another call of this workflow, scheduled at the "
            f"same time; {_OWN_TOPIC}",
        ) from exc
    except SealedError as exc:
        newest = await newest_epoch(context.queue, stream, retry)
        if newest > epoch:
            # This attempt stalled until a newer one had ended the stream.
            raise FencedError(
                f"epoch {newest} has written and ended stream {stream}; epoch {epoch} must stop",
                backend=exc.backend,
                stream=exc.stream,
            ) from exc
        # A sweep seals the stream of a workflow that has ended. If that is reset later, readers
        # have had an ending already, so that the repeated call discards its chunks.
        is_repeated = exc.producer in (producer, SWEEPER) or (
            origin and origin.workflow_attempt > 1
        )
        if not is_repeated:
            raise refusal(
                SealedError,
                f"stream {stream} was ended by another call of this workflow; {_OWN_TOPIC}",
            ) from exc
        logger.warning(
            "%s. Activity %s (attempt %d) does its work again for the result; readers get no "
            "further events.",
            exc,
            info.activity_type,
            info.attempt,
        )
        return discarding_writer(
            context.queue,
            stream,
            context.settings,
            attempt=info.attempt,
            epoch=epoch,
            serializer=serializer,
        )


def opening_error(error: StreamqError) -> ApplicationError:
    """Return the Temporal failure for an error that opening a writer raised."""
    if isinstance(error, FencedError):
        # Retryable: the clocks of the server's hosts may disagree, so that this attempt may be the
        # newest one in spite of its epoch. The next attempt has a higher epoch in any case.
        return refusal(FencedError, f"{error}{FENCED_HINT}", is_retried=True)
    return application_error(error)
