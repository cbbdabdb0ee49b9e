"""Knows, in workflow code, the first run of the chain that the running run belongs to.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RetryPolicy
from temporalio.exceptions import FailureError, is_cancelled_exception

from streamq._errors import AccessDeniedError, ConfigurationError, StreamNotFoundError, error_text
from streamq.temporal._failure import failure_type
from streamq.temporal._lineage import Lineage, read_lineage
from streamq.temporal._names import DEFAULT_TOPIC, stream_name
from streamq.temporal.activities._owner import first_run

from ._run_state import run_state

_PATCH = "streamq-cron-firings"
# Three attempts and their pauses of 1 and 2 seconds take 57 seconds. The SDK does not hold the
# retries of a local activity to schedule_to_close_timeout, which is for the wait for a slot here.
_ATTEMPT_TIMEOUT = timedelta(seconds=18)
_TIMEOUT = timedelta(seconds=60)
_RETRY = RetryPolicy(
    maximum_attempts=3,
    # Asking again soon does not help; the activities of the workflow ask for themselves.
    non_retryable_error_types=[failure_type(AccessDeniedError), failure_type(StreamNotFoundError)],
)


def workflow_stream_name(topic: str = DEFAULT_TOPIC) -> str:
    """Return, in workflow code, the name of a stream of the running workflow.

    Queries and validators may call it as well.

    Args:
        topic: Which of the workflow's streams.

    Raises:
        ConfigurationError: The topic is not usable, or a handler asks before the retry of a cron
            schedule's firing has begun.
        StreamNotFoundError: The run retries a firing of a cron schedule, and Temporal did not state
            with which run the firing began.
    """
    return stream_name(workflow.info().workflow_id, first_run_id(), topic)


def first_run_id() -> str:
    """Return the first run of the running chain, for names that workflow code uses.

    Raises:
        ConfigurationError: A handler asks before the retry of a cron schedule's firing has begun.
        StreamNotFoundError: Temporal did not state the first run of such a firing.
    """
    info, state = workflow.info(), run_state()
    if state.first_run_id is not None:
        return state.first_run_id
    found = known_first_run_id()
    if found is None:
        run = f"run {info.run_id} of workflow {info.workflow_id!r}"
        if state.problem is not None:
            raise StreamNotFoundError(
                f"{run} retries a firing of its cron schedule, and Temporal did not state with "
                f"which run the firing began, after which its streams are named: {state.problem}"
            )
        raise ConfigurationError(
            f"{run} retries a firing of its cron schedule, and does not know its streams before "
            "its main method runs; await that in this handler: workflow.wait_condition(...)"
        )
    if found != info.first_execution_run_id:
        if workflow.unsafe.is_read_only():
            # Nothing may be recorded here. No name is in use yet, so the next call will get this.
            return found
        # A run that began before firings had streams of their own ends with the names it had.
        if not workflow.patched(_PATCH):
            found = info.first_execution_run_id
    state.first_run_id = found
    return found


def known_first_run_id() -> str | None:
    """Return the first run of the running chain; ``None`` if only Temporal knows it."""
    kept = run_state().first_run_id
    if kept is not None:
        return kept
    info = workflow.info()
    if info.continued_run_id is None:
        return info.first_execution_run_id
    lineage = read_lineage(info.headers)
    if lineage is not None and lineage.holds(
        continued_from=info.continued_run_id,
        cron_schedule=info.cron_schedule,
        attempt=info.attempt,
    ):
        return lineage.first_run_id
    if not info.cron_schedule:
        return info.first_execution_run_id
    # The firing's first run, also after a reset of it. A retry does not know which one that was.
    return info.original_execution_run_id if info.attempt == 1 else None


async def learn_first_run_id() -> None:
    """Ask Temporal for the first run if this run does not know it; costs a local activity then.

    Takes 60 seconds at most. Without an answer the workflow goes on: its activities ask for
    themselves, and its code gets an error only if it uses a name.
    """
    if known_first_run_id() is not None:
        return
    state = run_state()
    if not workflow.patched(_PATCH):
        state.first_run_id = workflow.info().first_execution_run_id
        return
    try:
        state.first_run_id = await workflow.execute_local_activity(
            first_run,
            start_to_close_timeout=_ATTEMPT_TIMEOUT,
            schedule_to_close_timeout=_TIMEOUT,
            retry_policy=_RETRY,
        )
    except FailureError as exc:  # of a local activity it may be the failure itself
        if is_cancelled_exception(exc):
            raise
        state.problem = error_text(exc.cause or exc)
        workflow.logger.warning("streamq.first_run failed: %s", state.problem)


def continued_headers(headers: Mapping[str, Payload]) -> Mapping[str, Payload]:
    """Return the headers with which the running run is continued as new."""
    info, first = workflow.info(), known_first_run_id()
    if first is None or (not info.cron_schedule and first == info.first_execution_run_id):
        return headers
    return Lineage(first, info.run_id).to_headers(headers)
