"""Finds the workflow or standalone activity that a reader follows, and watches for its end.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from temporalio.client import ActivityHandle, Client, WorkflowHandle

from streamq._errors import ConfigurationError, StreamNotFoundError
from streamq._executions import Execution
from streamq._retry import RetryPolicy
from streamq._settings import Settings

from ._activity_closing import ActivityClosingWatch
from ._activity_runs import wait_activity_started
from ._chains import run_of_new_start
from ._closing import ClosingWatch
from ._patience import Patience
from ._workflow_runs import wait_started

Watching = tuple[Patience, Coroutine[Any, Any, str]]
"""A watch, and the wait for the end, which returns the state in Temporal's terms."""


class Target(Protocol):
    """What a reader follows."""

    client: Client
    """A client of its namespace."""

    id: str
    """Its id."""

    span_attribute: str
    """Name of the id in the attributes of a span, as the SDK's interceptors name it."""

    async def find(self, settings: Settings, *, start_seconds: float) -> tuple[Execution, bool]:
        """Find what its streams are named after, waiting for its start if the handle has no run.

        Returns:
            The execution, and whether it did not exist at first.

        Raises:
            StreamNotFoundError: It does not exist, or was not started in time.
            StreamqError: Temporal refused, or stayed unreachable.
        """

    def watch(self, run_id: str, on_change: Callable[[], None]) -> Watching:
        """Return a watch for the end of the execution with this run id, and its wait."""


class WorkflowTarget:
    """A workflow's chain of runs."""

    span_attribute = "temporalWorkflowID"

    def __init__(self, handle: WorkflowHandle[Any, Any]) -> None:
        self._handle = handle
        self.client: Client = handle._client
        self.id = handle.id

    async def find(self, settings: Settings, *, start_seconds: float) -> tuple[Execution, bool]:
        """Find the chain; see :class:`Target`."""
        handle = self._handle
        first, is_new = run_of_new_start(handle), False
        if first is None:
            given = handle.first_execution_run_id
            run_id = handle.run_id or handle.result_run_id or given
            try:
                first, is_new = await wait_started(
                    self.client, self.id, run_id, _retry(settings), seconds=start_seconds
                )
            except StreamNotFoundError as exc:
                # The stream may be kept for longer than the workflow.
                if given is None:
                    raise StreamNotFoundError(
                        f"{exc.message}; an activity that a client started without a workflow is "
                        f"followed by its handle: client.get_activity_handle({self.id!r})"
                    ) from exc
                first = given
        return Execution("workflow", self.id, first), is_new

    def watch(self, run_id: str, on_change: Callable[[], None]) -> Watching:
        """Watch for the end of the last run; see :class:`Target`."""
        watch = ClosingWatch(self.client, self.id, on_change=on_change)
        return watch, watch.wait_chain(run_id)


class ActivityTarget:
    """A standalone activity."""

    span_attribute = "temporalActivityID"

    def __init__(self, handle: ActivityHandle[Any]) -> None:
        self._handle = handle
        self.client: Client = handle._client
        self.id = handle.id

    async def find(self, settings: Settings, *, start_seconds: float) -> tuple[Execution, bool]:
        """Find the run, by default the newest of its id; see :class:`Target`."""
        run_id, is_new = self._handle.run_id, False
        if not run_id:
            run_id, is_new = await wait_activity_started(
                self.client, self.id, _retry(settings), seconds=start_seconds
            )
        return Execution("activity", self.id, run_id), is_new

    def watch(self, run_id: str, on_change: Callable[[], None]) -> Watching:
        """Watch for the end of the last attempt; see :class:`Target`."""
        watch = ActivityClosingWatch(self.client, self.id, on_change=on_change)
        return watch, watch.wait(run_id)


def _retry(settings: Settings) -> RetryPolicy:
    return RetryPolicy(deadline_seconds=settings.retry_seconds, backend="temporal")


def target_of(
    execution: WorkflowHandle[Any, Any] | ActivityHandle[Any] | str, client: Client | None
) -> Target:
    """Return the target behind a handle, or behind the id of a workflow.

    Raises:
        ConfigurationError: An id comes without a client.
    """
    if isinstance(execution, ActivityHandle):
        return ActivityTarget(execution)
    if not isinstance(execution, str):
        return WorkflowTarget(execution)
    if client is None:
        raise ConfigurationError(
            f"workflow id {execution!r} needs a client: pass client=client, or a handle"
        )
    return WorkflowTarget(client.get_workflow_handle(execution))
