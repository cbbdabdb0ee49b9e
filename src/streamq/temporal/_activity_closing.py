"""Waits for the end of standalone activities, through outages of Temporal.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from temporalio.api.workflowservice.v1 import PollActivityExecutionRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from ._activity_runs import activity_rpc_error, describe_activity
from ._patience import LONG_POLL_TIMEOUT, LongPolls, Patience
from ._rpc import connecting


class ActivityClosingWatch(Patience):
    """Waits for the end of a standalone activity, as a workflow's watch does.

    Args:
        client: Of the activity's namespace.
        activity_id: Id of the activity.
        patience_seconds: Give up when Temporal has not answered for this long; by default never.
        on_change: Called when Temporal stops answering, and when it answers again.
    """

    def __init__(
        self,
        client: Client,
        activity_id: str,
        *,
        patience_seconds: float = math.inf,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            f"activity {activity_id!r}",
            activity_rpc_error,
            patience_seconds=patience_seconds,
            on_change=on_change,
        )
        self._client = client
        self._activity_id = activity_id

    async def wait(self, run_id: str) -> str:
        """Wait until a run has ended, after all of its attempts.

        Long-polls for its outcome, which is not decoded. After each poll, also one that a proxy has
        cut, a short question proves that Temporal is there.

        Returns:
            Its state, in Temporal's terms: ``COMPLETED``, ``FAILED``, ``CANCELED``,
            ``TERMINATED``, ``TIMED_OUT``; ``NOT_FOUND`` if the server no longer knows it.

        Raises:
            StreamqError: Temporal did not answer for as long as the watch has patience.
        """
        polls = LongPolls()
        while True:
            failed = await self._poll(run_id)
            status = await self.asking(lambda: self._ending(run_id))
            if status is not None:
                return status
            await polls.rest(failed)

    async def _poll(self, run_id: str) -> RPCError | None:
        """Return when the run has ended, or after the server's longest wait; a failure if any."""
        request = PollActivityExecutionRequest(
            namespace=self._client.namespace, activity_id=self._activity_id, run_id=run_id
        )
        try:
            with connecting():
                await self._client.workflow_service.poll_activity_execution(
                    request, retry=False, timeout=LONG_POLL_TIMEOUT
                )
        except RPCError as exc:
            return exc
        return None

    async def _ending(self, run_id: str) -> str | None:
        try:
            run = await describe_activity(self._client, self._activity_id, run_id)
        except RPCError as exc:
            if exc.status is RPCStatusCode.NOT_FOUND:
                return "NOT_FOUND"  # deleted, or removed after the namespace's retention
            raise
        return run.status if run.has_ended else None
