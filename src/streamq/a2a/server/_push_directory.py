"""Keeps where a task's push notifications go, in the workflow that sends them.

Reading needs no worker: the workflow's memo has the configs.

Design: docs/design/a2a-push.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.converter import WorkflowSerializationContext
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import BackendUnavailableError
from streamq._retry import RetryPolicy
from streamq._settings import Settings
from streamq.a2a._push_config import (
    DELETE_UPDATE,
    PUSH_MEMO,
    PUSH_WORKFLOW,
    SET_UPDATE,
    TOO_MANY,
    PushConfig,
    PushRequest,
    push_workflow_id,
)
from streamq.a2a._push_sealing import opened, sealed
from streamq.temporal._rpc import RPC_TIMEOUT, connecting, rpc_error

from ._agent import Agent
from ._directory import TaskPlace

_UPDATE_SECONDS = 30.0
_UPDATE_TRIES = 3
_RETRY = RetryPolicy(deadline_seconds=5.0, backend="temporal")


class TooManyConfigsError(Exception):
    """A task has as many configs, or changes of them, as it may have."""


class PushDirectory:
    """Where the notifications of one agent's tasks go, as Temporal knows it.

    Args:
        agent: The agent.
        client: A client of its namespace.
        settings: Where notifications may go, and the secret that encrypts credentials.
    """

    def __init__(self, agent: Agent, client: Client, settings: Settings) -> None:
        self._agent, self._client = agent, client
        self.settings = settings
        """The settings."""

    async def configs(self, place: TaskPlace) -> Sequence[PushConfig]:
        """Return the configs of a task, with their credentials.

        Raises:
            StreamqError: Temporal does not answer, or the credentials cannot be decrypted.
        """
        stored = await _RETRY.run(lambda: self._stored(place))
        return [opened(PushConfig.from_json(each), self.settings) for each in stored]

    async def start(self, place: TaskPlace, config: PushConfig) -> None:
        """Let a task that was just started be sent to a receiver; needs no worker. Idempotent.

        Raises:
            StreamqError: Temporal did not take it.
        """
        stored = sealed(config, self.settings).to_json()
        try:
            with connecting():
                await self._client.start_workflow(
                    PUSH_WORKFLOW,
                    dataclasses.replace(self._request(place), configs=[stored]),
                    id=push_workflow_id(place.task_id),
                    task_queue=self._agent.task_queue,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    memo={PUSH_MEMO: [stored]},
                    rpc_timeout=2 * RPC_TIMEOUT,
                )
        except WorkflowAlreadyStartedError:
            return  # the same message was sent before
        except RPCError as exc:
            raise rpc_error(exc, "start the push notifications of a task") from exc

    async def set(self, place: TaskPlace, config: PushConfig) -> None:
        """Send to a receiver from now on; returns when it is stored.

        Raises:
            TooManyConfigsError: The task has as many configs as it may have.
            BackendUnavailableError: No worker took it in time, or Temporal does not answer.
            StreamqError: Temporal refuses, or the secret of the settings cannot be used.
        """
        await self._update(place, SET_UPDATE, sealed(config, self.settings).to_json())

    async def delete(self, place: TaskPlace, config_id: str) -> None:
        """Send nothing more to a receiver; returns when nothing is on its way. Idempotent.

        Raises:
            BackendUnavailableError: No worker took it in time, or Temporal does not answer.
            StreamqError: Temporal refuses.
        """
        stored = await _RETRY.run(lambda: self._stored(place))
        if any(each["id"] == config_id for each in stored):
            await self._update(place, DELETE_UPDATE, config_id)

    def _request(self, place: TaskPlace) -> PushRequest:
        return PushRequest(place.task_id, place.context_id, self._agent.heartbeat_seconds)

    async def _stored(self, place: TaskPlace) -> list[dict[str, Any]]:
        request = DescribeWorkflowExecutionRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=push_workflow_id(place.task_id)),
        )
        try:
            with connecting():
                answer = await self._client.workflow_service.describe_workflow_execution(
                    request, timeout=RPC_TIMEOUT
                )
        except RPCError as exc:
            if exc.status is RPCStatusCode.NOT_FOUND:
                return []
            raise rpc_error(exc, "describe the push notifications of a task") from exc
        memo = answer.workflow_execution_info.memo.fields
        if PUSH_MEMO not in memo:
            return []
        context = WorkflowSerializationContext(
            self._client.namespace, push_workflow_id(place.task_id)
        )
        converter = self._client.data_converter.with_context(context)
        [found] = await converter.decode([memo[PUSH_MEMO]])
        return list(found)

    async def _update(self, place: TaskPlace, name: str, argument: Any) -> None:
        """Change the configs, in the run that is open, or else in one that knows those before."""
        try:
            async with asyncio.timeout(_UPDATE_SECONDS):
                for left in reversed(range(_UPDATE_TRIES)):
                    try:
                        return await self._update_once(place, name, argument)
                    except RPCError as exc:
                        # The run has ended at this moment; the next one begins with its configs.
                        if exc.status is not RPCStatusCode.NOT_FOUND or not left:
                            raise rpc_error(exc, "change push notifications") from exc
        except TimeoutError:
            raise BackendUnavailableError(
                f"no worker of task queue {self._agent.task_queue!r} changed the push "
                f"notifications of a task for {_UPDATE_SECONDS:g} s",
                backend="temporal",
            ) from None

    async def _update_once(self, place: TaskPlace, name: str, argument: Any) -> None:
        kept = await self._stored(place)
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            PUSH_WORKFLOW,
            dataclasses.replace(self._request(place), kept=kept),
            id=push_workflow_id(place.task_id),
            task_queue=self._agent.task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            memo={PUSH_MEMO: kept},
        )
        try:
            with connecting():
                await self._client.execute_update_with_start_workflow(
                    name, argument, start_workflow_operation=start
                )
        except WorkflowUpdateFailedError as exc:
            if isinstance(exc.cause, ApplicationError) and exc.cause.type == TOO_MANY:
                raise TooManyConfigsError(exc.cause.message) from None
            raise BackendUnavailableError(
                f"a change of push notifications failed: {exc.cause}", backend="temporal"
            ) from exc
