"""Makes a worker that runs the host workflow."""

from __future__ import annotations

from temporalio.client import Client
from temporalio.worker import Worker

from streamq_workflow_streams._settings import WorkflowStreamsSettings

from ._workflow import HostWorkflow

_MOST_CACHED_HOSTS = 4_000


def host_worker(client: Client, settings: WorkflowStreamsSettings | None = None) -> Worker:
    """Return a worker for the host workflow; run it, or enter it with ``async with``.

    Any other worker can run :class:`HostWorkflow` as well if its client has no payload codec. The
    driver has none either; streamq encodes data before it stores them.

    Args:
        client: A client without payload codec, connected to the namespace of the settings.
        settings: Settings with the task queue; by default those of the environment.
    """
    chosen = settings or WorkflowStreamsSettings()
    return Worker(
        client,
        task_queue=chosen.task_queue,
        workflows=[HostWorkflow],
        # A host outside the cache is replayed from its history for the next read.
        max_cached_workflows=_MOST_CACHED_HOSTS,
    )
