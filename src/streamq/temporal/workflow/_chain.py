"""Knows, in workflow code, the first run of the chain that the running run belongs to.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.api.common.v1 import Payload

from streamq._errors import ConfigurationError
from streamq.temporal._lineage import Lineage, read_lineage
from streamq.temporal._names import DEFAULT_TOPIC, stream_name
from streamq.temporal.activities._owner import first_run

_PATCH = "streamq-cron-firings"
_KEPT = "__streamq_first_run__"
_TIMEOUT = timedelta(seconds=60)


def workflow_stream_name(topic: str = DEFAULT_TOPIC) -> str:
    """Return, in workflow code, the name of a stream of the running workflow.

    Args:
        topic: Which of the workflow's streams.

    Raises:
        ConfigurationError: The topic is not usable.
    """
    return stream_name(workflow.info().workflow_id, first_run_id(), topic)


def first_run_id() -> str:
    """Return the first run of the running chain, for names that workflow code uses.

    Raises:
        ConfigurationError: A handler asks before the retry of a cron schedule's firing has begun.
    """
    info = workflow.info()
    found = known_first_run_id()
    if found is None:
        raise ConfigurationError(
            f"run {info.run_id} of workflow {info.workflow_id!r} retries a firing of its cron "
            "schedule, and does not know its streams before its main method runs; await that in "
            "this handler: workflow.wait_condition(...)"
        )
    # A run that began before firings had streams of their own ends with the names it began with.
    if found != info.first_execution_run_id and not workflow.patched(_PATCH):
        found = info.first_execution_run_id
    _kept()[_KEPT] = found
    return found


def known_first_run_id() -> str | None:
    """Return the first run of the running chain; ``None`` if only Temporal knows it."""
    kept: str | None = _kept().get(_KEPT)
    if kept is not None:
        return kept
    info = workflow.info()
    if info.continued_run_id is None:
        return info.first_execution_run_id
    lineage = read_lineage(info.headers)
    if lineage is not None and lineage.holds(
        continued_from=info.continued_run_id,
        cron_schedule=info.cron_schedule,
        attempt=info.attempt,
    ):
        return lineage.first_run_id
    if not info.cron_schedule:
        return info.first_execution_run_id
    # The firing's first run, also after a reset of it. A retry does not know which one that was.
    return info.original_execution_run_id if info.attempt == 1 else None


async def learn_first_run_id() -> None:
    """Ask Temporal for the first run if this run does not know it; costs a local activity then."""
    if known_first_run_id() is not None:
        return
    if workflow.patched(_PATCH):
        found = await workflow.execute_local_activity(first_run, start_to_close_timeout=_TIMEOUT)
    else:
        found = workflow.info().first_execution_run_id
    _kept()[_KEPT] = found


def continued_headers(headers: Mapping[str, Payload]) -> Mapping[str, Payload]:
    """Return the headers with which the running run is continued as new."""
    info, first = workflow.info(), known_first_run_id()
    if first is None or (not info.cron_schedule and first == info.first_execution_run_id):
        return headers
    return Lineage(first, info.run_id).to_headers(headers)


def _kept() -> dict[str, Any]:
    kept: dict[str, Any] = getattr(workflow.instance(), "__dict__", {})
    return kept
