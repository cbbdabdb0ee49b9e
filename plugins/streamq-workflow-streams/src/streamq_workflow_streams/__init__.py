"""Backend for streamq without a broker: each stream is a Temporal workflow with Workflow Streams.

A worker has to run :class:`HostWorkflow` on the task queue of the settings: ``python -m
streamq_workflow_streams`` is one, :func:`host_worker` makes one.
"""

from ._driver import WorkflowStreamsDriver
from ._host import HOST_WORKFLOW, HostWorkflow
from ._settings import WorkflowStreamsSettings
from ._worker import host_worker

__all__ = [
    "HOST_WORKFLOW",
    "HostWorkflow",
    "WorkflowStreamsDriver",
    "WorkflowStreamsSettings",
    "host_worker",
]
