"""Converts errors to what clients may see: a status, a code, a message without internals.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from starlette.responses import JSONResponse

from streamq._errors import (
    AccessDeniedError,
    BackendUnavailableError,
    CapabilityError,
    ClosedError,
    CursorError,
    IdleTimeoutError,
    QuotaError,
    StorageFullError,
    StreamNotFoundError,
    StreamqError,
    ThrottledError,
    TrimmedError,
)
from streamq.access import InvalidTokenError, IssuerUnavailableError

from ._clients import ClientLimitError, GatewayLimitError
from ._revocations import RevocationImpossibleError, RevocationsUnknownError
from ._stopping import NotStoppableError, StopUnavailableError, TemporalUnavailableError

SAFE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers by which a browser shows an answer to nothing but the code that asked for it."""

HEADERS = {"Cache-Control": "no-store", **SAFE_HEADERS}
"""Headers of every answer that is JSON."""


class BadRequestError(StreamqError):
    """A request has a parameter that cannot be used."""

    code = "bad_request"


class TooLargeError(StreamqError):
    """What was asked for is larger than one answer may be."""

    code = "answer_too_large"


class MissingTokenError(StreamqError):
    """A request brings no token, and may do nothing without one."""

    code = "token_required"


class InsufficientScopeError(StreamqError):
    """A token permits something with a stream, and not what was asked for."""

    code = "insufficient_scope"


class StreamsLimitError(StreamqError):
    """A connection has as many streams as it can have."""

    code = "streams_limit"


class TicketsOffError(StreamqError):
    """This gateway gives no tickets, since no setting says so."""

    code = "tickets_off"


class AuthorizeFailedError(StreamqError):
    """The application's own code did not say what a request may do."""

    code = "authorize_failed"


class AuthorizeTimeoutError(StreamqError):
    """The application's own code did not say in time what a request may do."""

    code = "authorize_timeout"
    retryable = True


class SessionsOffError(StreamqError):
    """This gateway takes no tokens, so it has no sessions."""

    code = "sessions_off"


# Their messages concern the request or the stream. All other messages may contain internals (hosts,
# files); they are logged, and replaced for the client.
_PUBLIC: dict[type[StreamqError], int] = {
    BadRequestError: 400,
    TooLargeError: 413,
    StreamsLimitError: 400,
    StreamNotFoundError: 404,
    CursorError: 409,
    TrimmedError: 410,
    IdleTimeoutError: 504,
    ClientLimitError: 429,
    GatewayLimitError: 503,
    QuotaError: 429,
    MissingTokenError: 401,
    InvalidTokenError: 401,
    InsufficientScopeError: 403,
    IssuerUnavailableError: 503,
    RevocationsUnknownError: 503,
    RevocationImpossibleError: 501,
    TicketsOffError: 501,
    SessionsOffError: 501,
    AuthorizeTimeoutError: 503,
    NotStoppableError: 409,
    StopUnavailableError: 501,
    TemporalUnavailableError: 503,
}

_REPLACED: dict[type[StreamqError], tuple[int, str]] = {
    BackendUnavailableError: (503, "the backend cannot be reached at the moment; try again"),
    ThrottledError: (503, "the backend takes no more requests at the moment; try again"),
    StorageFullError: (503, "the backend has no room at the moment; try again"),
    ClosedError: (503, "the gateway is shutting down; try again"),
    AccessDeniedError: (502, "the backend refuses the gateway's credentials"),
    AuthorizeFailedError: (500, "the application cannot say what this request may do; see its log"),
    CapabilityError: (501, "the backend cannot do what this request needs"),
}

_CHALLENGED = (401, 403)
_NOT_IN_QUOTES = {ord('"'): "'", ord("\\"): "/"} | dict.fromkeys((*range(32), 127), " ")

# Retryable for a client that reconnects by itself, though not for a program that reads once.
_RETRYABLE = (ClosedError, IdleTimeoutError)


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as reported to a client.

    Attributes:
        status: HTTP status.
        code: Machine-readable name, as in :class:`streamq.StreamqError`.
        message: What happened, without internals of the gateway.
        retryable: Whether the same request may succeed later.
    """

    status: int
    code: str
    message: str
    retryable: bool

    @classmethod
    def of(cls, exc: StreamqError) -> Problem:
        """Return the public form of ``exc``; the caller logs the rest."""
        retryable = exc.retryable or isinstance(exc, _RETRYABLE)
        if type(exc) in _PUBLIC:
            return cls(_PUBLIC[type(exc)], exc.code, exc.message, retryable)
        status, message = _REPLACED.get(
            type(exc), (500, "the gateway cannot deliver this stream; its log says why")
        )
        return cls(status, exc.code, message, retryable)

    @property
    def is_challenge(self) -> bool:
        """Whether the answer is about tokens."""
        return self.status in _CHALLENGED

    def response(self, retry_seconds: float, metadata_url: str | None = None) -> JSONResponse:
        """Return the problem as JSON.

        Args:
            retry_seconds: For ``Retry-After``, if it is retryable.
            metadata_url: For ``WWW-Authenticate``, if it is about tokens: where the gateway says
                which issuers it accepts.
        """
        headers = dict(HEADERS)
        if self.retryable:
            headers["Retry-After"] = str(math.ceil(retry_seconds))
        if metadata_url is not None and self.is_challenge:
            headers["WWW-Authenticate"] = self.challenge(metadata_url)
        return JSONResponse(
            {"error": self.code, "message": self.message}, self.status, headers=headers
        )

    def challenge(self, metadata_url: str) -> str:
        """Return the value of ``WWW-Authenticate``, by RFC 6750 and RFC 9728."""
        parts = ['realm="streamq"']
        if self.code != MissingTokenError.code:
            parts += [f'error="{self.code}"', f'error_description="{_quotable(self.message)}"']
        parts.append(f'resource_metadata="{_quotable(metadata_url)}"')
        return "Bearer " + ", ".join(parts)


def _quotable(text: str) -> str:
    """Return a text that fits between the quotes of a header."""
    return text.encode("ascii", "replace").decode().translate(_NOT_IN_QUOTES)
