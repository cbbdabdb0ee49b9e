"""Runs a worker for hosts until it is stopped, on a connection that follows key and certificates.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from temporalio.worker import Worker

from streamq.driver import StreamqError, TemporalEndpoint, to_the_end
from streamq_workflow_streams._settings import WorkflowStreamsSettings
from streamq_workflow_streams.requests._connection import make_client

from ._worker import host_worker

_CHECK_SECONDS = 5.0
_LONGEST_PAUSE = 15.0

_logger = logging.getLogger("streamq")


async def run_hosts(settings: WorkflowStreamsSettings, stopped: asyncio.Event) -> None:
    """Run a worker until an event is set; begin anew when Temporal ends it.

    A key and certificates that were replaced in their files are used within seconds.

    Raises:
        ConfigurationError: The settings cannot be used.
        AccessDeniedError: Temporal refuses the first connection.
        BackendUnavailableError: The first connection cannot be made.
    """
    endpoint = settings.target.resolve()
    used = {"address": endpoint.address, "namespace": endpoint.namespace}
    settings = settings.model_copy(update=used)
    worker = host_worker(await make_client(endpoint, for_worker=True), settings)
    pause = 0.5
    while True:
        following = asyncio.create_task(_follow(worker, settings, endpoint), name="streamq-key")
        running = asyncio.create_task(worker.run(), name="streamq-hosts")
        stopping = asyncio.create_task(stopped.wait(), name="streamq-stop")
        _logger.info("hosting streams on task queue %s of %s", settings.task_queue, used["address"])
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (following, stopping):
                each.cancel()
            if not running.done():
                await to_the_end(worker.shutdown())
            await asyncio.wait({running, following, stopping})
        if stopped.is_set():
            return
        _logger.warning("Temporal has ended the worker for hosts: %s", running.exception())
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stopped.wait()
                    return
            pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                endpoint = settings.target.resolve()
                worker = host_worker(await make_client(endpoint, for_worker=True), settings)
                break
            except StreamqError as exc:
                _logger.warning("%s", exc)


async def _follow(
    worker: Worker, settings: WorkflowStreamsSettings, endpoint: TemporalEndpoint
) -> None:
    """Give a worker a new connection whenever key or certificates were replaced in their files."""
    while True:
        await asyncio.sleep(_CHECK_SECONDS)
        try:
            found = settings.target.resolve()
            if found != endpoint:
                worker.client = await make_client(found, for_worker=True)
                endpoint = found
        except StreamqError as exc:  # a file is being replaced
            _logger.info("the new key or certificate cannot be used yet: %s", exc)
