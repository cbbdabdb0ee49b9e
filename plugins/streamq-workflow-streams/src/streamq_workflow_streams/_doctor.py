"""Examines what the driver needs of Temporal: a namespace, permissions, a worker for hosts.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from streamq.driver import Finding, StreamqError

from ._settings import WorkflowStreamsSettings
from .requests._hosts import HostRequests

_OLDEST_SERVER = (1, 28)  # the first with updates that start a workflow


async def examine(
    requests: HostRequests, settings: WorkflowStreamsSettings
) -> AsyncIterator[Finding]:
    """Iterate over what was found, on an open queue, whose namespace exists."""
    namespace = f"namespace {settings.namespace!r} at {settings.address}"
    yield Finding("namespace", True, f"{namespace} exists")
    yield await _server(requests)
    yield await _listing(requests, namespace)
    yield await _worker(requests, settings)


async def _server(requests: HostRequests) -> Finding:
    version = await requests.server_version()
    numbers = tuple(int(each) for each in version.split(".")[:2] if each.isdigit())
    if len(numbers) == 2 and numbers < _OLDEST_SERVER:
        return Finding(
            "server",
            False,
            f"its version is {version}, which has no update that starts a workflow",
            "upgrade the Temporal server to 1.28 or newer",
        )
    return Finding("server", True, f"version {version or 'not stated'}")


async def _listing(requests: HostRequests, namespace: str) -> Finding:
    try:
        await requests.check_listing()
    except StreamqError as exc:
        return Finding(
            "permissions",
            False,
            f"workflows of {namespace} cannot be listed: {exc}",
            "give this API key or certificate a role that reads and writes workflows there",
        )
    return Finding("permissions", True, "workflows can be listed")


async def _worker(requests: HostRequests, settings: WorkflowStreamsSettings) -> Finding:
    queue = f"task queue {settings.task_queue!r}"
    if await requests.has_no_worker():
        return Finding(
            "worker for hosts",
            False,
            f"no worker polls {queue}: nothing can be written or read",
            f"run `python -m streamq_workflow_streams --address {settings.address}`, or add "
            "HostWorkflow to the workflows of a worker on that task queue",
        )
    return Finding("worker for hosts", True, f"a worker polls {queue}")
