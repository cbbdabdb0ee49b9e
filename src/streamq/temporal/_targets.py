"""Finds the workflow or standalone activity that a subscription follows, and waits for its end.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

from typing import Any, Protocol

from temporalio.client import ActivityHandle, Client, WorkflowHandle

from streamq._executions import Execution
from streamq._retry import RetryPolicy

from ._activity_runs import wait_activity_closed, wait_activity_started
from ._workflow_runs import wait_closed, wait_started


class Target(Protocol):
    """What a subscription follows."""

    @property
    def client(self) -> Client:
        """A client of its namespace."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def span_attribute(self) -> str:
        """Name of the attribute that has the id in a span, as the SDK's interceptors name it."""

    async def find(self, retry: RetryPolicy, *, seconds: float) -> tuple[Execution, bool]:
        """Return after what its streams are named, waiting for its start if it is not known.

        Returns:
            The execution, and whether it did not exist at first.

        Raises:
            StreamNotFoundError: It was not started within ``seconds``.
            StreamqError: Temporal refused, or stayed unreachable.
        """

    async def wait_closed(self, execution: Execution, *, patience_seconds: float) -> str:
        """Wait until it has ended for good, and return its state in Temporal's terms.

        Raises:
            StreamqError: Temporal refused, or stayed unreachable.
        """


class WorkflowTarget:
    """A workflow's chain of runs."""

    span_attribute = "temporalWorkflowID"

    def __init__(self, handle: WorkflowHandle[Any, Any]) -> None:
        self._handle = handle
        self.client: Client = handle._client
        self.id = handle.id

    async def find(self, retry: RetryPolicy, *, seconds: float) -> tuple[Execution, bool]:
        """Return the chain; see :class:`Target`."""
        handle, is_new = self._handle, False
        first = handle.first_execution_run_id
        if first is None:
            run_id = handle.run_id or handle.result_run_id
            first, is_new = await wait_started(
                self.client, handle.id, run_id, retry, seconds=seconds
            )
        return Execution("workflow", handle.id, first), is_new

    async def wait_closed(self, execution: Execution, *, patience_seconds: float) -> str:
        """Wait for the end of the last run; see :class:`Target`."""
        return await wait_closed(
            self.client, execution.id, execution.run_id, patience_seconds=patience_seconds
        )


class ActivityTarget:
    """A standalone activity."""

    span_attribute = "temporalActivityID"

    def __init__(self, handle: ActivityHandle[Any]) -> None:
        self._handle = handle
        self.client: Client = handle._client
        self.id = handle.id

    async def find(self, retry: RetryPolicy, *, seconds: float) -> tuple[Execution, bool]:
        """Return the run, by default the newest of its id; see :class:`Target`."""
        run_id, is_new = self._handle.run_id, False
        if not run_id:
            run_id, is_new = await wait_activity_started(
                self.client, self.id, None, retry, seconds=seconds
            )
        return Execution("activity", self.id, run_id), is_new

    async def wait_closed(self, execution: Execution, *, patience_seconds: float) -> str:
        """Wait for the end of the last attempt; see :class:`Target`."""
        return await wait_activity_closed(
            self.client, execution.id, execution.run_id, patience_seconds=patience_seconds
        )


def target_of(handle: WorkflowHandle[Any, Any] | ActivityHandle[Any]) -> Target:
    """Return the target behind a handle."""
    if isinstance(handle, ActivityHandle):
        return ActivityTarget(handle)
    return WorkflowTarget(handle)
