"""Describes one call of a streaming activity by a workflow, and checks that it can be made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy

from streamq._errors import ConfigurationError
from streamq._events import STREAM_NAME_BYTES
from streamq.temporal._names import LONGEST_NAME_BYTES
from streamq.temporal.activities._watch import DETACHED_BYTES

from ._chain import workflow_stream_name

_LONG_NAMES_PATCH = "streamq-long-names"


@dataclass(frozen=True, slots=True)
class ProducerCall:
    """One call of a streaming activity, with its options."""

    activity: Any
    name: str
    args: list[Any]
    topic: str
    result_type: type | None
    task_queue: str | None
    schedule_to_close_timeout: timedelta | None
    schedule_to_start_timeout: timedelta | None
    start_to_close_timeout: timedelta | None
    heartbeat_timeout: timedelta | None
    retry_policy: RetryPolicy | None

    @property
    def stream(self) -> str:
        """Name of the stream."""
        return workflow_stream_name(self.topic)


def check_detached(call: ProducerCall) -> None:
    """Check that a call fits into the command that starts ``streamq.Produce``.

    The server would refuse a larger command, and the workflow task would be retried for ever.

    Raises:
        ConfigurationError: The stream's name is too long, or the arguments are too large.
    """
    size = len(call.stream.encode())
    # Histories in which a name above 1,000 bytes was refused replay.
    if size > STREAM_NAME_BYTES or (
        size > LONGEST_NAME_BYTES and not workflow.patched(_LONG_NAMES_PATCH)
    ):
        raise ConfigurationError(
            f"the stream's name has {size} bytes, more than {STREAM_NAME_BYTES}; use a shorter "
            "topic"
        )
    payloads = workflow.payload_converter().to_payloads(call.args)
    size = sum(each.ByteSize() for each in payloads)
    if size > DETACHED_BYTES:
        raise ConfigurationError(
            f"the activity's args have {size} bytes, more than streamq.Produce is started with "
            f"({DETACHED_BYTES}); pass a reference to them, or detached = false"
        )
