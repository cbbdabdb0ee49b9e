"""Finds the name of a workflow's stream from a handle or an id.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

from typing import Any

from temporalio.client import Client, WorkflowHandle

from streamq._errors import ConfigurationError, StreamNotFoundError
from streamq._retry import RetryPolicy
from streamq._settings import Settings, load_settings

from ._chains import run_of_new_start
from ._names import DEFAULT_TOPIC, check_topic, stream_name
from ._workflow_runs import wait_started


async def find_stream_name(
    workflow: WorkflowHandle[Any, Any] | str,
    topic: str = DEFAULT_TOPIC,
    *,
    client: Client | None = None,
    settings: Settings | None = None,
) -> str:
    """Return the name of a workflow's stream, which the command line and ``open_reader`` take.

    The name is the same however the handle was got, and whichever run of the chain it names. No
    request is made for a handle from the start of a new workflow; for any other one or two.

    With a cron schedule each firing has a stream: a handle from ``start_workflow`` means the first
    firing, an id the newest one (which waits for its time, if no other one runs), a handle with a
    run id the firing of that run. The stream need not exist yet.

    Args:
        workflow: Its id, or a handle with or without a run id.
        topic: Which of the workflow's streams.
        client: A client of the workflow's namespace; needed with an id. A handle has its own.
        settings: By default those that are configured; ``retry_seconds`` bounds an outage.

    Raises:
        ConfigurationError: The topic is not usable, or an id comes without a client.
        StreamNotFoundError: There is no such workflow.
        BackendUnavailableError: Temporal stayed unreachable.
        AccessDeniedError: Temporal refuses our credentials.
    """
    check_topic(topic)
    handle = workflow_handle(workflow, client)
    name, _, _ = await find_stream(handle, topic, settings or load_settings())
    return name


def workflow_handle(
    workflow: WorkflowHandle[Any, Any] | str, client: Client | None
) -> WorkflowHandle[Any, Any]:
    """Return a handle from a handle or an id.

    Raises:
        ConfigurationError: An id comes without a client.
    """
    if not isinstance(workflow, str):
        return workflow
    if client is None:
        raise ConfigurationError(
            f"workflow id {workflow!r} needs a client: pass client=client, or a handle"
        )
    return client.get_workflow_handle(workflow)


async def find_stream(
    handle: WorkflowHandle[Any, Any],
    topic: str,
    settings: Settings,
    *,
    start_seconds: float = 0.0,
) -> tuple[str, str, bool]:
    """Find a stream, waiting for the start of its workflow if the handle names no run.

    Returns:
        Its name, the first run of the workflow's chain, and whether the workflow did not exist at
        first.

    Raises:
        StreamqError: As for :func:`find_stream_name`.
    """
    first, is_new = run_of_new_start(handle), False
    if first is None:
        given = handle.first_execution_run_id
        run_id = handle.run_id or handle.result_run_id or given
        retry = RetryPolicy(deadline_seconds=settings.retry_seconds, backend="temporal")
        try:
            first, is_new = await wait_started(
                handle._client, handle.id, run_id, retry, seconds=start_seconds
            )
        except StreamNotFoundError:
            # The stream may be kept for longer than the workflow.
            if given is None:
                raise
            first = given
    return stream_name(handle.id, first, topic), first, is_new
