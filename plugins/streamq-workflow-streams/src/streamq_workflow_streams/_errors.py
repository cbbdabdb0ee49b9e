"""From what Temporal answers to what streamq calls it: the one place."""

from __future__ import annotations

import re

from temporalio.api.errordetails.v1 import MultiOperationExecutionFailure
from temporalio.service import RPCError, RPCStatusCode

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ClosedError,
    StreamNotFoundError,
    StreamqError,
)

BACKEND = "workflow_streams"

_TRANSIENT = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.FAILED_PRECONDITION,  # a query, and no worker has been seen for a while
    RPCStatusCode.INTERNAL,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.ABORTED,
    RPCStatusCode.CANCELLED,
}
_DENIED = {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED}
_REASON = re.compile(r'(?:message|error): "([^"]+)"')  # within what the SDK's core says
_IGNORED = {RPCStatusCode.OK.value, RPCStatusCode.ABORTED.value}


class HostBusyError(BackendUnavailableError):
    """Temporal takes no more of something now: long polls of one host, or calls."""


def to_streamq(error: RPCError, address: str, stream: str | None = None) -> StreamqError:
    """Return our error for a call that failed."""
    status, message = _cause(error)
    where = f"Temporal at {address}"
    if status is RPCStatusCode.NOT_FOUND:
        return StreamNotFoundError(
            f"there is no stream {stream} (never written, deleted, or expired)",
            backend=BACKEND,
            stream=stream,
        )
    if status in _DENIED:
        return AccessDeniedError(
            f"{where} refuses us: {message}; check STREAMQ_WORKFLOW_STREAMS_API_KEY, the "
            "certificates and the namespace",
            backend=BACKEND,
            stream=stream,
        )
    if status is RPCStatusCode.RESOURCE_EXHAUSTED:
        return HostBusyError(f"{where} is busy: {message}", backend=BACKEND, stream=stream)
    kind = BackendUnavailableError if status in _TRANSIENT else BackendError
    return kind(f"{where} answered {status.name}: {message}", backend=BACKEND, stream=stream)


def not_connected(error: RuntimeError, address: str) -> StreamqError:
    """Return our error for a connection that did not come about.

    The SDK has one error for all that goes wrong there; its text tells which it is.
    """
    text = str(error)
    if "PermissionDenied" in text or "Unauthenticated" in text:
        return AccessDeniedError(
            f"Temporal at {address} refuses us; check STREAMQ_WORKFLOW_STREAMS_API_KEY and the "
            "certificates",
            backend=BACKEND,
        )
    reason = [*_REASON.findall(text), text][0]
    return BackendUnavailableError(
        f"cannot reach Temporal at {address} ({reason}); is it running? set "
        "STREAMQ_WORKFLOW_STREAMS_ADDRESS",
        backend=BACKEND,
    )


def closed_error() -> ClosedError:
    """Return what every call of a closed queue raises."""
    return ClosedError("this queue on Temporal has been closed", backend=BACKEND)


def _cause(error: RPCError) -> tuple[RPCStatusCode, str]:
    """An update with start fails as a whole; which part it was is in the details."""
    for detail in error.grpc_status.details:
        failure = MultiOperationExecutionFailure()
        if detail.Unpack(failure):
            for part in failure.statuses:
                if part.code not in _IGNORED:
                    return RPCStatusCode(part.code), part.message
    return error.status, error.message
