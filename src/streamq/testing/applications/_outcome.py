"""Tells from what a worker reported how an attempt ended, and whether another one follows.

Design: docs/design/testing-applications.md.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import temporalio.exceptions
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError, TimeoutType
from temporalio.testing import ActivityEnvironment

from streamq.temporal._failure import is_final

from ._activity_run import AttemptRun
from ._recorded import RecordedAttempt
from ._recording_writer import RecordingWriter
from ._script import CancelReason

_FINAL = (CancelReason.REQUESTED, CancelReason.WORKFLOW_ENDED)


async def outcome_of(
    run: AttemptRun, converter: DataConverter, writer: RecordingWriter[Any] | None
) -> RecordedAttempt[Any, Any]:
    """Return how an attempt went.

    Args:
        run: The attempt, at its end.
        converter: Decodes result and failure.
        writer: The recorded writer of the main stream, if the streams could be opened.
    """
    chosen = converter.with_context(run.task.context(run.client.namespace))
    value, failure = await _decoded(run, chosen)
    return RecordedAttempt(
        number=run.task.number,
        sent=[] if writer is None else writer.sent,
        resumed_from=0 if writer is None else writer.resumed_from,
        error=None if failure is None else run.error or failure,
        failure=failure,
        heartbeats=run.heartbeats,
        is_retried=failure is not None and _is_retried(run, failure),
        value=value,
    )


async def _decoded(run: AttemptRun, converter: DataConverter) -> tuple[Any, BaseException | None]:
    reported = run.completion.result
    status = reported.WhichOneof("status")
    if status == "completed":
        wanted = run.task.definition.ret_type
        payloads = [reported.completed.result]
        [value] = await converter.decode(payloads, [wanted] if wanted else None)
        return value, None
    if run.cancelled is CancelReason.TIMED_OUT:
        return None, temporalio.exceptions.TimeoutError(
            f"activity StartToClose timeout ({run.task.start_to_close_timeout})",
            type=TimeoutType.START_TO_CLOSE,
            last_heartbeat_details=[],
        )
    if run.cancelled is CancelReason.WORKER_SHUTDOWN and status == "cancelled":
        return None, ApplicationError("Worker is shutting down", type="WorkerShutdown")
    recorded = reported.cancelled if status == "cancelled" else reported.failed
    return None, await converter.decode_failure(recorded.failure)


def _is_retried(run: AttemptRun, failure: BaseException) -> bool:
    if run.cancelled in _FINAL:
        return False
    if run.cancelled is CancelReason.PAUSED:
        return True  # whatever the policy is
    if run.cancelled is CancelReason.TIMED_OUT:
        failure = ApplicationError("timed out", type="TimeoutError")
    environment, task = ActivityEnvironment(), run.task
    info = replace(
        environment.info,
        attempt=task.number,
        retry_policy=task.retry_policy,
        scheduled_time=task.scheduled,
        started_time=task.started,
        schedule_to_close_timeout=task.schedule_to_close_timeout,
    )
    return not environment.run(is_final, failure, info, timedelta())
