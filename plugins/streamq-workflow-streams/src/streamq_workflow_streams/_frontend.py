"""Calls to Temporal: one round trip each, with a deadline, never repeated, ended by closing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import temporalio.api.common.v1 as common
import temporalio.api.enums.v1 as enums
import temporalio.api.query.v1 as query
import temporalio.api.taskqueue.v1 as taskqueue
import temporalio.api.update.v1 as update
import temporalio.api.workflowservice.v1 as service
from temporalio.client import Client
from temporalio.service import RPCError

from streamq.driver import (
    BackendUnavailableError,
    StreamId,
    StreamNotFoundError,
    StreamqError,
)

from ._errors import BACKEND, HostBusyError, closed_error, not_connected, to_streamq
from ._host import HOST_WORKFLOW
from ._settings import WorkflowStreamsSettings

T = TypeVar("T")

_LONGEST_ID_BYTES = 255  # of what some databases of Temporal store
_HASHED = "~"
_MEMO = "streamq_stream"
_PAGE = 500
_MARGIN_SECONDS = 0.5
_UPDATES_AT_A_TIME = 32
BUSY_SECONDS = 0.02
_LOOK_SECONDS = 1.0
_LONG_POLL_SECONDS = 30.0  # the server itself answers after about 20
_POLLER_SECONDS = 75.0

_COMPLETED = update.WaitPolicy(
    lifecycle_stage=enums.UpdateWorkflowExecutionLifecycleStage.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED
)


class Frontend:
    """What is asked of a Temporal server for one queue.

    Every method raises errors of streamq only; ``StreamNotFoundError`` where the host of a stream
    does not run.
    """

    def __init__(self, client: Client, settings: WorkflowStreamsSettings) -> None:
        self._client = client
        self._service = client.workflow_service
        self._identity = client.service_client.config.identity
        self._settings = settings
        self._running: set[asyncio.Future[Any]] = set()
        self._closing = asyncio.Event()
        self._turns = asyncio.Semaphore(_UPDATES_AT_A_TIME)
        self._asking: WeakValueDictionary[StreamId, asyncio.Lock] = WeakValueDictionary()

    async def check_namespace(self) -> bool:
        """Whether the namespace exists."""
        request = service.DescribeNamespaceRequest(namespace=self._settings.namespace)
        try:
            await self._call(
                self._service.describe_namespace,
                request,
                seconds=self._settings.connect_timeout_seconds,
            )
        except StreamNotFoundError:
            return False
        return True

    async def has_no_worker(self) -> bool:
        """Whether it is known that nobody runs hosts, and has not for a minute. Never raises."""
        request = service.DescribeTaskQueueRequest(
            namespace=self._settings.namespace,
            task_queue=taskqueue.TaskQueue(name=self._settings.task_queue),
            task_queue_type=enums.TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        try:
            found = await self._call(
                self._service.describe_task_queue, request, seconds=_LOOK_SECONDS
            )
        except StreamqError:
            return False
        since = time.time() - _POLLER_SECONDS
        return not any(each.last_access_time.seconds > since for each in found.pollers)

    async def send_update(
        self, stream: StreamId, name: str, argument: common.Payload, *, starts: bool = False
    ) -> update.Outcome:
        """Send an update and wait for its outcome, starting the host if there is none.

        So many at a time for each queue: a burst of new streams would else run into its deadlines
        while their hosts wait for a worker.
        """
        async with self._turns:
            return await self._send_update(stream, name, argument, starts=starts)

    async def long_poll(
        self, stream: StreamId, name: str, argument: common.Payload
    ) -> update.Outcome:
        """Send an update that may take any time, and wait for its outcome."""
        request = self._update(stream, name, argument)
        answer: (
            service.UpdateWorkflowExecutionResponse | service.PollWorkflowExecutionUpdateResponse
        )
        answer = await self._call(
            self._service.update_workflow_execution,
            request,
            stream=stream,
            seconds=_LONG_POLL_SECONDS,
        )
        while not answer.HasField("outcome"):
            again = service.PollWorkflowExecutionUpdateRequest(
                namespace=self._settings.namespace,
                update_ref=update.UpdateRef(
                    workflow_execution=request.workflow_execution,
                    update_id=request.request.meta.update_id,
                ),
                identity=self._identity,
                wait_policy=_COMPLETED,
            )
            answer = await self._call(
                self._service.poll_workflow_execution_update,
                again,
                stream=stream,
                seconds=_LONG_POLL_SECONDS,
            )
        return answer.outcome

    async def query(self, stream: StreamId, name: str, argument: bytes) -> bytes:
        """Ask the running host of a stream.

        Temporal holds few questions to one workflow at a time. So those of a queue go one after the
        other, and one that is turned away because of others is asked again until its deadline,
        which counts from when it came: a server that hangs must not be waited for in turn.
        """
        lock = self._asking.setdefault(stream, asyncio.Lock())
        clock = asyncio.get_running_loop().time
        limit = self._settings.operation_timeout_seconds
        until = clock() + limit
        try:
            async with asyncio.timeout_at(until):
                await lock.acquire()
        except TimeoutError as exc:
            raise self._unanswered(limit, str(stream)) from exc
        try:
            while True:
                try:
                    left = max(until - clock(), _LOOK_SECONDS)
                    return await self._query(stream, name, argument, min(left, limit))
                except HostBusyError:
                    if clock() > until:
                        raise
                await self.pause(BUSY_SECONDS)
        finally:
            lock.release()

    async def terminate(self, stream: StreamId) -> None:
        """End the host of a stream."""
        request = service.TerminateWorkflowExecutionRequest(
            namespace=self._settings.namespace,
            workflow_execution=self._execution(stream),
            reason="the stream was deleted",
            identity=self._identity,
        )
        await self._call(self._service.terminate_workflow_execution, request, stream=stream)

    async def list_streams(self, tenant: str) -> AsyncIterator[StreamId]:
        """Iterate over the streams of a tenant, as far as visibility knows them."""
        start = f"{self._settings.id_prefix}/{tenant}/"
        request = service.ListWorkflowExecutionsRequest(
            namespace=self._settings.namespace,
            page_size=_PAGE,
            query=f"WorkflowType = '{HOST_WORKFLOW}' AND ExecutionStatus = 'Running' "
            f"AND WorkflowId STARTS_WITH '{start}'",
        )
        while True:
            page = await self._call(self._service.list_workflow_executions, request)
            for each in page.executions:
                found = _named(each.memo)
                if found is not None and found.tenant == tenant:
                    yield found
            if not page.next_page_token:
                return
            request.next_page_token = page.next_page_token

    async def pause(self, seconds: float) -> None:
        """Wait, unless the queue is closed meanwhile."""
        closed = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({closed}, timeout=seconds)
        finally:
            closed.cancel()
        self.check_open()

    def check_open(self) -> None:
        """Refuse to go on once closed."""
        if self._closing.is_set():
            raise closed_error()

    def close(self) -> None:
        """End whatever is under way; idempotent."""
        self._closing.set()
        for each in tuple(self._running):
            each.cancel()
        # The SDK closes a connection when its objects are collected, and they hold one another.
        vars(self._client.service_client).clear()

    async def gone(self) -> None:
        """Wait until nothing is under way any more."""
        if self._running:
            await asyncio.wait(self._running)

    # -- inside --------------------------------------------------------------------------------

    async def _send_update(
        self, stream: StreamId, name: str, argument: common.Payload, *, starts: bool
    ) -> update.Outcome:
        request = self._update(stream, name, argument)
        if not starts:
            answer = await self._call(
                self._service.update_workflow_execution, request, stream=stream
            )
        else:
            operation = service.ExecuteMultiOperationRequest.Operation
            both = service.ExecuteMultiOperationRequest(
                namespace=self._settings.namespace,
                operations=[
                    operation(start_workflow=self._start(stream)),
                    operation(update_workflow=request),
                ],
            )
            found = await self._call(self._service.execute_multi_operation, both, stream=stream)
            answer = found.responses[1].update_workflow
        if not answer.HasField("outcome"):
            raise await self._silence("the host workflow took no update", stream)
        return answer.outcome

    async def _query(self, stream: StreamId, name: str, argument: bytes, seconds: float) -> bytes:
        request = service.QueryWorkflowRequest(
            namespace=self._settings.namespace,
            execution=self._execution(stream),
            query=query.WorkflowQuery(query_type=name, query_args=_payloads(binary(argument))),
            query_reject_condition=enums.QueryRejectCondition.QUERY_REJECT_CONDITION_NOT_OPEN,
        )
        answer = await self._call(
            self._service.query_workflow, request, stream=stream, seconds=seconds
        )
        if answer.HasField("query_rejected"):
            raise StreamNotFoundError(
                f"there is no stream {stream} any more (deleted, or expired)",
                backend=BACKEND,
                stream=str(stream),
            )
        data: bytes = answer.query_result.payloads[0].data
        return data

    async def _call(
        self,
        rpc: Callable[..., Awaitable[T]],
        request: object,
        *,
        stream: StreamId | None = None,
        seconds: float | None = None,
    ) -> T:
        self.check_open()
        name = None if stream is None else str(stream)
        limit = seconds or self._settings.operation_timeout_seconds
        running = asyncio.ensure_future(rpc(request, retry=False, timeout=timedelta(seconds=limit)))
        self._running.add(running)
        running.add_done_callback(self._forget)
        try:
            async with asyncio.timeout(limit + _MARGIN_SECONDS):
                # Not withdrawn with its caller: a server that has an update withdrawn before its
                # worker has seen it holds the next one of that workflow up for seconds.
                return await asyncio.shield(running)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closing.is_set() and task is not None and not task.cancelling():
                raise closed_error() from None
            raise
        except TimeoutError as exc:
            running.cancel()
            raise self._unanswered(limit, name) from exc
        except RuntimeError as exc:
            raise not_connected(exc, self._settings.address) from exc
        except RPCError as exc:
            _release(exc)
            raise await self._told(exc, stream) from exc
        finally:
            del running

    def _unanswered(self, seconds: float, stream: str | None) -> BackendUnavailableError:
        return BackendUnavailableError(
            f"Temporal at {self._settings.address} did not answer within {seconds:.3g} s",
            backend=BACKEND,
            stream=stream,
        )

    async def _told(self, error: RPCError, stream: StreamId | None) -> StreamqError:
        found = to_streamq(error, self._settings.address, None if stream is None else str(stream))
        if type(found) is BackendUnavailableError and stream is not None:
            return await self._silence(found.message, stream)
        return found

    def _forget(self, running: asyncio.Future[Any]) -> None:
        self._running.discard(running)
        if not running.cancelled():
            running.exception()  # of one whose caller has gone, nobody else asks

    async def _silence(self, what: str, stream: StreamId) -> BackendUnavailableError:
        """Return the error for a host that does not answer: it may be that no worker runs it."""
        message = what
        if await self.has_no_worker():
            message = (
                f"no worker polls task queue {self._settings.task_queue!r} of namespace "
                f"{self._settings.namespace!r}, so that nobody keeps the stream: run "
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
                meta=update.Meta(update_id=uuid.uuid4().hex, identity=self._identity),
                input=update.Input(name=name, args=_payloads(argument)),
            ),
        )

    def _start(self, stream: StreamId) -> service.StartWorkflowExecutionRequest:
        return service.StartWorkflowExecutionRequest(
            namespace=self._settings.namespace,
            workflow_id=self._workflow_id(stream),
            workflow_type=common.WorkflowType(name=HOST_WORKFLOW),
            task_queue=taskqueue.TaskQueue(name=self._settings.task_queue),
            input=_payloads(binary(b"")),
            identity=self._identity,
            request_id=uuid.uuid4().hex,
            workflow_id_reuse_policy=enums.WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
            workflow_id_conflict_policy=enums.WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
            memo=common.Memo(fields={_MEMO: as_json([stream.tenant, stream.name])}),
        )

    def _execution(self, stream: StreamId) -> common.WorkflowExecution:
        return common.WorkflowExecution(workflow_id=self._workflow_id(stream))

    def _workflow_id(self, stream: StreamId) -> str:
        start = f"{self._settings.id_prefix}/{stream.tenant}/"
        found = start + stream.name
        if len(found.encode()) > _LONGEST_ID_BYTES or stream.name.startswith(_HASHED):
            return start + _HASHED + hashlib.sha256(stream.name.encode()).hexdigest()
        return found


def binary(data: bytes) -> common.Payload:
    """Return bytes as Temporal's default converter encodes them."""
    return common.Payload(metadata={"encoding": b"binary/plain"}, data=data)


def as_json(value: object) -> common.Payload:
    """Return a value as Temporal's default converter encodes it."""
    return common.Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(value).encode())


def _payloads(*payloads: common.Payload) -> common.Payloads:
    return common.Payloads(payloads=payloads)


def _named(memo: common.Memo) -> StreamId | None:
    try:
        tenant, name = json.loads(memo.fields[_MEMO].data)
        return StreamId(tenant, name)
    except (ValueError, TypeError):
        return None  # of the same type, and not ours


def _release(error: BaseException) -> None:
    """Break the circle of an error and the SDK's frames, which else keep the connection open."""
    found: BaseException | None = error
    while found is not None:
        traceback.clear_frames(found.__traceback__)
        found = found.__cause__ or found.__context__
