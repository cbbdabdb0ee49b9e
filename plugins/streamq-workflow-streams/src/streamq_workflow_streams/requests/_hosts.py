"""Sends requests about host workflows to Temporal."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import TypeVar

import temporalio.api.common.v1 as common
import temporalio.api.enums.v1 as enums
import temporalio.api.query.v1 as query
import temporalio.api.taskqueue.v1 as taskqueue
import temporalio.api.update.v1 as update
import temporalio.api.workflowservice.v1 as service
from temporalio.service import RPCError, WorkflowService

from streamq.driver import BackendUnavailableError, StreamId, StreamNotFoundError, StreamqError
from streamq_workflow_streams._errors import BACKEND, NamespaceMissingError
from streamq_workflow_streams._naming import HostNames, memo_of, stream_of
from streamq_workflow_streams._protocol import HOST_WORKFLOW, binary_payload
from streamq_workflow_streams._settings import WorkflowStreamsSettings

from ._connection import Rpc, TemporalConnection

T = TypeVar("T")

_PAGE = 500
_WORKER_CHECK_SECONDS = 1.0
_LONG_POLL_SECONDS = 30.0  # the server itself answers after about 20
_POLLER_SECONDS = 75.0  # a worker that has not polled for this long is gone

_COMPLETED = update.WaitPolicy(
    lifecycle_stage=enums.UpdateWorkflowExecutionLifecycleStage.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED
)


class HostRequests:
    """The requests about the hosts of one queue.

    Every method raises errors of streamq only, and ``StreamNotFoundError`` if the host of a stream
    does not run.

    Args:
        connection: The connection to Temporal.
        settings: The driver's settings.
    """

    def __init__(self, connection: TemporalConnection, settings: WorkflowStreamsSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._names = HostNames(settings.id_prefix)

    # -- the namespace -------------------------------------------------------------------------

    async def check_namespace(self) -> bool:
        """Whether the namespace exists."""
        request = service.DescribeNamespaceRequest(namespace=self._settings.namespace)
        try:
            await self._connection.call(
                WorkflowService.describe_namespace,
                request,
                seconds=self._settings.connect_timeout_seconds,
            )
        except (NamespaceMissingError, StreamNotFoundError):
            return False
        return True

    async def has_no_worker(self) -> bool:
        """Whether Temporal reports that no worker has polled for hosts lately. Never raises."""
        request = service.DescribeTaskQueueRequest(
            namespace=self._settings.namespace,
            task_queue=taskqueue.TaskQueue(name=self._settings.task_queue),
            task_queue_type=enums.TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        try:
            found = await self._connection.call(
                WorkflowService.describe_task_queue, request, seconds=_WORKER_CHECK_SECONDS
            )
        except StreamqError:
            return False
        since = time.time() - _POLLER_SECONDS
        return not any(each.last_access_time.seconds > since for each in found.pollers)

    async def server_version(self) -> str:
        """Return the version of the server."""
        request = service.GetSystemInfoRequest()
        found = await self._connection.call(WorkflowService.get_system_info, request)
        return found.server_version

    async def check_listing(self) -> None:
        """List at most one workflow, which raises if that is not permitted."""
        request = service.ListWorkflowExecutionsRequest(
            namespace=self._settings.namespace, page_size=1
        )
        await self._connection.call(WorkflowService.list_workflow_executions, request)

    async def list_streams(self, tenant: str) -> AsyncIterator[StreamId]:
        """Iterate over the streams of a tenant, as far as Temporal's visibility knows them."""
        request = service.ListWorkflowExecutionsRequest(
            namespace=self._settings.namespace,
            page_size=_PAGE,
            query=f"WorkflowType = '{HOST_WORKFLOW}' AND ExecutionStatus = 'Running' "
            f"AND WorkflowId STARTS_WITH '{self._names.tenant(tenant)}'",
        )
        while True:
            page = await self._connection.call(WorkflowService.list_workflow_executions, request)
            for each in page.executions:
                found = stream_of(each.memo, each.execution.workflow_id)
                if found is not None and found.tenant == tenant:
                    yield found
            if not page.next_page_token:
                return
            request.next_page_token = page.next_page_token

    # -- one host ------------------------------------------------------------------------------

    async def send_update(
        self, stream: StreamId, name: str, argument: common.Payload, *, starts: bool = False
    ) -> update.Outcome:
        """Send an update and wait for its outcome.

        Args:
            stream: The stream of the host.
            name: The name of the update.
            argument: Its argument.
            starts: Whether to start the host if it does not run.
        """
        request = self._update(stream, name, argument)
        if not starts:
            answer = await self._call(WorkflowService.update_workflow_execution, request, stream)
        else:
            operation = service.ExecuteMultiOperationRequest.Operation
            both = service.ExecuteMultiOperationRequest(
                namespace=self._settings.namespace,
                operations=[
                    operation(start_workflow=self._start(stream)),
                    operation(update_workflow=request),
                ],
            )
            found = await self._call(WorkflowService.execute_multi_operation, both, stream)
            answer = found.responses[1].update_workflow
        if not answer.HasField("outcome"):
            raise await self._unavailable("the host workflow took no update", stream)
        return answer.outcome

    async def long_poll(
        self, stream: StreamId, name: str, argument: common.Payload
    ) -> update.Outcome:
        """Send an update that may take any time, and wait for its outcome."""
        request = self._update(stream, name, argument)
        answer: (
            service.UpdateWorkflowExecutionResponse | service.PollWorkflowExecutionUpdateResponse
        )
        answer = await self._call(
            WorkflowService.update_workflow_execution,
            request,
            stream,
            _LONG_POLL_SECONDS,
            is_long_poll=True,
        )
        while not answer.HasField("outcome"):
            again = service.PollWorkflowExecutionUpdateRequest(
                namespace=self._settings.namespace,
                update_ref=update.UpdateRef(
                    workflow_execution=request.workflow_execution,
                    update_id=request.request.meta.update_id,
                ),
                identity=self._connection.identity,
                wait_policy=_COMPLETED,
            )
            answer = await self._call(
                WorkflowService.poll_workflow_execution_update,
                again,
                stream,
                _LONG_POLL_SECONDS,
                is_long_poll=True,
            )
        return answer.outcome

    async def query(self, stream: StreamId, name: str, argument: bytes, seconds: float) -> bytes:
        """Query the running host of a stream.

        Args:
            stream: The stream of the host.
            name: The name of the query.
            argument: Its argument.
            seconds: Longest time to wait for the answer.
        """
        request = service.QueryWorkflowRequest(
            namespace=self._settings.namespace,
            execution=self._execution(stream),
            query=query.WorkflowQuery(
                query_type=name, query_args=_payloads(binary_payload(argument))
            ),
            query_reject_condition=enums.QueryRejectCondition.QUERY_REJECT_CONDITION_NOT_OPEN,
        )
        answer = await self._call(WorkflowService.query_workflow, request, stream, seconds)
        if answer.HasField("query_rejected"):
            raise StreamNotFoundError(
                f"there is no stream {stream} any more (deleted, or expired)",
                backend=BACKEND,
                stream=str(stream),
            )
        data: bytes = answer.query_result.payloads[0].data
        return data

    async def terminate(self, stream: StreamId) -> None:
        """Terminate the host of a stream."""
        request = service.TerminateWorkflowExecutionRequest(
            namespace=self._settings.namespace,
            workflow_execution=self._execution(stream),
            reason="the stream was deleted",
            identity=self._connection.identity,
        )
        await self._call(WorkflowService.terminate_workflow_execution, request, stream)

    # -- inside --------------------------------------------------------------------------------

    async def _call(
        self,
        rpc: Rpc[T],
        request: object,
        stream: StreamId,
        seconds: float | None = None,
        *,
        is_long_poll: bool = False,
    ) -> T:
        try:
            return await self._connection.call(
                rpc, request, stream=stream, seconds=seconds, is_long_poll=is_long_poll
            )
        except BackendUnavailableError as exc:
            # Temporal answered that the host does not: perhaps no worker runs it.
            is_answer = type(exc) is BackendUnavailableError and isinstance(exc.__cause__, RPCError)
            if not is_answer:
                raise
            raise await self._unavailable(exc.message, stream) from exc.__cause__

    async def _unavailable(self, what: str, stream: StreamId) -> BackendUnavailableError:
        """Return the error for a host that does not answer, and check whether a worker runs it."""
        message = what
        if await self.has_no_worker():
            message = (
                f"no worker polls task queue {self._settings.task_queue!r} of namespace "
                f"{self._settings.namespace!r}, so that no host keeps the stream: run "
                f"`python -m streamq_workflow_streams` ({what})"
            )
        return BackendUnavailableError(message, backend=BACKEND, stream=str(stream))

    def _update(
        self, stream: StreamId, name: str, argument: common.Payload
    ) -> service.UpdateWorkflowExecutionRequest:
        return service.UpdateWorkflowExecutionRequest(
            namespace=self._settings.namespace,
            workflow_execution=self._execution(stream),
            wait_policy=_COMPLETED,
            request=update.Request(
                meta=update.Meta(update_id=uuid.uuid4().hex, identity=self._connection.identity),
                input=update.Input(name=name, args=_payloads(argument)),
            ),
        )

    def _start(self, stream: StreamId) -> service.StartWorkflowExecutionRequest:
        return service.StartWorkflowExecutionRequest(
            namespace=self._settings.namespace,
            workflow_id=self._names.workflow_id(stream),
            workflow_type=common.WorkflowType(name=HOST_WORKFLOW),
            task_queue=taskqueue.TaskQueue(name=self._settings.task_queue),
            input=_payloads(binary_payload(b"")),
            identity=self._connection.identity,
            request_id=uuid.uuid4().hex,
            workflow_id_reuse_policy=enums.WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
            workflow_id_conflict_policy=enums.WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
            memo=memo_of(stream),
        )

    def _execution(self, stream: StreamId) -> common.WorkflowExecution:
        return common.WorkflowExecution(workflow_id=self._names.workflow_id(stream))


def _payloads(*payloads: common.Payload) -> common.Payloads:
    return common.Payloads(payloads=payloads)
