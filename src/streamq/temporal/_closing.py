"""Waits for the end of workflows, through outages of Temporal.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from temporalio.api.enums.v1 import ContinueAsNewInitiator, RetryState
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowHistoryEventFilterType,
)
from temporalio.service import RPCError, RPCStatusCode

from ._chains import first_run_of_chain
from ._patience import LONG_POLL_TIMEOUT, LongPolls, Patience
from ._rpc import connecting, is_transient, rpc_error
from ._workflow_runs import describe_run

_CLOSED_BY = {
    "workflow_execution_completed_event_attributes": WorkflowExecutionStatus.COMPLETED,
    "workflow_execution_failed_event_attributes": WorkflowExecutionStatus.FAILED,
    "workflow_execution_canceled_event_attributes": WorkflowExecutionStatus.CANCELED,
    "workflow_execution_terminated_event_attributes": WorkflowExecutionStatus.TERMINATED,
    "workflow_execution_timed_out_event_attributes": WorkflowExecutionStatus.TIMED_OUT,
    "workflow_execution_continued_as_new_event_attributes": (
        WorkflowExecutionStatus.CONTINUED_AS_NEW
    ),
}


class ClosingWatch(Patience):
    """Waits for the end of a workflow. An outage of Temporal, or a refusal, does not end the wait.

    Args:
        client: Of the workflow's namespace.
        workflow_id: Id of the workflow.
        patience_seconds: Give up when Temporal has not answered for this long; by default never.
        on_change: Called when Temporal stops answering, and when it answers again.
    """

    def __init__(
        self,
        client: Client,
        workflow_id: str,
        *,
        patience_seconds: float = math.inf,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            f"workflow {workflow_id!r}",
            rpc_error,
            patience_seconds=patience_seconds,
            on_change=on_change,
        )
        self._client = client
        self._workflow_id = workflow_id

    async def wait_chain(self, first_run_id: str) -> str:
        """Wait until the last run of the chain that a run began has ended.

        Returns:
            The state of the last run, in Temporal's terms: ``COMPLETED``, ``FAILED``, ``CANCELED``,
            ``TERMINATED``, ``TIMED_OUT``; ``NOT_FOUND`` if the server no longer knows the workflow.

        Raises:
            StreamqError: Temporal did not answer for as long as the watch has patience.
        """
        run_id = first_run_id
        while True:
            event = await self.wait_run(run_id)
            next_run = await self.asking(partial(self._next_run, run_id, first_run_id, event))
            if next_run is None:
                return await self.asking(partial(self._status, run_id, event))
            run_id = next_run

    async def wait_run(self, run_id: str | None) -> HistoryEvent | None:
        """Wait until a run, by default the newest, has ended, and return the event of its end.

        Long-polls for that event, so that few requests are made. Where long requests are cut, by a
        proxy for example, a short one proves that Temporal is there.

        Returns:
            The event; ``None`` if the server does not know the run.

        Raises:
            StreamqError: As for :meth:`wait_chain`.
        """
        handle: WorkflowHandle[Any, Any] = self._client.get_workflow_handle(
            self._workflow_id, run_id=run_id
        )
        polls = LongPolls()
        while True:
            pages = handle.fetch_history_events(
                wait_new_event=True,
                event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT,
                skip_archival=True,
                rpc_timeout=LONG_POLL_TIMEOUT,
            )
            try:
                with connecting():
                    while True:
                        await pages.fetch_next_page()
                        self.answered()
                        for event in pages.current_page or ():
                            if _kind(event) in _CLOSED_BY:
                                return event
                        await polls.rest()
            except RPCError as exc:
                if exc.status is RPCStatusCode.NOT_FOUND:
                    return None  # removed after the namespace's retention
                await self._prove(exc, run_id)
                failed = exc
            await polls.rest(failed)

    async def _prove(self, failed: RPCError, run_id: str | None) -> None:
        """Ask a short question after a long one has failed."""
        if not is_transient(failed):
            self.failed(failed)
            return
        try:
            await describe_run(self._client, self._workflow_id, run_id)
        except RPCError as exc:
            if exc.status is not RPCStatusCode.NOT_FOUND:
                self.failed(exc)
                return
        self.answered()

    async def _next_run(
        self, run_id: str, first_run_id: str, closed: HistoryEvent | None
    ) -> str | None:
        """Return the next run of the chain: the one that follows, or one that a reset began."""
        client, workflow_id = self._client, self._workflow_id
        following = None if closed is None else _following(closed)
        if closed is not None and following:
            belongs = _continues_chain(closed)
            if belongs is None:
                belongs = first_run_id == await first_run_of_chain(client, workflow_id, following)
            if belongs:
                return following
        try:
            newest = await describe_run(client, workflow_id)
        except RPCError as exc:
            if exc.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        if newest.run_id == run_id:
            return None
        first = await newest.first_run_id(client, workflow_id)
        return newest.run_id if first == first_run_id else None

    async def _status(self, run_id: str, closed: HistoryEvent | None) -> str:
        """Return the state of a run that has ended."""
        if closed is None:
            return "NOT_FOUND"
        status = _CLOSED_BY[_kind(closed)]
        if status is WorkflowExecutionStatus.CONTINUED_AS_NEW:  # see _continues_chain
            try:
                run = await describe_run(self._client, self._workflow_id, run_id)
                status = run.status or status
            except RPCError as exc:
                if exc.status is not RPCStatusCode.NOT_FOUND:
                    raise
        return status.name


def _kind(event: HistoryEvent) -> str:
    return event.WhichOneof("attributes") or ""


def _following(closed: HistoryEvent) -> str:
    """Return the run that the server began when a run ended; empty if it began none."""
    return getattr(getattr(closed, _kind(closed)), "new_execution_run_id", "")


def _continues_chain(closed: HistoryEvent) -> bool | None:
    """Whether the following run is of the same chain, and not the next firing of a cron schedule.

    Returns:
        ``None`` if the event does not state it.
    """
    attributes = getattr(closed, _kind(closed))
    retry_state = getattr(attributes, "retry_state", None)
    if retry_state is not None:
        return bool(retry_state == RetryState.RETRY_STATE_IN_PROGRESS)
    initiator = getattr(attributes, "initiator", None)
    if initiator is None:
        return False  # after completion, only a cron schedule begins another run
    if initiator == ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE:
        return False
    stated = initiator != ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_UNSPECIFIED
    backs_off = bool(attributes.backoff_start_interval.ToTimedelta())
    if stated or (attributes.workflow_type.name and not backs_off):
        return True
    # The time-skipping server's retries and firings. A real server shows a client of an SDK that it
    # does not know an event without a type, in place of a completion or failure that another run
    # follows.
    return None
