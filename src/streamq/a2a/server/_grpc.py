"""Serves an agent over gRPC.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from typing import Any

import grpc
from a2a.extensions.common import HTTP_EXTENSION_HEADER
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.grpc_handler import (
    DefaultGrpcServerCallContextBuilder,
    GrpcHandler,
    GrpcServerCallContextBuilder,
)
from a2a.types import a2a_pb2_grpc
from a2a.utils.errors import A2AError, VersionNotSupportedError
from a2a.utils.grpc_status import status_to_grpc
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from ._access_errors import AccessError
from ._agent import Agent
from ._extensions import activated, requested
from ._handler import TaskHandler

_VERSION = "a2a-version"
_MAJOR = "1"


def add_to_grpc_server(
    server: grpc.aio.Server,
    handler: TaskHandler,
    context_builder: GrpcServerCallContextBuilder | None = None,
) -> None:
    """Add the service of A2A to a gRPC server.

    Args:
        server: The server; starting, stopping and TLS are the caller's.
        handler: Answers the requests; close it after the server.
        context_builder: Finds the caller; by default nobody is known.
    """
    builder = _OfVersion1(context_builder or DefaultGrpcServerCallContextBuilder(), handler.agent)
    add: Any = a2a_pb2_grpc.add_A2AServiceServicer_to_server  # generated, without types
    add(_Handler(handler, builder), server)


class _Handler(GrpcHandler):
    """Gives callers that may not do something the status for that."""

    async def abort_context(self, error: A2AError, context: grpc.aio.ServicerContext) -> None:
        """End a call with an error."""
        if not isinstance(error, AccessError):
            await super().abort_context(error, context)
            return
        info = ErrorInfo(
            reason=error.reason, domain="a2a-protocol.org", metadata={"code": error.code}
        )
        status = Status(code=error.grpc_status.value[0], message=error.message)
        status.details.add().Pack(info)
        answer = status_to_grpc(status)
        context.set_trailing_metadata(answer.trailing_metadata)
        await context.abort(answer.code, answer.details)


class _OfVersion1(GrpcServerCallContextBuilder):
    """Refuses requests of another version of the protocol, which the SDK checks for HTTP only.

    The service of gRPC is that of version 1, so that a request without a version is one of it.

    Args:
        inner: Finds the caller.
        agent: Declares extensions.
    """

    def __init__(self, inner: GrpcServerCallContextBuilder, agent: Agent) -> None:
        self._inner, self._agent = inner, agent

    def build(self, context: grpc.aio.ServicerContext) -> ServerCallContext:
        """Return the context of a request.

        Raises:
            VersionNotSupportedError: It names another version.
        """
        for name, value in context.invocation_metadata() or ():
            if name.lower() == _VERSION and str(value).partition(".")[0] != _MAJOR:
                raise VersionNotSupportedError(
                    f"A2A version {str(value)!r} is not supported; this agent speaks version 1.0"
                )
        found = self._inner.build(context)
        found.state.setdefault("grpc_context", context)
        if extensions := activated(self._agent, requested(found)):
            context.set_trailing_metadata(((HTTP_EXTENSION_HEADER.lower(), ",".join(extensions)),))
        return found
