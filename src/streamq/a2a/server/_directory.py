"""Starts, finds, lists, tells and cancels the workflows that are tasks.

What a task is called, who owns it and which context it belongs to is in Temporal: in the workflow's
id and memo. Nothing is kept here.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from a2a.types.a2a_pb2 import Message
from a2a.utils.errors import InvalidParamsError
from google.protobuf.json_format import MessageToDict, ParseDict
from temporalio.api.common.v1 import WorkflowExecution as ExecutionOf
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDReusePolicy
from temporalio.converter import DataConverter, WorkflowSerializationContext
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import BackendUnavailableError
from streamq._executions import Execution
from streamq._retry import RetryPolicy
from streamq.a2a._entries import LOG_TOPIC, MESSAGE_UPDATE
from streamq.a2a.worker._input import TaskInput
from streamq.temporal._cancelling import cancel_execution
from streamq.temporal._names import stream_name
from streamq.temporal._rpc import RPC_TIMEOUT, connecting, rpc_error

from ._agent import Agent
from ._scope import Scope

INVALID_TOKEN = "The page token is not valid: take it from an answer"
_OF_A_BAD_TOKEN = (RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.UNKNOWN)
_MEMO, _STARTED_BY = "streamq.a2a", "message"
_UPDATE_SECONDS = 30.0
_MOST_AT_ONCE = 8
_RETRY = RetryPolicy(deadline_seconds=5.0, backend="temporal")
_ENDED = {
    status.value
    for status in WorkflowExecutionStatus
    if status.name in ("COMPLETED", "FAILED", "CANCELED", "TERMINATED", "TIMED_OUT")
}


@dataclass(frozen=True, slots=True)
class TaskPlace:
    """Where a task is.

    Attributes:
        task_id: Its id, which is that of its workflow.
        run_id: First run of the workflow.
        context_id: Its context.
        has_ended: Whether the workflow had ended.
        was_cancelled: Whether it had ended by cancellation.
        started_by: Digest of the message that started it.
    """

    task_id: str
    run_id: str
    context_id: str
    has_ended: bool = False
    was_cancelled: bool = False
    started_by: str = ""

    @property
    def stream(self) -> str:
        """Name of the stream that is the task's log."""
        return stream_name(self.task_id, self.run_id, LOG_TOPIC)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tasks are listed, as far as Temporal knows it.

    Attributes:
        context_id: Those of this context; empty for all.
        only_running: Those whose workflow runs.
        ended_since: Those whose workflow runs, or has ended since then.
    """

    context_id: str = ""
    only_running: bool = False
    ended_since: datetime | None = None

    def query(self, scope: Scope) -> str:
        """Return the query of Temporal for them, among those of a scope."""
        prefix = scope.context_prefix(self.context_id) if self.context_id else scope.prefix
        found = [f"WorkflowId STARTS_WITH '{prefix}'"]
        if self.only_running:
            found.append("ExecutionStatus = 'Running'")
        else:
            found.append("ExecutionStatus != 'ContinuedAsNew'")
        if self.ended_since is not None:
            since = self.ended_since.astimezone(UTC).isoformat(timespec="milliseconds")
            found.append(f"(ExecutionStatus = 'Running' OR CloseTime >= '{since}')")
        return " AND ".join(found)


class TaskDirectory:
    """The tasks of one agent, as Temporal knows them.

    Args:
        agent: The agent.
        client: A client of its namespace.
    """

    def __init__(self, agent: Agent, client: Client) -> None:
        self._agent, self._client = agent, client

    async def start(
        self,
        scope: Scope,
        message: Message,
        context_id: str,
        task_id: str,
        extensions: Sequence[str],
    ) -> TaskPlace | None:
        """Start a workflow for a message; ``None`` if there is one of that id.

        Args:
            scope: Whose task it is.
            message: The message.
            context_id: Its context.
            task_id: Id of the task.
            extensions: What the client has activated.

        Raises:
            StreamqError: Temporal did not start it.
        """
        agent = self._agent
        request = TaskInput(
            message=MessageToDict(message),
            context_id=context_id,
            tenant=scope.tenant,
            user=scope.user,
            can_reply=agent.can_reply,
            heartbeat_seconds=agent.heartbeat_seconds,
            activity=agent.activity_name,
            args=list(agent.arguments(message)) if agent.activity else [],
            start_to_close_seconds=agent.start_to_close_seconds,
            max_attempts=agent.max_attempts,
            extensions=list(extensions),
        )
        try:
            with connecting():
                handle: WorkflowHandle[Any, Any] = await self._client.start_workflow(
                    agent.workflow_name,
                    request,
                    id=task_id,
                    task_queue=agent.task_queue,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    memo={_MEMO: scope.memo(context_id) | {_STARTED_BY: digest_of(message)}},
                    execution_timeout=(
                        timedelta(seconds=agent.execution_seconds)
                        if agent.execution_seconds
                        else None
                    ),
                    retry_policy=agent.retry_policy,
                    rpc_timeout=2 * RPC_TIMEOUT,
                )
        except WorkflowAlreadyStartedError:
            return None
        except RPCError as exc:
            raise rpc_error(exc, f"start a workflow for agent {agent.agent_name!r}") from exc
        return TaskPlace(task_id, str(handle.first_execution_run_id), context_id)

    async def find(self, scope: Scope, task_id: str) -> TaskPlace | None:
        """Return where a task is; ``None`` if there is none of that id that the caller may see.

        Raises:
            StreamqError: Temporal does not answer.
        """
        if not scope.owns(task_id):
            return None
        answer = await _RETRY.run(lambda: self._describe(task_id))
        return None if answer is None else await self._place(scope, answer)

    async def _describe(self, task_id: str) -> WorkflowExecutionInfo | None:
        """Return what Temporal knows of the newest run of a workflow."""
        request = DescribeWorkflowExecutionRequest(
            namespace=self._client.namespace, execution=ExecutionOf(workflow_id=task_id)
        )
        try:
            with connecting():
                answer = await self._client.workflow_service.describe_workflow_execution(
                    request, timeout=RPC_TIMEOUT
                )
        except RPCError as exc:
            if exc.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
                return None
            raise rpc_error(exc, "describe a task") from exc
        return answer.workflow_execution_info

    async def _place(self, scope: Scope, info: WorkflowExecutionInfo) -> TaskPlace | None:
        memo = info.memo.fields
        if _MEMO not in memo:
            return None
        [found] = await self._converter(info.execution.workflow_id).decode([memo[_MEMO]])
        if not isinstance(found, dict):
            return None
        started_by = str(found.pop(_STARTED_BY, ""))
        if found != scope.memo(str(found.get("context", ""))):
            return None
        return TaskPlace(
            info.execution.workflow_id,
            info.first_run_id or info.execution.run_id,
            found["context"],
            info.status in _ENDED,
            info.status == WorkflowExecutionStatus.CANCELED.value,
            started_by,
        )

    def _converter(self, task_id: str) -> DataConverter:
        """Return the converter of a task's payloads: codecs may have a key for each workflow."""
        context = WorkflowSerializationContext(self._client.namespace, task_id)
        return self._client.data_converter.with_context(context)

    async def page(
        self, scope: Scope, wanted: Wanted, token: bytes | None, size: int
    ) -> tuple[list[TaskPlace], bytes | None]:
        """Return a page of tasks, as Temporal lists them, and the token of the next page.

        Raises:
            InvalidParamsError: Temporal refuses the token.
            StreamqError: Temporal does not answer.
        """
        found = self._client.list_workflows(
            wanted.query(scope), page_size=size, next_page_token=token
        )
        try:
            with connecting():
                await found.fetch_next_page()
        except RPCError as exc:
            if token is not None and exc.status in _OF_A_BAD_TOKEN:
                raise InvalidParamsError(INVALID_TOKEN) from exc
            raise rpc_error(exc, "list tasks") from exc
        runs = {each.id: each for each in reversed(found.current_page or ())}
        limit = asyncio.Semaphore(_MOST_AT_ONCE)

        async def newest(run: WorkflowExecution) -> TaskPlace | None:
            async with limit:
                answer = await _RETRY.run(lambda: self._describe(run.id))
            if answer is None:
                return None
            # Temporal lists each run. One that was retried or reset is no task any more.
            is_old = answer.execution.run_id != run.run_id
            is_over = run.status is not WorkflowExecutionStatus.RUNNING
            return None if is_old and is_over else await self._place(scope, answer)

        places = await asyncio.gather(*[newest(each) for each in reversed(runs.values())])
        return [each for each in places if each is not None], found.next_page_token

    async def count(self, scope: Scope, wanted: Wanted) -> int:
        """Return how many tasks there are; those whose workflow was retried count for each run.

        Raises:
            StreamqError: Temporal does not answer.
        """
        try:
            with connecting():
                found = await self._client.count_workflows(wanted.query(scope))
        except RPCError as exc:
            raise rpc_error(exc, "count tasks") from exc
        return found.count

    async def first_message(self, place: TaskPlace) -> Message | None:
        """Return the message that started a task, from its workflow's history.

        Raises:
            StreamqError: Temporal does not answer.
        """
        handle: WorkflowHandle[Any, Any] = self._client.get_workflow_handle(place.task_id)
        try:
            with connecting():
                async for event in _first_event(handle):
                    payloads = event.workflow_execution_started_event_attributes.input.payloads
                    [request] = await self._converter(place.task_id).decode(payloads)
                    found = ParseDict(request["message"], Message(), ignore_unknown_fields=True)
                    found.task_id, found.context_id = place.task_id, place.context_id
                    return found
        except RPCError as exc:
            raise rpc_error(exc, "read how a task began") from exc
        return None

    async def send(self, place: TaskPlace, message: Message) -> int | None:
        """Give a task a further message; returns when it is stored.

        The same message is given once, also if it is sent again.

        Returns:
            How much the workflow had told then; ``None`` if the task has ended.

        Raises:
            BackendUnavailableError: No worker took it in time, or Temporal does not answer. It may
                be taken later.
        """
        handle: WorkflowHandle[Any, Any] = self._client.get_workflow_handle(place.task_id)
        content, number = MessageToDict(message), digest_of(message)
        try:
            async with asyncio.timeout(_UPDATE_SECONDS):
                with connecting():
                    return int(await handle.execute_update(MESSAGE_UPDATE, content, id=number))
        except WorkflowUpdateFailedError:
            return None
        except RPCError as exc:
            if exc.status is RPCStatusCode.NOT_FOUND:
                return None
            raise rpc_error(exc, "give a task a message") from exc
        except TimeoutError:
            raise BackendUnavailableError(
                f"no worker of task queue {self._agent.task_queue!r} took a message for "
                f"{_UPDATE_SECONDS:g} s",
                backend="temporal",
            ) from None

    async def cancel(self, place: TaskPlace) -> bool:
        """Request a cancellation, and return whether the task still ran.

        Raises:
            StreamqError: Temporal does not answer.
        """
        execution = Execution("workflow", place.task_id, place.run_id)
        return await cancel_execution(self._client, execution, _RETRY)


def digest_of(message: Message) -> str:
    """Return the digest of a message's whole content."""
    content = json.dumps(MessageToDict(message), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


async def _first_event(handle: WorkflowHandle[Any, Any]) -> AsyncIterator[HistoryEvent]:
    async for event in handle.fetch_history_events(page_size=1, rpc_timeout=RPC_TIMEOUT):
        yield event
        return
