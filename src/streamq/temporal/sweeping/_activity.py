"""Sweeps a queue: as a function, and as the activity ``streamq.sweep``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from temporalio import activity
from temporalio.client import Client

from streamq._errors import StreamqError
from streamq._settings import Settings
from streamq._sweep import SweepRequest, SweepSummary
from streamq._sweep import sweep as run_sweep
from streamq.driver import ChunkQueue
from streamq.temporal._failure import application_error
from streamq.temporal.activities._context import ActivityContext, activity_context
from streamq.temporal.activities._heartbeats import beating

from ._judge import ExecutionJudge

SWEEP_ACTIVITY = "streamq.sweep"

_PATIENCE_SECONDS = 5.0
_LONGEST_BEAT_SECONDS = 10.0


async def sweep_queue(
    queue: ChunkQueue,
    settings: Settings,
    client: Client,
    request: SweepRequest,
    *,
    on_progress: Callable[[int], None] = lambda streams: None,
) -> SweepSummary:
    """Sweep a queue, and ask Temporal which workflows and standalone activities have ended.

    :func:`streamq._sweep.sweep` describes sweeping.

    Raises:
        ConfigurationError: The request is invalid.
        StreamqError: The backend failed. A failure of Temporal is among the summary's problems.
    """
    patience = min(settings.retry_seconds, _PATIENCE_SECONDS)
    judge = ExecutionJudge(client, request, patience_seconds=patience)
    summary = await run_sweep(queue, settings, request, judge, on_progress=on_progress)
    problem = judge.problem
    return replace(summary, problems=[*summary.problems, problem]) if problem else summary


@activity.defn(name=SWEEP_ACTIVITY)
async def sweep(request: SweepRequest) -> SweepSummary:
    """Sweep the worker's queue; see :class:`SweepWorkflow`.

    It keeps its activity slot, since it works and waits for nothing.

    Raises:
        ApplicationError: Its type is the name of the streamq error.
    """
    sweeping = _sweep(request, activity_context())
    return await beating(sweeping, longest_seconds=_LONGEST_BEAT_SECONDS)


async def _sweep(request: SweepRequest, context: ActivityContext) -> SweepSummary:
    try:
        return await sweep_queue(context.queue, context.settings, context.client, request)
    except StreamqError as exc:
        raise application_error(exc) from exc
