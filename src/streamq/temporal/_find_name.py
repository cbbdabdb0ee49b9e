"""Finds the name of a stream from the handle or the id of a workflow or standalone activity.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

from typing import Any

from temporalio.client import ActivityHandle, Client, WorkflowHandle

from streamq._settings import Settings, load_settings

from ._names import DEFAULT_TOPIC, check_topic
from ._targets import target_of


async def find_stream_name(
    execution: WorkflowHandle[Any, Any] | ActivityHandle[Any] | str,
    topic: str = DEFAULT_TOPIC,
    *,
    client: Client | None = None,
    settings: Settings | None = None,
) -> str:
    """Return the name of a stream, which the command line and ``open_reader`` take.

    The name is the same however the handle was got, and whichever run of the chain it names. No
    request is made for a handle from the start of a new workflow; for any other one or two. For a
    standalone activity none is made if its handle has a run id.

    With a cron schedule each firing has a stream: a handle from ``start_workflow`` means the first
    firing, an id the newest one (which waits for its time, if no other one runs), a handle with a
    run id the firing of that run. The stream need not exist yet.

    Args:
        execution: The handle of a workflow or of a standalone activity, with or without a run id,
            or the id of a workflow. ``client.get_activity_handle(id)`` is the handle for the id of
            an activity.
        topic: Which of its streams.
        client: A client of the workflow's namespace; needed with an id. A handle has its own.
        settings: By default those that are configured; ``retry_seconds`` bounds an outage.

    Raises:
        ConfigurationError: The topic is not usable, an id comes without a client, or the server
            runs no activities without a workflow.
        StreamNotFoundError: There is no such workflow or activity.
        BackendUnavailableError: Temporal stayed unreachable.
        AccessDeniedError: Temporal refuses our credentials.
    """
    check_topic(topic)
    target = target_of(execution, client)
    found, _ = await target.find(settings or load_settings(), start_seconds=0.0)
    return found.stream_name(topic)
