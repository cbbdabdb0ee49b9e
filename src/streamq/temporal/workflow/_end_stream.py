"""Ends, from a workflow, a stream that its producer could not end.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from streamq._errors import FencedError, SealedError
from streamq.temporal._failure import is_failure_of, is_refused, shown_to_readers
from streamq.temporal.activities._seal import SealRequest, seal

_SEAL_TIMEOUT = timedelta(seconds=10)
_SLOT_TIMEOUT = timedelta(minutes=5)  # long producers may occupy all slots
_SEAL_ONCE_MORE = RetryPolicy(maximum_attempts=2)  # the first may be lost with its worker


async def end_stream(
    stream: str, failure: BaseException, *, cancelled: str | None, retries: bool | None = None
) -> bool:
    """End a stream whose producer failed, unless another call or attempt ends it.

    A producer that timed out or was cancelled between two attempts sealed nothing. This costs one
    activity, ``streamq.seal``, which does nothing if the stream has ended.

    Args:
        stream: Name of the stream.
        failure: The failure of the producer.
        cancelled: Why it was cancelled; ``None`` if it was not.
        retries: Whether the next attempt of the workflow continues the stream; by default that
            follows from the running workflow's retry policy.

    Returns:
        Whether the stream is known to be sealed now.
    """
    if is_refused(failure):
        return False  # whatever cancelled this call, the stream is another one's
    cause: BaseException = failure
    while isinstance(cause, ActivityError) and cause.cause is not None:
        cause = cause.cause
    if cancelled is not None:
        ending = SealRequest(stream, "CANCELLED", cancelled or "cancelled")
    elif (workflow_retries() if retries is None else retries) or _is_owned_by_another_call(cause):
        return False
    else:
        kind, message = shown_to_readers(cause)
        ending = SealRequest(stream, "ERROR", message, kind)
    try:
        await workflow.execute_activity(
            seal,
            ending,
            start_to_close_timeout=_SEAL_TIMEOUT,
            schedule_to_close_timeout=_SLOT_TIMEOUT,
            retry_policy=_SEAL_ONCE_MORE,
        )
    except ActivityError as exc:
        workflow.logger.warning("stream %s is not sealed: %s", stream, exc.cause)
        return False
    return True


def workflow_retries() -> bool:
    """Whether the running workflow will be retried if it fails, by its retry policy."""
    info = workflow.info()
    policy = info.retry_policy
    return policy is not None and info.attempt != policy.maximum_attempts


def _is_owned_by_another_call(cause: BaseException) -> bool:
    """Whether the producer failed because another call owns its stream, and will end it."""
    return is_failure_of(cause, FencedError, SealedError)
