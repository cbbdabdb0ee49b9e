"""Serves an agent over gRPC.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from a2a.types import a2a_pb2_grpc

from ._handler import TaskHandler

if TYPE_CHECKING:
    import grpc
    from a2a.server.request_handlers.grpc_handler import GrpcServerCallContextBuilder


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
    from a2a.server.request_handlers.grpc_handler import GrpcHandler

    service = GrpcHandler(handler, context_builder)
    add: Any = a2a_pb2_grpc.add_A2AServiceServicer_to_server  # generated, without types
    add(service, server)
