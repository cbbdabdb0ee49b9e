"""Converts errors of Temporal and refusals of host workflows to errors of streamq.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

from temporalio.api.errordetails.v1 import (
    MultiOperationExecutionFailure,
    NamespaceNotActiveFailure,
    NamespaceNotFoundFailure,
)
from temporalio.api.failure.v1 import Failure
from temporalio.service import RPCError, RPCStatusCode

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    FencedError,
    StorageFullError,
    StreamId,
    StreamqError,
    not_found_error,
)

from ._protocol import FENCED, FULL

BACKEND = "workflow_streams"
"""The driver's name, for messages."""

_TRANSIENT = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.FAILED_PRECONDITION,  # a query while no worker has polled for some time
    RPCStatusCode.INTERNAL,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.ABORTED,
    RPCStatusCode.CANCELLED,
}
_DENIED = {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED}
_IGNORED = {RPCStatusCode.OK.value, RPCStatusCode.ABORTED.value}


_OTHER_SERVER = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.UNIMPLEMENTED,  # something else than Temporal answers behind the name
    *_DENIED,
}


class HostBusyError(BackendUnavailableError):
    """Temporal takes no more long polls of one host, or no more calls, for now."""


class NamespaceMissingError(BackendUnavailableError):
    """The server that answered has no such namespace; another one behind the name may have it."""


def to_streamq(error: RPCError, address: str, stream: str | None = None) -> StreamqError:
    """Return streamq's error for a failed call."""
    status, message = _cause(error)
    where = f"Temporal at {address}"
    if any(each.Is(NamespaceNotFoundFailure.DESCRIPTOR) for each in error.grpc_status.details):
        return NamespaceMissingError(
            f"{where} has no such namespace: {message}; check STREAMQ_WORKFLOW_STREAMS_NAMESPACE",
            backend=BACKEND,
            stream=stream,
        )
    if status is RPCStatusCode.NOT_FOUND:
        return not_found_error(BACKEND, stream)
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


def about_server(error: RPCError) -> bool:
    """Whether an answer speaks of the server that gave it, so that another one may answer else.

    It refuses our credentials, cannot serve, or serves the namespace no more: it is the passive
    cluster of a namespace that has failed over, or belongs to another installation.
    """
    status, _ = _cause(error)
    if status in _OTHER_SERVER:
        return True
    for detail in error.grpc_status.details:
        if detail.Is(NamespaceNotActiveFailure.DESCRIPTOR):
            return True
        if detail.Is(NamespaceNotFoundFailure.DESCRIPTOR):
            return True
    return False


def is_silence(error: RPCError) -> bool:
    """Whether the deadline passed, which the client itself notices as well."""
    return _cause(error)[0] in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)


def connecting_anew(address: str, stream: str | None) -> BackendUnavailableError:
    """Return the error for a call that ended because its connection was replaced."""
    return BackendUnavailableError(
        f"the connection to Temporal at {address} was made anew", backend=BACKEND, stream=stream
    )


def no_answer(address: str, seconds: float, stream: str | None) -> BackendUnavailableError:
    """Return the error for a call without an answer in time."""
    return BackendUnavailableError(
        f"Temporal at {address} did not answer within {seconds:.3g} s",
        backend=BACKEND,
        stream=stream,
    )


def refused_append(failure: Failure, stream: StreamId) -> StreamqError:
    """Return streamq's error for an append that a host has refused."""
    message, kind = failure.message, failure.application_failure_info.type
    if kind == FENCED:
        return FencedError(message, backend=BACKEND, stream=str(stream))
    if kind == FULL:
        return StorageFullError(
            f"{message}; delete the stream, send less, or take another backend",
            backend=BACKEND,
            stream=str(stream),
        )
    return BackendError(
        f"the host workflow refused the append: {message}", backend=BACKEND, stream=str(stream)
    )


def _cause(error: RPCError) -> tuple[RPCStatusCode, str]:
    """Return status and message; for an update-with-start those of the operation that failed."""
    for detail in error.grpc_status.details:
        failure = MultiOperationExecutionFailure()
        if detail.Unpack(failure):
            for part in failure.statuses:
                if part.code not in _IGNORED:
                    return RPCStatusCode(part.code), part.message
    return error.status, error.message
