"""Answers the operations of A2A from the log and from Temporal.

Any replica answers any request: what it needs is in the log, and in Temporal. Here is the interface
of the SDK; ``_sending``, ``_watching``, ``_cancelling``, ``_listing`` and ``_push`` do the work.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from a2a.server.context import ServerCallContext
from a2a.server.events.event_queue import Event
from a2a.server.request_handlers.request_handler import RequestHandler, validate_request_params
from a2a.types.a2a_pb2 import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import UnsupportedOperationError
from a2a.utils.task import apply_history_length, validate_history_length

from streamq._settings import Settings
from streamq.a2a._push_sealing import check_push_secret
from streamq.driver import close_all
from streamq.gateway._authorize import Authorize

from ._access import Access
from ._agent import Agent
from ._cancelling import cancel_task
from ._card import Cards
from ._guarding import disclosing_nothing, guarded
from ._listing import list_tasks
from ._lookup import Lookup
from ._push import create_push_config, delete_push_config, get_push_config, list_push_configs
from ._resources import Resources
from ._sending import send_message, stream_message
from ._watching import subscribe_to_task


class TaskHandler(RequestHandler):
    """The operations of A2A for one agent.

    It connects to Temporal and to the queue when it is first used, and :meth:`aclose` closes what
    it opened. Every operation is held to the tenant, the subject and the rights of its caller's
    token, as the settings of the gateway say: another one's task is unknown. Without such settings,
    tasks belong to the tenant that a request names and to the user that the context builder of the
    SDK's routes finds.

    Args:
        agent: The agent.
        resources: What it reads from; by default as configured.
        authorize: A function of yours that says what a request may do, as for :func:`create_app`.

    Raises:
        ConfigurationError: A setting is invalid.
    """

    def __init__(
        self,
        agent: Agent,
        resources: Resources | None = None,
        *,
        authorize: Authorize | None = None,
    ) -> None:
        self.agent = agent
        """The agent."""
        self._resources = resources or Resources(agent)
        check_push_secret(self._resources.settings)
        self.access = Access(agent.agent_name, self._resources, authorize)
        """Says who sends a request."""
        self.cards = Cards(agent, self.access.authority, self._resources.settings)
        """The cards as clients get them."""
        self._lookup = Lookup(agent, self._resources, self.access)

    async def open(self) -> None:
        """Connect now; otherwise the first request does.

        Raises:
            StreamqError: Temporal or the queue cannot be reached.
        """
        await self._resources.logs()
        self.access.start()

    @property
    def settings(self) -> Settings:
        """The settings in use."""
        return self._resources.settings

    async def aclose(self) -> None:
        """Close what was opened. Idempotent."""
        await close_all(self.access.aclose, self._resources.aclose)

    @validate_request_params
    @guarded
    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task | None:
        """Return a task, with at most as much history as the request wants."""
        validate_history_length(params)
        _, fold, _ = await self._lookup.task(params.id, params.tenant, context)
        return apply_history_length(fold.snapshot(), params)

    @validate_request_params
    @guarded
    async def on_list_tasks(
        self, params: ListTasksRequest, context: ServerCallContext
    ) -> ListTasksResponse:
        """Return a page of the caller's tasks, in the order in which Temporal lists them."""
        return await list_tasks(self._lookup, params, context)

    @validate_request_params
    @guarded
    async def on_cancel_task(
        self, params: CancelTaskRequest, context: ServerCallContext
    ) -> Task | None:
        """Cancel a task, and return it when it has ended, or after 30 seconds."""
        caller = await self._lookup.caller(params.tenant, context)
        return await caller.permitted(cancel_task(self._lookup, params, context))

    @validate_request_params
    @guarded
    async def on_message_send(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> Task | Message:
        """Start or continue a task, and return it when it has ended or waits for its client."""
        caller = await self._lookup.caller(params.tenant, context)
        return await caller.permitted(send_message(self._lookup, params, context))

    @validate_request_params
    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """Start or continue a task, and yield it and then its events.

        The stream ends with the task, or when the task waits for its client.
        """
        with disclosing_nothing():
            caller = await self._lookup.caller(params.tenant, context)
            stream = stream_message(self._lookup, params, context)
            async with aclosing(caller.while_permitted(stream)) as events:
                async for event in events:
                    yield event

    @validate_request_params
    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """Yield a task as it is, and then each of its events once, until it has ended."""
        with disclosing_nothing():
            caller = await self._lookup.caller(params.tenant, context)
            stream = subscribe_to_task(self._lookup, params, context)
            async with aclosing(caller.while_permitted(stream)) as events:
                async for event in events:
                    yield event

    @validate_request_params
    @guarded
    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """Send the events of a task to a receiver from now on."""
        return await create_push_config(self._lookup, params, context)

    @validate_request_params
    @guarded
    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """Return where events of a task are sent."""
        return await get_push_config(self._lookup, params, context)

    @validate_request_params
    @guarded
    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        """Return a page of where events of a task are sent."""
        return await list_push_configs(self._lookup, params, context)

    @validate_request_params
    @guarded
    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """Send the events of a task to a receiver no more."""
        await delete_push_config(self._lookup, params, context)

    @validate_request_params
    @guarded
    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        """Return the card for callers that are known."""
        caller = await self.access.caller(params.tenant, context)
        if self.cards.extended is None:
            raise UnsupportedOperationError("This agent has no extended card")
        caller.check_is_known()
        return self.cards.extended
