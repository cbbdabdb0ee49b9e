"""Runs ``streamq.end_topics``: ends the streams of a workflow's topics when the workflow ends.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from streamq._errors import FencedError, SealedError, StreamNotFoundError, StreamqError
from streamq._events import Chunk, StreamId
from streamq.calling import _calls as calling
from streamq.opening._open import open_reader, open_writer, retry_policy
from streamq.reading._tail import newest_epoch
from streamq.temporal._failure import application_error, shown_to_readers
from streamq.temporal.activities._context import ActivityContext, activity_context
from streamq.temporal.activities._heartbeats import beating
from streamq.temporal.producer._opening import stream_of_attempt
from streamq.temporal.workflow._end_stream import workflow_retries
from streamq.writing._epochs import clock_epoch
from streamq.writing._policies import OnRetry

from ._competition import Competition
from ._items import TOPICS

END_TOPICS_ACTIVITY = "streamq.end_topics"

_CALL_SECONDS = 20
_ATTEMPTS = 3
_SLOT_SECONDS = 300  # long producers may occupy all slots
_LONGEST_BEAT_SECONDS = 10.0


@dataclass(frozen=True)
class EndTopicsRequest:
    """How the streams of a workflow's topics end.

    Attributes:
        state: As the workflow ends.
        message: Message for readers.
        error_type: With ``ERROR``, the type of the failure for readers.
    """

    state: Literal["END", "ERROR", "CANCELLED"] = "END"
    message: str = ""
    error_type: str = ""


async def end_topics(failure: BaseException | None) -> None:
    """End, from a workflow, the streams of all topics that it and its activities published to.

    They end as the workflow does: not at all if its task or the workflow will be tried again. The
    workflow ends in any case. Readers of a stream that could not be ended notice that.

    Args:
        failure: What the workflow fails with, if it fails.
    """
    if failure is None:
        request = EndTopicsRequest()
    elif isinstance(failure, asyncio.CancelledError) or is_cancelled_exception(failure):
        request = EndTopicsRequest("CANCELLED", "cancelled")
    elif not workflow.is_failure_exception(failure) or (
        workflow_retries() and not (isinstance(failure, ApplicationError) and failure.non_retryable)
    ):
        return
    else:
        kind, message = shown_to_readers(failure)
        request = EndTopicsRequest("ERROR", message, kind)
    try:
        await workflow.execute_activity(
            seal_topics,
            request,
            start_to_close_timeout=timedelta(seconds=_CALL_SECONDS),
            schedule_to_close_timeout=timedelta(seconds=_SLOT_SECONDS),
            retry_policy=RetryPolicy(maximum_attempts=_ATTEMPTS),
        )
    except ActivityError as exc:
        workflow.logger.warning("the streams of the topics are not sealed: %s", exc.cause)


@activity.defn(name=END_TOPICS_ACTIVITY)
async def seal_topics(request: EndTopicsRequest) -> list[str]:
    """End the streams of all topics of the workflow that scheduled this activity.

    Repeating it is harmless. It keeps its activity slot, for 20 seconds at most. It may compete for
    the streams with activities of the workflow, as long as these publish.

    Returns:
        The topics.

    Raises:
        ApplicationError: Its type is the name of the streamq error.
    """
    sealing = _seal_topics(request, activity_context())
    return await beating(sealing, longest_seconds=_LONGEST_BEAT_SECONDS)


async def _seal_topics(request: EndTopicsRequest, context: ActivityContext) -> list[str]:
    try:
        registry = await stream_of_attempt(context, activity.info(), TOPICS)
        topics = await _topics(context, registry)
        base = registry.name.removesuffix(TOPICS)
        for topic in topics:
            await _end(context, StreamId(registry.tenant, base + topic), request)
    except StreamqError as exc:
        raise application_error(exc) from exc
    return topics


async def _topics(context: ActivityContext, registry: StreamId) -> list[str]:
    retry = retry_policy(context.settings, context.queue, registry)
    try:
        await retry.run(lambda: calling.describe(context.queue, registry))
    except StreamNotFoundError:
        return []
    found: dict[str, None] = {}
    async with open_reader(
        registry, queue=context.queue, settings=context.settings, gaps_as_events=True
    ) as reader:
        while events := await reader.read_batch(max_wait=0):
            found |= {event.data.decode(): None for event in events if isinstance(event, Chunk)}
    return list(found)


async def _end(context: ActivityContext, stream: StreamId, request: EndTopicsRequest) -> None:
    retry = retry_policy(context.settings, context.queue, stream)
    competition = Competition(stream, context.settings.retry_seconds)
    while True:
        try:
            newest = await newest_epoch(context.queue, stream, retry)
            async with open_writer(
                stream,
                queue=context.queue,
                settings=context.settings,
                epoch=clock_epoch(newest),
                on_retry=OnRetry.RESUME,
                codec=context.codec(stream),
            ) as writer:
                if request.state == "END":
                    await writer.finish()
                elif request.state == "CANCELLED":
                    await writer.cancel(request.message)
                else:
                    await writer.fail(request.message, error_type=request.error_type)
        except FencedError as exc:
            fenced = exc  # by an activity that the workflow did not wait for
        except (SealedError, StreamNotFoundError):
            return  # it was announced, and nothing was stored
        else:
            return
        await competition.wait(fenced)
