"""Runs ``streamq.Sweep``: a workflow that ends and removes what crashed producers left."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy

from streamq._errors import ConfigurationError
from streamq._sweep import SweepRequest, SweepSummary
from streamq.temporal._input import from_json, invalid_request

from ._activity import sweep

SWEEP_WORKFLOW = "streamq.Sweep"

_LONGEST_SWEEP = timedelta(hours=1)
_HEARTBEAT = timedelta(seconds=30)
_ATTEMPTS = 3


@workflow.defn(name=SWEEP_WORKFLOW)
class SweepWorkflow:
    """Ends and removes, once, the streams that crashed producers left; a schedule repeats it.

    The result is what ``streamq sweep --json`` prints.
    """

    @workflow.run
    async def run(self, request: dict[str, Any] | SweepRequest | None = None) -> SweepSummary:
        """Sweep the queue of the workers on this task queue.

        Args:
            request: A :class:`SweepRequest`, as plain data; by default all streams of the workers'
                tenant.
        """
        try:
            if not isinstance(request, SweepRequest):
                request = from_json(SweepRequest, {} if request is None else request)
        except ConfigurationError as exc:
            raise invalid_request(str(exc)) from None
        return await workflow.execute_activity(
            sweep,
            request,
            start_to_close_timeout=_LONGEST_SWEEP,
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=RetryPolicy(maximum_attempts=_ATTEMPTS),
        )
