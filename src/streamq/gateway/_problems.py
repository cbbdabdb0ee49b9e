"""What a failure looks like from outside: a status, a code and a message without internals."""

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
    StorageFullError,
    StreamNotFoundError,
    StreamqError,
    ThrottledError,
)


class BadRequestError(StreamqError):
    """A request has a parameter that cannot be used."""

    code = "bad_request"


# Messages of these speak about the caller's request or the stream; all others may speak about our
# side (hosts, files) and are only logged.
_TOLD: dict[type[StreamqError], int] = {
    BadRequestError: 400,
    StreamNotFoundError: 404,
    CursorError: 409,
    IdleTimeoutError: 504,
}

_OUTSIDE: dict[type[StreamqError], tuple[int, str]] = {
    BackendUnavailableError: (503, "the backend cannot be reached at the moment; try again"),
    ThrottledError: (503, "the backend takes no more requests at the moment; try again"),
    StorageFullError: (503, "the backend has no room at the moment; try again"),
    ClosedError: (503, "the gateway is shutting down; try again"),
    AccessDeniedError: (502, "the backend refuses the gateway's credentials"),
    CapabilityError: (501, "the backend cannot do what this request needs"),
}

# Not for a program that reads once, but for a client that reconnects by itself.
_RETRYABLE = (ClosedError, IdleTimeoutError)


@dataclass(frozen=True, slots=True)
class Problem:
    """A failure as told to a client.

    Attributes:
        status: HTTP status.
        code: Machine-readable name, as in :class:`streamq.StreamqError`.
        message: What happened, without anything about the gateway's surroundings.
        retryable: Whether the same request may succeed later.
    """

    status: int
    code: str
    message: str
    retryable: bool

    @classmethod
    def of(cls, exc: StreamqError) -> Problem:
        """Return what to tell a client about ``exc``; the caller logs the rest."""
        retryable = exc.retryable or isinstance(exc, _RETRYABLE)
        if type(exc) in _TOLD:
            return cls(_TOLD[type(exc)], exc.code, exc.message, retryable)
        status, message = _OUTSIDE.get(
            type(exc), (500, "the gateway cannot deliver this stream; its log says why")
        )
        return cls(status, exc.code, message, retryable)

    def response(self, retry_seconds: float) -> JSONResponse:
        """Return the problem as JSON, with ``Retry-After`` if trying again makes sense."""
        headers = {"Cache-Control": "no-store"}
        if self.retryable:
            headers["Retry-After"] = str(math.ceil(retry_seconds))
        return JSONResponse(
            {"error": self.code, "message": self.message}, self.status, headers=headers
        )
