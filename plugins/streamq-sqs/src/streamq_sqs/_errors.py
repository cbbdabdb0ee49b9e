"""Converts answers of SQS to errors of streamq.

Errors of the client and codes that all AWS services share are converted by ``streamq_aws``.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamq.driver import (
    BackendError,
    BackendUnavailableError,
    StreamId,
    StreamNotFoundError,
)
from streamq_aws import error_code

BACKEND = "sqs"
"""The driver's name, for messages."""

_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
_EXISTS = frozenset({"QueueAlreadyExists", "QueueNameExists"})
_STALE_ATTEMPT_ID = frozenset({"InvalidParameterValue", "InvalidParameterValueException"})


def is_missing_queue(error: BackendError) -> bool:
    """Whether SQS answered that the queue does not exist."""
    return _code(error) in _MISSING


def is_existing_queue(error: BackendError) -> bool:
    """Whether SQS refused to create a queue because one exists with other attributes or tags."""
    return _code(error) in _EXISTS


def is_stale_attempt_id(error: BackendError) -> bool:
    """Whether SQS refused a ``ReceiveRequestAttemptId`` because its messages have changed since."""
    return _code(error) in _STALE_ATTEMPT_ID


def check_batch(
    answer: Mapping[str, Any],
    verb: str,
    count: int,
    stream: StreamId,
    *,
    tolerate_sender_faults: bool,
) -> None:
    """Check that a batch request succeeded for every message.

    Args:
        answer: The answer of SQS.
        verb: What SQS was to do with each message, for the error's text.
        count: How many messages the request had.
        stream: Which stream, for the error.
        tolerate_sender_faults: Whether to ignore messages that SQS blames on the request.

    Raises:
        BackendError: SQS blames the request.
        BackendUnavailableError: SQS failed; the request may be repeated.
    """
    failed = answer.get("Failed") or ()
    if tolerate_sender_faults:
        failed = [each for each in failed if not each.get("SenderFault")]
    if not failed:
        return
    first = failed[0]
    kind = BackendError if first.get("SenderFault") else BackendUnavailableError
    raise kind(
        f"SQS did not {verb} {len(failed)} of {count} messages: {first.get('Code')}, "
        f"{first.get('Message', 'no message')}",
        backend=BACKEND,
        stream=str(stream),
    )


def not_found(stream: StreamId, queue_name: str) -> StreamNotFoundError:
    """Return the error for a stream that has no queue."""
    return StreamNotFoundError(
        f"there is no queue {queue_name} for stream {stream}", backend=BACKEND, stream=str(stream)
    )


def _code(error: BackendError) -> str:
    return "" if error.__cause__ is None else error_code(error.__cause__)
