"""Stands in for a Temporal server, for an activity that runs without one.

Design: docs/design/testing-applications.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NoReturn

from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceResponse,
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
)
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.service import ConnectConfig, RPCError, RPCStatusCode, ServiceClient

_ADDRESS = "there.is.no.server:7233"


class NoServer(ServiceClient):
    """Answers what streamq asks about the recorded workflow, and refuses everything else.

    Attributes:
        has_ended: Whether the workflow has ended.
    """

    def __init__(self) -> None:
        super().__init__(ConnectConfig(target_host=_ADDRESS, lazy=True))
        self.has_ended = False

    @property
    def worker_service_client(self) -> NoReturn:
        raise RuntimeError("record() runs an activity without a Temporal server; pass client=")

    def update_rpc_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        """Do nothing."""

    def update_api_key(self, api_key: str | None) -> None:
        """Do nothing."""

    async def _rpc_call(
        self,
        rpc: str,
        req: Any,
        resp_type: type[Any],
        *,
        service: str,
        retry: bool,
        metadata: Mapping[str, str | bytes],
        timeout: timedelta | None,  # noqa: ASYNC109 - the SDK's signature
    ) -> Any:
        if isinstance(req, DescribeWorkflowExecutionRequest):
            return self._describe(req)
        if resp_type is DescribeNamespaceResponse:
            return DescribeNamespaceResponse()  # which states no limits: the default holds
        raise RPCError(
            f"record() runs an activity without a Temporal server, which has called {rpc}; pass "
            "client= of a test environment to record()",
            RPCStatusCode.UNAVAILABLE,
            b"",
        )

    def _describe(self, request: DescribeWorkflowExecutionRequest) -> Any:
        answer = DescribeWorkflowExecutionResponse()
        found = answer.workflow_execution_info
        found.execution.CopyFrom(request.execution)
        found.history_length = 10
        status = WorkflowExecutionStatus
        found.status = (
            status.WORKFLOW_EXECUTION_STATUS_TERMINATED
            if self.has_ended
            else status.WORKFLOW_EXECUTION_STATUS_RUNNING
        )
        return answer


def client_without_server(
    server: NoServer, converter: DataConverter, namespace: str = "default"
) -> Client:
    """Return a client that connects to nothing."""
    return Client(server, namespace=namespace, data_converter=converter)
