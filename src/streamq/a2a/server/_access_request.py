"""Finds the request of a call, whatever its transport is, and notes why it was refused.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from a2a.server.context import ServerCallContext
from a2a.server.routes import ServerCallContextBuilder
from a2a.server.routes.common import DefaultServerCallContextBuilder
from a2a.utils.errors import A2AError
from starlette.requests import Request

_REQUEST, _REFUSAL = "streamq.a2a.request", "streamq.a2a.refusal"
_TRUSTED = "streamq.a2a.trusted"
_GRPC_PATH = "/lf.a2a.v1.A2AService"


def request_of(context: ServerCallContext) -> Request:
    """Return the request of a call; with gRPC, one that has its metadata as headers.

    A context that a builder of somebody else has made has at least the headers, or nothing.
    """
    found: Request | None = context.state.get(_REQUEST)
    if found is None:
        if (grpc_context := context.state.get("grpc_context")) is not None:
            found = grpc_request(grpc_context.invocation_metadata() or ())
        else:
            headers: dict[str, str] = context.state.get("headers", {})
            found = _request("/", headers.items())
        context.state[_REQUEST] = found
    return found


def grpc_request(metadata: Iterable[tuple[str, Any]]) -> Request:
    """Return what an application sees of a call by gRPC: a POST with its metadata as headers."""
    return _request(_GRPC_PATH, ((name, str(value)) for name, value in metadata))


def _request(path: str, headers: Iterable[tuple[str, str]]) -> Request:
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [
                (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
                for name, value in headers
            ],
        }
    )


def noting_refusals(request: Request) -> list[A2AError]:
    """Return a list that gets the error by which the request is refused."""
    found: list[A2AError] = request.scope.setdefault(_REFUSAL, [])
    return found


def note_refusal(request: Request, error: A2AError) -> None:
    """Note why a request is refused, for headers and status of the answer."""
    noting_refusals(request).append(error)


def trusted(context: ServerCallContext) -> ServerCallContext:
    """Return a context for calls of this process by itself, for a caller that was let in before.

    No token is looked at, and none ends what is called: tasks belong to the context's user, and to
    its tenant.
    """
    return context.model_copy(update={"state": {_TRUSTED: True}})


def is_trusted(context: ServerCallContext) -> bool:
    """Whether this process itself calls."""
    return bool(context.state.get(_TRUSTED))


class WithRequest(ServerCallContextBuilder):
    """Adds the request to the context of a call.

    Args:
        inner: Finds the caller; by default a middleware of Starlette did.
    """

    def __init__(self, inner: ServerCallContextBuilder | None) -> None:
        self._inner = inner or DefaultServerCallContextBuilder()

    def build(self, request: Request) -> ServerCallContext:
        """Return the context of a request."""
        context = self._inner.build(request)
        context.state[_REQUEST] = request
        return context
