"""Backend for streamq without a broker: each stream is a Temporal workflow with Workflow Streams.

A worker has to run :class:`HostWorkflow` on the task queue of the settings. ``python -m
streamq_workflow_streams`` runs such a worker, :func:`host_worker` makes one.

Design: docs/design/workflow-streams.md.
"""

from ._driver import WorkflowStreamsDriver
from ._protocol import HOST_WORKFLOW
from ._settings import WorkflowStreamsSettings
from .host._worker import host_worker
from .host._workflow import HostWorkflow

__all__ = [
    "HOST_WORKFLOW",
    "HostWorkflow",
    "WorkflowStreamsDriver",
    "WorkflowStreamsSettings",
    "host_worker",
]
