"""Runs ``streamq.seal``: ends a stream, for a workflow, that its producer could not end.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from temporalio import activity

from streamq._errors import ConfigurationError, SealedError, StreamqError
from streamq._sweep import SWEEPER
from streamq.opening._open import open_writer, stream_id
from streamq.temporal._failure import application_error
from streamq.temporal._input import takes
from streamq.writing._policies import OnRetry

from ._context import activity_context
from ._epoch import attempt_epoch

SEAL_ACTIVITY = "streamq.seal"


@dataclass(frozen=True)
class SealRequest:
    """Which stream to end, and how; plain JSON for other SDKs.

    Attributes:
        stream: Name of the stream, as :func:`stream_name` returns it.
        state: ``ERROR`` or ``CANCELLED``.
        message: Message for readers.
        error_type: With ``ERROR``, the type of the failure for readers.
    """

    stream: str
    state: Literal["ERROR", "CANCELLED"] = "ERROR"
    message: str = ""
    error_type: str = ""


@activity.defn(name=SEAL_ACTIVITY)
@takes(SealRequest)
async def seal(request: SealRequest) -> bool:
    """End a stream after the last record that its producer stored, unless it has ended already.

    For workflows that continue, or end, after a streaming activity that could not seal its stream
    itself: its last attempt timed out with its worker, or it was cancelled between two attempts.
    It acts as the newest attempt, which fences an earlier one that may still run. Repeating it is
    harmless.

    Returns:
        Whether it ended the stream; ``False`` if the stream had ended already.

    Raises:
        ApplicationError: Its type is the name of the streamq error.
    """
    context = activity_context()
    try:
        if request.state not in ("ERROR", "CANCELLED"):
            raise ConfigurationError(f"state {request.state!r} is neither ERROR nor CANCELLED")
        stream = stream_id(request.stream, context.settings)
        async with open_writer(
            stream,
            queue=context.queue,
            settings=context.settings,
            epoch=attempt_epoch(activity.info()),
            on_retry=OnRetry.RESUME,  # events that readers have seen stay valid
            codec=context.codec(stream),
            producer=SWEEPER,  # so that a repeated call of the activity discards its chunks
        ) as writer:
            if request.state == "CANCELLED":
                await writer.cancel(request.message)
            else:
                await writer.fail(request.message, error_type=request.error_type)
    except SealedError:
        return False
    except StreamqError as exc:
        raise application_error(exc) from exc
    return True
