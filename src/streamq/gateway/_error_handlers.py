"""Answers requests whose handler raised an error.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamq._errors import StreamqError

from ._authority import metadata_url
from ._error_responses import HEADERS, AuthorizeFailedError, Problem
from ._log_limit import gateway_logger
from ._loops import gateway_of

_logger = gateway_logger()

_CODES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    429: "too_many_requests",
}


async def _on_streamq_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, StreamqError)
    return answer_error(request, exc, challenges=True)


def answer_error(request: Request, exc: StreamqError, *, challenges: bool) -> Response:
    """Return the answer for an error, and log what its client may not see.

    Args:
        request: The request.
        exc: The error.
        challenges: Whether the answer says how to bring a token.
    """
    problem = Problem.of(exc)
    if problem.status >= 500:
        _logger.warning("%s: %s", exc.code, exc, exc_info=_cause(exc))
    metadata = metadata_url(request) if challenges and problem.is_challenge else None
    return problem.response(gateway_of(request).options.retry_seconds, metadata)


def _cause(exc: StreamqError) -> BaseException | None:
    """Return what the log shows with its traceback: an error of the application's own code."""
    return exc.__cause__ if isinstance(exc, AuthorizeFailedError) else None


async def _on_http_exception(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    code = _CODES.get(exc.status_code, "http")
    return JSONResponse(
        {"error": code, "message": exc.detail},
        exc.status_code,
        headers={**HEADERS, **(exc.headers or {})},
    )


async def _on_exception(_request: Request, _exc: Exception) -> Response:
    return JSONResponse(
        {"error": "internal", "message": "the gateway failed; see its log"}, 500, headers=HEADERS
    )


ERROR_HANDLERS = {
    StreamqError: _on_streamq_error,
    HTTPException: _on_http_exception,
    Exception: _on_exception,
}
"""The function that answers for each class of error."""
