"""Translates failures of calls to Temporal, and bounds them in time.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    StreamNotFoundError,
    StreamqError,
)
from streamq.driver_parts._temporal_target import failed_connection

RPC_TIMEOUT = timedelta(seconds=5)
"""Longest duration of a short question."""

_TRANSIENT = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.INTERNAL,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.ABORTED,
    RPCStatusCode.CANCELLED,
}
_DENIED = {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED}


def is_transient(error: RPCError) -> bool:
    """Whether the same call may succeed later."""
    return error.status in _TRANSIENT


def rpc_error(error: RPCError, doing: str) -> StreamqError:
    """Return the streamq error for a failed call to Temporal."""
    message = f"cannot {doing}: {error.message} ({error.status.name})"
    if error.status is RPCStatusCode.NOT_FOUND:
        return StreamNotFoundError(message + "; check the workflow id and the namespace")
    if error.status in _DENIED:
        return AccessDeniedError(message, backend="temporal")
    if error.status in _TRANSIENT:
        return BackendUnavailableError(message, backend="temporal")
    return BackendError(message, backend="temporal")


@contextmanager
def connecting() -> Iterator[None]:
    """Turn the bare ``RuntimeError`` of a lazy client that cannot connect into an ``RPCError``."""
    try:
        yield
    except RuntimeError as exc:
        is_denied, reason = failed_connection(exc, "STREAMQ_TEMPORAL_")
        status = RPCStatusCode.UNAUTHENTICATED if is_denied else RPCStatusCode.UNAVAILABLE
        raise RPCError(reason, status, b"") from exc
