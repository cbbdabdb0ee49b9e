"""Defines the errors of callers that may not do something, in the forms of all transports.

The SDK finds an error's statuses and codes by its class, in tables, which these are added to.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import grpc
from a2a.server.jsonrpc_models import JSONRPCError
from a2a.server.request_handlers.response_helpers import EXCEPTION_MAP
from a2a.utils.errors import (
    A2A_ERROR_MAPPING,
    A2A_ERROR_REASONS,
    JSON_RPC_ERROR_CODE_MAP,
    A2AError,
    ErrorMapping,
    InternalError,
    TaskNotFoundError,
)
from starlette.exceptions import HTTPException

from streamq._errors import StreamqError
from streamq.gateway._error_responses import MissingTokenError, Problem

RETRY_SECONDS = 1
"""When to try again what cannot be decided at the moment."""


class AccessError(A2AError):
    """A caller may not do something, or it cannot be decided now.

    Args:
        message: What it may not do, for the caller.
        code: The gateway's name of the reason.
    """

    http_status: int
    grpc_status: grpc.StatusCode
    reason: str
    json_rpc_code: int  # outside of what JSON-RPC and A2A reserve

    def __init__(self, message: str, code: str) -> None:
        self.code, self.data = code, {"code": code}
        super().__init__(message, self.data)

    def challenge(self, metadata_url: str) -> str | None:
        """Return the value of ``WWW-Authenticate``, if it is about tokens.

        Args:
            metadata_url: Where the issuers are listed whose tokens are accepted.
        """
        problem = Problem(self.http_status, self.code, self.message, False)
        return problem.challenge(metadata_url) if problem.is_challenge else None


class UnauthenticatedError(AccessError):
    """There is no token, or it is refused, or it has ended."""

    http_status, grpc_status = 401, grpc.StatusCode.UNAUTHENTICATED
    reason, json_rpc_code = "UNAUTHENTICATED", -31_401


class PermissionDeniedError(AccessError):
    """The caller is known, and may not do this."""

    http_status, grpc_status = 403, grpc.StatusCode.PERMISSION_DENIED
    reason, json_rpc_code = "PERMISSION_DENIED", -31_403


class AccessUnknownError(AccessError):
    """It cannot be decided at the moment."""

    http_status, grpc_status = 503, grpc.StatusCode.UNAVAILABLE
    reason, json_rpc_code = "ACCESS_UNKNOWN", -31_503


ACCESS_ERRORS: dict[int, type[AccessError]] = {
    kind.http_status: kind
    for kind in (UnauthenticatedError, PermissionDeniedError, AccessUnknownError)
}
"""The errors, by their status of HTTP."""

for _kind in ACCESS_ERRORS.values():
    JSON_RPC_ERROR_CODE_MAP[_kind] = _kind.json_rpc_code
    EXCEPTION_MAP[_kind] = JSONRPCError
    A2A_ERROR_REASONS[_kind] = _kind.reason
    A2A_ERROR_MAPPING[_kind] = ErrorMapping(_kind.http_status, _kind.grpc_status.name, _kind.reason)


def access_error(exc: StreamqError | HTTPException) -> A2AError:
    """Return the error that a caller gets for one of the gateway's, or of the application's own."""
    if isinstance(exc, HTTPException):
        return _of_the_application(exc)
    problem = Problem.of(exc)
    kind = ACCESS_ERRORS.get(problem.status)
    if kind is None:
        return InternalError(problem.message)
    return kind(problem.message, problem.code)


def _of_the_application(exc: HTTPException) -> A2AError:
    if exc.status_code == 404:
        return TaskNotFoundError(exc.detail)
    status = 503 if exc.status_code >= 500 else exc.status_code
    kind = ACCESS_ERRORS.get(status, PermissionDeniedError)
    code = MissingTokenError.code if status == 401 else "refused"
    return kind(exc.detail, code)
