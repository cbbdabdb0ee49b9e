"""Converts streamq's errors to Temporal's failures, and predicts whether Temporal will retry.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    ServerError,
    TerminatedError,
)

from streamq._errors import (
    BufferFullError,
    CapabilityError,
    ChunkTooLargeError,
    ConfigurationError,
    CorruptRecordError,
    CursorError,
    DriverError,
    FencedError,
    NotAwaitedError,
    QuotaError,
    ReplayError,
    SealedError,
    SerializationError,
    StreamqError,
    TrimmedError,
    error_text,
)

_NO_PLUGIN = "no-plugin"
_REFUSED = "refused"

_NEVER_BETTER = (
    BufferFullError,
    CapabilityError,
    ChunkTooLargeError,
    ConfigurationError,
    CorruptRecordError,
    CursorError,
    DriverError,
    FencedError,
    NotAwaitedError,
    QuotaError,
    ReplayError,
    SealedError,
    SerializationError,
    TrimmedError,
)
"""Errors that the next attempt would meet again, unless they say that they are retryable: a buffer
that was full for a moment, a codec whose key service was unreachable. All others (outages,
credentials) can be repaired from outside, so the activity's retry policy decides about them."""


def failure_type(error: type[BaseException]) -> str:
    """Return the type of the Temporal failure for an error: the name of its class."""
    return error.__name__


def is_failure_of(failure: BaseException, *errors: type[Exception]) -> bool:
    """Whether a failure is the Temporal failure for one of these errors."""
    types = [failure_type(each) for each in errors]
    return isinstance(failure, ApplicationError) and failure.type in types


def shown_to_readers(failure: BaseException) -> tuple[str, str]:
    """Return the type and the message that the seal of a stream states for a failure."""
    name = failure_type(type(failure))
    if isinstance(failure, ApplicationError):  # whose str() begins with the type
        return error_text(failure.type or name), error_text(failure.message)
    return name, error_text(failure)


def final_failure(
    error: type[Exception], message: str, *details: dict[str, object]
) -> ApplicationError:
    """Return a Temporal failure of an error's type that is not retried."""
    return ApplicationError(message, *details, type=failure_type(error), non_retryable=True)


def application_error(error: StreamqError, *, hint: str = "") -> ApplicationError:
    """Return the Temporal failure for a streamq error; its type is the error's class name."""
    details: dict[str, object] = {
        "code": error.code,
        "backend": error.backend,
        "stream": error.stream,
    }
    if isinstance(error, FencedError):
        details[_REFUSED] = True
    return ApplicationError(
        f"{error_text(error)}{hint}",
        details,
        type=failure_type(type(error)),
        non_retryable=isinstance(error, _NEVER_BETTER) and not error.retryable,
    )


def no_plugin(hint: str = "") -> ApplicationError:
    """Return the failure of an activity that found no plugin on its worker."""
    return final_failure(
        ConfigurationError,
        "this worker has no stream queue: add StreamqPlugin to the worker or to its client "
        f"(Worker(..., plugins=[StreamqPlugin()])){hint}",
        {"code": _NO_PLUGIN},
    )


def refusal(
    error: type[StreamqError], message: str, *, is_retried: bool = False
) -> ApplicationError:
    """Return the failure of a producer whose stream belongs to another call of its workflow."""
    return ApplicationError(
        message,
        {"code": error.code, _REFUSED: True},
        type=failure_type(error),
        non_retryable=not is_retried,
    )


def is_without_plugin(failure: BaseException) -> bool:
    """Whether an activity, or a child workflow that ran one, failed because it has no plugin."""
    return any(each.get("code") == _NO_PLUGIN for each in _details(failure))


def is_refused(failure: BaseException) -> bool:
    """Whether a producer failed because its stream belongs to another call of its workflow.

    Only by the mark that workers put into the failure: the histories of workers that put none
    replay as they were.
    """
    return any(each.get(_REFUSED) is True for each in _details(failure))


def _details(failure: BaseException) -> list[dict[str, object]]:
    cause: BaseException | None = failure
    while isinstance(cause, ActivityError | ChildWorkflowError):
        cause = cause.cause
    details = cause.details if isinstance(cause, ApplicationError) else ()
    return [each for each in details if isinstance(each, dict)]


def is_non_retryable(error: BaseException) -> bool:
    """Whether a failure itself rules out another attempt, whatever the retry policy is."""
    if isinstance(error, ApplicationError | ServerError):
        return error.non_retryable
    return isinstance(error, CancelledError | TerminatedError)


def is_retryable(error: BaseException, info: activity.Info) -> bool:
    """Whether the failure itself allows another attempt, regardless of how many there were."""
    if is_non_retryable(error):
        return False
    name = error.type or "" if isinstance(error, ApplicationError) else type(error).__name__
    policy = info.retry_policy
    return not (policy and name in (policy.non_retryable_error_types or ()))


def is_final(error: BaseException, info: activity.Info, elapsed: timedelta) -> bool:
    """Whether the server will not schedule another attempt after this failure.

    The rules are those by which the server retries activities. Without a known retry policy another
    attempt is assumed. That is the safe choice: readers watch the workflow and notice that an open
    stream will not continue, but a sealed stream cannot continue at all.

    Args:
        error: The failure of the activity.
        info: The attempt.
        elapsed: Time since ``info.started_time``. The worker measures it, so that the worker's and
            the server's clocks are never compared.
    """
    details = activity.cancellation_details()
    if details is not None and details.cancel_requested:
        return True
    if not is_retryable(error, info):
        return True
    policy = info.retry_policy
    if policy is None:
        return False
    if policy.maximum_attempts and info.attempt >= policy.maximum_attempts:
        return True
    if info.schedule_to_close_timeout:
        pause = getattr(error, "next_retry_delay", None) or _pause(info)
        next_start = info.started_time + elapsed + pause
        return next_start >= info.scheduled_time + info.schedule_to_close_timeout
    return False


def _pause(info: activity.Info) -> timedelta:
    policy = info.retry_policy
    assert policy is not None
    longest = policy.maximum_interval or policy.initial_interval * 100
    # The exponent is bounded, since the power would overflow after a thousand attempts.
    factor = policy.backoff_coefficient ** min(info.attempt - 1, 64)
    seconds = min(policy.initial_interval.total_seconds() * factor, longest.total_seconds())
    return timedelta(seconds=seconds)
