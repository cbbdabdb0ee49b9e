"""A worker that runs the host workflow."""

from __future__ import annotations

from temporalio.client import Client
from temporalio.worker import Worker

from ._host import HostWorkflow
from ._settings import WorkflowStreamsSettings

_KEPT_HOSTS = 4_000


def host_worker(client: Client, settings: WorkflowStreamsSettings | None = None) -> Worker:
    """Return a worker for the host workflow; run it, or enter it as ``async with``.

    A worker of your own can run :class:`HostWorkflow` as well, if its client has no payload codec:
    the driver has none, and streamq has encoded what it stores before.

    Args:
        client: Without payload codec, connected to the namespace of the settings.
        settings: Which task queue; by default what is configured.
    """
    chosen = settings or WorkflowStreamsSettings()
    return Worker(
        client,
        task_queue=chosen.task_queue,
        workflows=[HostWorkflow],
        # A host that is not kept is run again from its history for the next read.
        max_cached_workflows=_KEPT_HOSTS,
    )
