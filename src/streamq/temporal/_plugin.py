"""Defines the plugin: everything that a worker needs to stream, in one object.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import ClientConfig
from temporalio.plugin import SimplePlugin
from temporalio.worker import ReplayerConfig, Worker, WorkerConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from streamq._errors import ConfigurationError
from streamq._settings import Settings, load_settings
from streamq.calling import _calls as calling
from streamq.calling._queues import check_queue
from streamq.driver import ChunkQueue, close_all
from streamq.opening._open import open_queue

from ._interceptor import StreamqInterceptor
from ._slots import warn_of_few_slots
from ._versioned import VERSIONED
from .activities._forward import forward
from .activities._owner import first_run
from .activities._poll import poll
from .activities._seal import seal
from .activities._summarize import summarize
from .activities._waiting import WaitingActivities
from .activities._watch import outcome, watch
from .generic._workflow import StreamWorkflow
from .producer._signature import lacks_decorator
from .sweeping._activity import sweep
from .sweeping._workflow import SweepWorkflow
from .workflow._produce_workflow import ProduceWorkflow
from .workflow_streams import publish
from .workflow_streams._end_topics import seal_topics
from .workflow_streams._integrations import check_routing, warn_of_integrations
from .workflow_streams._routing import routed_client, with_routing

_DEFAULT_THROTTLE: timedelta = (
    inspect.signature(Worker).parameters["max_heartbeat_throttle_interval"].default
)

_logger = logging.getLogger("streamq.temporal")


class StreamqPlugin(SimplePlugin):
    """Makes streaming activities work on a worker.

    Pass it to ``Client.connect(plugins=[...])``, from which workers inherit it, or to
    ``Worker(plugins=[...])``. It registers the activities and workflows whose names begin with
    ``streamq.``, sends the first run id from workflows to their activities, passes ``streamq``
    through the workflow sandbox, and opens the queue when the worker starts: a worker whose backend
    cannot be reached does not start, and raises why. Workers of one process that share the plugin
    share the queue; it is closed when the last of them stops. They must run in one event loop.

    It also lowers the worker's ``max_heartbeat_throttle_interval`` to ``STREAMQ_CANCEL_SECONDS``,
    so that cancellation reaches activities in that time. The option applies to every activity of
    the worker that sends heartbeats. An interval that was passed to ``Worker`` is not changed.

    Args:
        queue: An open queue to use; it stays open. By default one is opened as configured.
        settings: Limits, and which backend to open; by default those that are configured.
        route_workflow_streams: Whether everything that is published to Workflow Streams of the SDK
            goes to the queue: what Temporal's AI integrations publish, and activities and workflows
            that use ``temporalio.contrib.workflow_streams``. Each topic becomes a stream.
    """

    def __init__(
        self,
        queue: ChunkQueue | None = None,
        settings: Settings | None = None,
        *,
        route_workflow_streams: bool = False,
    ) -> None:
        self._given = queue
        self._routes = route_workflow_streams
        self._given_settings = settings
        self._resources: tuple[ChunkQueue, Settings] | None = None
        self._workers = 0
        self._lock = asyncio.Lock()
        super().__init__(
            "streamq.StreamqPlugin",
            activities=_with_activities,
            workflows=_with_workflows,
            workflow_runner=_pass_through,
        )

    def configure_client(self, config: ClientConfig) -> ClientConfig:
        """Add to a client what routes Workflow Streams, if that is requested."""
        config = super().configure_client(config)
        if self._routes:
            config["interceptors"] = with_routing(config["interceptors"])
        return config

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Add the plugin's activities, workflows, interceptor and options to a worker.

        Raises:
            ConfigurationError: A setting is invalid, or an activity has a parameter for a writer
                and lacks the decorator :func:`streaming_activity`, which would pass it one.
        """
        config = super().configure_worker(config)
        for each in config.get("activities", ()):
            if lacks_decorator(each):
                raise ConfigurationError(
                    f"activity {each.__qualname__} has a parameter that is a stream writer, and "
                    "nothing passes it one: decorate it with @streaming_activity instead of "
                    "@activity.defn"
                )
        found = config.get("interceptors") or ()
        if not any(self._is_mine(each) for each in found):
            mine = StreamqInterceptor(self._opened, config["client"], routes=self._routes)
            config["interceptors"] = [*found, mine]
            warn_of_few_slots(config)
        deployment = config.get("deployment_config")
        if deployment is not None and deployment.use_worker_versioning:
            config["workflows"] = [VERSIONED.get(each, each) for each in config["workflows"]]
        longest = (self._given_settings or load_settings()).cancel_seconds
        chosen = config.get("max_heartbeat_throttle_interval", _DEFAULT_THROTTLE)
        if chosen.total_seconds() <= longest:
            return config
        # Compared by identity: an equal value that the user passed is another object.
        if chosen is _DEFAULT_THROTTLE:
            config["max_heartbeat_throttle_interval"] = timedelta(seconds=longest)
        else:
            _logger.info(
                "this worker's own max_heartbeat_throttle_interval of %g s is kept; cancellation "
                "may take that long to arrive, not STREAMQ_CANCEL_SECONDS=%g",
                chosen.total_seconds(),
                longest,
            )
        return config

    def configure_replayer(self, config: ReplayerConfig) -> ReplayerConfig:
        """Add what the replay of workflows needs."""
        config = super().configure_replayer(config)
        config["interceptors"] = [
            *(config.get("interceptors") or ()),
            StreamqInterceptor(self._opened, routes=self._routes),
        ]
        return config

    def _opened(self) -> tuple[ChunkQueue, Settings] | None:
        return self._resources

    def _is_mine(self, interceptor: object) -> bool:
        # A plugin that was passed to both the client and the worker is applied twice.
        return isinstance(interceptor, StreamqInterceptor) and interceptor.belongs_to(self._opened)

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:
        """Run the worker with an open queue.

        Raises:
            ConfigurationError: The worker was made without this plugin; or
                ``route_workflow_streams``, and this version of the SDK publishes in a way that is
                not known.
            CapabilityError: ``route_workflow_streams``, and the backend does not fence.
            StreamqError: As for :func:`streamq.open_queue`.
        """
        try:
            waiting = self._waiting_of(worker)
            queue, settings = await self._acquire()
            try:
                await self._prepare(worker, queue)
            except BaseException:
                await close_all(self._release)
                raise
        except BaseException as exc:
            _logger.error("this worker does not start: %s", exc)
            # ``async with Worker(...)`` would wait for the shutdown of a worker that never started.
            # The SDK sets this event itself where its own start fails.
            ended = getattr(worker, "_shutdown_complete_event", None)
            if ended is not None:
                ended.set()
            raise
        waiting.open(settings.max_waiting_activities)
        try:
            await next(worker)
        finally:
            await close_all(waiting.aclose, self._release)

    def _waiting_of(self, worker: Worker) -> WaitingActivities:
        """Return the activities of a worker that wait outside of its slots."""
        found = worker.config(active_config=True).get("interceptors") or ()
        mine = (each for each in found if isinstance(each, StreamqInterceptor))
        for each in mine:
            if self._is_mine(each):
                return each.waiting
        raise ConfigurationError(
            "this worker has no interceptor of the StreamqPlugin that runs it: pass the plugin to "
            "Worker(plugins=[...]) or to its client, and let no other plugin remove interceptors"
        )

    async def _prepare(self, worker: Worker, queue: ChunkQueue) -> None:
        activities = worker.config(active_config=True).get("activities", ())
        if not self._routes:
            warn_of_integrations(activities)
            return
        await check_routing(queue, activities)
        if (routed := routed_client(worker.client)) is not worker.client:
            worker.client = routed

    async def _acquire(self) -> tuple[ChunkQueue, Settings]:
        async with self._lock:
            if self._resources is None:
                settings = self._given_settings or load_settings()
                if self._given is not None:
                    check_queue(self._given)
                self._resources = (self._given or await open_queue(settings), settings)
            self._workers += 1
            return self._resources

    async def _release(self) -> None:
        async with self._lock:
            self._workers -= 1
            if self._workers or self._resources is None:
                return
            (queue, _), self._resources = self._resources, None
            if queue is not self._given:
                await calling.close(queue)


_ACTIVITIES: tuple[Callable[..., Any], ...] = (
    poll,
    seal,
    publish,
    seal_topics,
    forward,
    summarize,
    sweep,
    watch,
    outcome,
    first_run,
)
_WORKFLOWS: tuple[type, ...] = (StreamWorkflow, SweepWorkflow, ProduceWorkflow)


# A plugin that was passed to both the client and the worker is applied twice: add everything once.


def _with_activities(
    existing: Sequence[Callable[..., Any]] | None,
) -> Sequence[Callable[..., Any]]:
    found = list(existing or ())
    return [*found, *(each for each in _ACTIVITIES if each not in found)]


def _with_workflows(existing: Sequence[type] | None) -> Sequence[type]:
    found = list(existing or ())
    return [*found, *(each for each in _WORKFLOWS if each not in found)]


def _pass_through(existing: WorkflowRunner | None) -> WorkflowRunner:
    if existing is None:
        existing = SandboxedWorkflowRunner()
    if not isinstance(existing, SandboxedWorkflowRunner):
        return existing
    restrictions = existing.restrictions.with_passthrough_modules("streamq")
    return dataclasses.replace(existing, restrictions=restrictions)
