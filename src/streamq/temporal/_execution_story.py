"""Reads the story of a workflow's or standalone activity's stream, by its handle, in one call.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

from typing import Any

from temporalio.client import ActivityHandle, Client, WorkflowHandle

from streamq._settings import Settings, load_settings
from streamq.driver import ChunkQueue
from streamq.opening._open import stream_id
from streamq.opening._read_story import read_story as read_named_story
from streamq.reading._story import DEFAULT_STORY_BYTES, Story
from streamq.records._values import T

from ._names import DEFAULT_TOPIC, check_topic
from ._serializer import conversion
from ._targets import target_of


async def read_story(
    execution: WorkflowHandle[Any, Any] | ActivityHandle[Any] | str,
    topic: str = DEFAULT_TOPIC,
    *,
    client: Client | None = None,
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    must_exist: bool = True,
    gaps_as_events: bool = False,
    max_bytes: int = DEFAULT_STORY_BYTES,
    value_type: type[T] | None = None,
) -> Story[T]:
    """Return the last attempt of a workflow's or activity's stream as it is stored now.

    It is :func:`streamq.read_story` by handle, with the client's data converter. A page that loads
    late shows it, and goes on live with ``subscribe(handle, from_=story.cursor)``. Nothing is
    waited for. The state is that of the stream: OPEN also where a workflow has ended without
    sealing it.

    Args:
        execution: As for :func:`find_stream_name`.
        topic: Which of its streams.
        client: A client of the workflow's namespace; needed with an id. A handle has its own.
        queue: An open queue to use; it stays open. By default one is opened and closed.
        settings: Limits and defaults; by default those that are configured.
        must_exist: Refuse a stream that does not exist; with ``False`` its story is empty, as where
            the workflow has started and its activity has not. The execution has to exist.
        gaps_as_events: As for :func:`streamq.read_story`.
        max_bytes: As for :func:`streamq.read_story`.
        value_type: Type to which the client's data converter decodes every value.

    Raises:
        StreamNotFoundError: There is no such workflow or activity; or ``must_exist``, and the
            stream does not.
        ConfigurationError: The topic is not usable, or an id comes without a client.
        StreamqError: As for :func:`streamq.read_story`, and :func:`find_stream_name`.

    Cancellation: everything is released.
    """
    check_topic(topic)
    target, chosen = target_of(execution, client), settings or load_settings()
    found, _ = await target.find(chosen, start_seconds=0.0)
    stream = stream_id(found.stream_name(topic), chosen)
    serializer, codec = conversion(
        target.client.data_converter, stream.name, target.client.namespace, value_type
    )
    return await read_named_story(
        stream,
        queue=queue,
        settings=chosen,
        must_exist=must_exist,
        gaps_as_events=gaps_as_events,
        max_bytes=max_bytes,
        serializer=serializer,
        codec=codec,
    )
