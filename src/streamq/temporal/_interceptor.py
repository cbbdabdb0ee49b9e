"""Intercepts activities and workflows of a worker.

Activities get the queue, their origin and, if they stream, their writers. Workflows add their
origin to the activities that they schedule, and wait at their end for what they have published.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import Priority
from temporalio.worker import (
    ActivityInboundInterceptor,
    ActivityOutboundInterceptor,
    ContinueAsNewInput,
    ExecuteActivityInput,
    ExecuteWorkflowInput,
    Interceptor,
    StartActivityInput,
    StartLocalActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from streamq._errors import ConfigurationError, StreamqError
from streamq._settings import Settings
from streamq.driver import ChunkQueue

from ._failure import application_error, final_failure
from ._origin import Origin
from .activities._context import ActivityContext, current
from .activities._forward import FORWARD_ACTIVITY
from .activities._owner import FIRST_RUN_ACTIVITY
from .activities._poll_request import POLL_ACTIVITY
from .activities._seal import SEAL_ACTIVITY
from .activities._summarize import SUMMARY_ACTIVITY
from .activities._waiting import WaitingActivities
from .activities._watch import RESULT_ACTIVITY, WATCH_ACTIVITY
from .producer._attempt import run_attempt
from .producer._heartbeat_details import Heartbeats
from .producer._own_writers import OwnWriters
from .producer._signature import spec_of
from .workflow._chain import continued_headers, known_first_run_id, learn_first_run_id
from .workflow._end_stream import workflow_retries
from .workflow._stream_topic import StreamOwner, chosen_owner, chosen_topic
from .workflow_streams._end_topics import END_TOPICS_ACTIVITY, end_topics
from .workflow_streams._hosted import HostedStream
from .workflow_streams._publication import publishing_activity
from .workflow_streams._publish import PUBLISH_ACTIVITY
from .workflow_streams._workflow_stream import flush_workflow

_OURS = "streamq."
_BRIEF = {
    POLL_ACTIVITY,
    FORWARD_ACTIVITY,
    WATCH_ACTIVITY,
    RESULT_ACTIVITY,
    SUMMARY_ACTIVITY,
    SEAL_ACTIVITY,
    PUBLISH_ACTIVITY,
    END_TOPICS_ACTIVITY,
}
"""Activities that must not queue behind producers: those that wait leave their slot at once, the
others work for as long as the stored records take, or the deadline of a call."""

_FIRST = Priority(priority_key=1)

_logger = logging.getLogger("streamq.temporal")


class StreamqInterceptor(Interceptor):
    """The plugin's interceptor for both sides of a worker.

    Args:
        resources: Returns the queue and settings in use, ``None`` when no worker runs.
        client: The worker's client.
        routes: Whether what is published to Workflow Streams goes to the queue.

    Attributes:
        waiting: The worker's activities that wait outside of its slots.
    """

    def __init__(
        self,
        resources: Callable[[], tuple[ChunkQueue, Settings] | None],
        client: Client | None = None,
        *,
        routes: bool = False,
    ) -> None:
        self._resources = resources
        self._client = client
        self._routes = routes
        self._warned: set[str] = set()
        self.waiting = WaitingActivities()

    def belongs_to(self, resources: Callable[[], tuple[ChunkQueue, Settings] | None]) -> bool:
        """Whether it was made for the owner of these resources."""
        return self._resources == resources

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Give activities their context and their writers."""
        if self._client is None:
            return next
        return _ActivityInbound(
            next, self._resources, self._client, self.waiting, self._warned, routes=self._routes
        )

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        """Return the interceptor that adds the origin to activities."""
        return _RoutedWorkflowInbound if self._routes else _WorkflowInbound


class _ActivityInbound(ActivityInboundInterceptor):
    def __init__(
        self,
        next: ActivityInboundInterceptor,
        resources: Callable[[], tuple[ChunkQueue, Settings] | None],
        client: Client,
        waiting: WaitingActivities,
        warned: set[str],
        *,
        routes: bool,
    ) -> None:
        super().__init__(next)
        self._routes = routes
        self._resources = resources
        self._client = client
        self._waiting = waiting
        self._warned = warned

    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        self._outbound = Heartbeats(outbound)
        super().init(self._outbound)

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        resources = self._resources()
        if resources is None:
            return await super().execute_activity(input)
        # A client that starts an activity may pass on the headers of a workflow that it serves.
        origin = Origin.from_headers(input.headers) if activity.info().workflow_id else None
        context = ActivityContext(*resources, self._client, origin, self._waiting)
        token = current.set(context)
        try:
            if not self._routes:
                return await self._execute(input, context)
            async with publishing_activity(context, activity.info()):
                return await self._execute(input, context)
        finally:
            current.reset(token)

    async def _execute(self, input: ExecuteActivityInput, context: ActivityContext) -> Any:
        work = partial(super().execute_activity, input)
        spec, info = spec_of(input.fn), activity.info()
        if info.activity_type.startswith(_OURS):
            return await work()
        own = OwnWriters(context, info, converts=spec is not None)
        if spec is None:
            return await own.run(work)
        if not spec.kind.is_async and not isinstance(input.executor, ThreadPoolExecutor):
            raise final_failure(
                ConfigurationError,
                f"{type(input.executor).__name__} cannot run streaming activities: their "
                "writer belongs to this process; give the worker a ThreadPoolExecutor as "
                "activity_executor",
            )
        self._warn_of_no_heartbeat()
        self._outbound.begin()
        return await run_attempt(spec, context, partial(own.run, work), self._outbound.beat)

    def _warn_of_no_heartbeat(self) -> None:
        info = activity.info()
        if info.heartbeat_timeout or info.is_local or info.activity_type in self._warned:
            return
        self._warned.add(info.activity_type)
        _logger.warning(
            "activity %s is called without heartbeat_timeout: if its worker dies, its readers wait "
            "until start_to_close_timeout for the next attempt; pass heartbeat_timeout where it is "
            "called, for example heartbeat_timeout=timedelta(seconds=10)",
            info.activity_type,
        )


class _WorkflowInbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_WorkflowOutbound(outbound))

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        try:
            await learn_first_run_id()
            result = await super().execute_workflow(input)
        except workflow.ContinueAsNewError:
            await self._flush(continues=True)
            raise
        except StreamqError as exc:
            # By default the SDK would fail the workflow task, which is retried for ever.
            failure = application_error(exc)
            await self._end(failure)
            raise failure from exc
        except (Exception, asyncio.CancelledError) as exc:
            await self._end(exc)
            raise
        await self._end(None)
        return result

    async def _flush(self, *, continues: bool = False) -> None:
        await flush_workflow(continues=continues)

    async def _end(self, failure: BaseException | None) -> None:
        await self._flush()


class _RoutedWorkflowInbound(_WorkflowInbound):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        self._hosted = HostedStream()
        return await super().execute_workflow(input)

    async def _flush(self, *, continues: bool = False) -> None:
        await super()._flush(continues=continues)
        await self._hosted.flush(continues=continues)

    async def _end(self, failure: BaseException | None) -> None:
        await super()._end(failure)
        if self._hosted.is_used:
            await end_topics(failure)


class _WorkflowOutbound(WorkflowOutboundInterceptor):
    def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:
        input.headers = continued_headers(input.headers)
        super().continue_as_new(input)

    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:
        if input.activity in _BRIEF and input.priority == Priority.default:
            input.priority = _FIRST
        if input.activity != POLL_ACTIVITY:  # it needs no origin, and headers are stored in history
            input.headers = _origin().to_headers(input.headers)
        return super().start_activity(input)

    def start_local_activity(self, input: StartLocalActivityInput) -> workflow.ActivityHandle[Any]:
        # These need no origin, and headers are stored in history.
        if input.activity not in (POLL_ACTIVITY, FIRST_RUN_ACTIVITY):
            input.headers = _origin().to_headers(input.headers)
        return super().start_local_activity(input)


def _origin() -> Origin:
    info = workflow.info()
    owner = chosen_owner() or StreamOwner(
        info.workflow_id, known_first_run_id(), info.attempt, workflow_retries()
    )
    return Origin(
        owner.first_execution_run_id,
        owner.call or info.original_execution_run_id,
        owner.attempt,
        owner.retries,
        chosen_topic(),
        owner.workflow_id,
    )
